"""What must hold in every state, by the numbers of docs/architecture/data-flow.md."""

from __future__ import annotations

from functools import lru_cache

from commit_protocol.memory import Writer
from commit_protocol.model import Model, Violation
from commit_protocol.store import Entry, Store, Table, table_at
from commit_protocol.stream import Stream


def check_store(model: Model, store: Store) -> None:
    """Raise `Violation` unless the log keeps every promise. I3 and I4 are also checked by the steps that touch them."""
    what = _wrong_with_log(store.log, model.stream)
    if what is not None:
        raise Violation(*what)


def check_view(model: Model, store: Store, writer: Writer) -> None:
    """Raise `Violation` unless what the writer takes for the table was the table."""
    view = writer.snapshot
    if view is not None and view != table_at(store.log[: view.version + 1], model.partitions):
        raise Violation("I4", f"what a writer takes for version {view.version} is not the table's")


@lru_cache(maxsize=1 << 17)
def _wrong_with_log(log: tuple[Entry, ...], stream: Stream) -> tuple[str, str] | None:
    """Check the newest entry; those before were checked with the shorter logs, unless one was overwritten."""
    before = Table(-1, (0,) * len(stream.partitions))
    for entry in log:
        if (wrong := _wrong_with_entry(before, entry, stream)) is not None:
            return wrong
        before = before.apply(entry)
    return None


def _wrong_with_entry(before: Table, entry: Entry, stream: Stream) -> tuple[str, str] | None:
    after = before.apply(entry)
    where = f"version {after.version}"
    for partition, start, _ in entry.ranges:
        if start != before.offsets[partition]:
            stood = before.offsets[partition]
            return "I2", f"{where}: partition {partition} goes on at {start}, it stood at {stood}"
    keys = [stream.event(row).key for row in after.rows]
    if len(keys) != len(set(keys)):
        return "I5", f"{where}: a key has two live rows, {sorted(after.rows)}"
    if entry.moves_rows and sorted(before.rows) != sorted(after.rows):
        return "I8", f"{where}: the rewrite changed {sorted(before.rows)} to {sorted(after.rows)}"
    expected = stream.rows_at(after.offsets, swept=after.swept)
    if set(after.rows) != expected:
        invariant = "I9" if entry.sweeps or after.swept else "I1"
        return invariant, f"{where} at {after.offsets} holds {sorted(after.rows)}, not {sorted(expected)}"
    if missing := {stream.event(row).column for row in after.rows} - after.schema:
        return "I14", f"{where}: rows have columns {missing} that the schema lacks"
    return None
