"""The table in the store: log entries, what they add up to, and puts whose answer nobody waits for any more."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from commit_protocol.model import Model, Violation
from commit_protocol.protections import Protection
from commit_protocol.stream import Row, Stream

NOBODY = 0
"""The commit id of an entry whose writer has heard of it, or is gone."""


class File(NamedTuple):
    """A data file with its deletion vector, a bit for each deleted row."""

    name: str
    rows: tuple[Row, ...]
    deleted: int = 0

    @property
    def live(self) -> tuple[Row, ...]:
        return tuple(row for i, row in enumerate(self.rows) if not self.deleted >> i & 1)

    @property
    def is_empty(self) -> bool:
        return self.deleted == (1 << len(self.rows)) - 1


class Range(NamedTuple):
    """Offsets of a partition from `start` up to, not including, `end`."""

    partition: int
    start: int
    end: int


class Entry(NamedTuple):
    """A log entry: files that leave, files that come (or come back with another vector), offsets, and the schema.

    `restored`: the offsets that a restore sets back.
    """

    commit_id: int
    ranges: tuple[Range, ...] = ()
    removes: tuple[str, ...] = ()
    adds: tuple[File, ...] = ()
    schema: frozenset[int] | None = None
    moves_rows: bool = False
    sweeps: bool = False
    restored: tuple[int, ...] | None = None


class Table(NamedTuple):
    """What a log adds up to (`Snapshot`). `offsets` are the `txn`s; version -1 is a table that is not there."""

    version: int
    offsets: tuple[int, ...]
    files: tuple[File, ...] = ()
    schema: frozenset[int] = frozenset()
    swept: bool = False

    def apply(self, entry: Entry) -> Table:
        """Mirrors `Snapshot.apply`: removes first, since an entry may swap a file's vector."""
        files = {file.name: file for file in self.files if file.name not in entry.removes}
        files |= {file.name: file for file in entry.adds}
        offsets = list(entry.restored or self.offsets)
        for each in entry.ranges:
            offsets[each.partition] = each.end
        return Table(
            self.version + 1,
            tuple(offsets),
            tuple(sorted(files.values())),
            self.schema if entry.schema is None else entry.schema,
            self.swept or entry.sweeps,
        )

    def file(self, name: str) -> File | None:
        return next((file for file in self.files if file.name == name), None)

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for file in self.files for row in file.live)


@lru_cache(maxsize=1 << 17)
def table_at(log: tuple[Entry, ...], partitions: int) -> Table:
    """The table that a log adds up to."""
    if not log:
        return Table(-1, (0,) * partitions)
    return table_at(log[:-1], partitions).apply(log[-1])


class Put(NamedTuple):
    """A request to put an entry as a version."""

    version: int
    entry: Entry


class Store(NamedTuple):
    """Entry `i` of `log` is version `i`; those before `kept_from` were cleaned up. `in_flight` puts may still land."""

    log: tuple[Entry, ...] = ()
    kept_from: int = 0
    in_flight: tuple[Put, ...] = ()

    def holds(self, version: int) -> bool:
        """Whether the entry of the version is there to be read, or to refuse a put."""
        return self.kept_from <= version < len(self.log)

    def has(self, commit_id: int) -> bool:
        """Whether an entry of this commit has landed."""
        return any(entry.commit_id == commit_id for entry in self.log)

    def with_late(self, put: Put) -> Store:
        return self._replace(in_flight=tuple(sorted({*self.in_flight, put}, key=_put_key)))


def _put_key(put: Put) -> tuple[int, str]:
    return put.version, repr(put.entry)


def first_store(stream: Stream) -> Store:
    """A table that holds the stream's `in_table`, in one entry and one file; none when that is nothing."""
    if not any(stream.in_table):
        return Store()
    ranges = tuple(Range(partition, 0, end) for partition, end in enumerate(stream.in_table))
    rows = tuple(sorted(stream.rows_at(stream.in_table)))
    columns = frozenset(stream.event(row).column for row in rows)
    return Store((Entry(NOBODY, ranges, adds=(File("v0", rows),), schema=columns),))


def landing(model: Model, store: Store, put: Put) -> Store | None:
    """What the store is after it has taken the entry; None when it refuses it (`DeltaLog.append`)."""
    version, entry = put
    newest = len(store.log) - 1
    if entry.commit_id != NOBODY and version == newest + 1 and store.has(entry.commit_id):
        raise Violation("I3", "one commit landed twice")
    if version == newest + 1:
        log = (*store.log, entry)
    elif not store.holds(version):
        raise Violation("I4", f"an entry landed as version {version}, cleaned up long ago; the newest is {newest}")
    elif Protection.PUT_IF_ABSENT in model.on:
        return None
    else:
        log = (*store.log[:version], entry, *store.log[version + 1 :])
    late = tuple(each for each in store.in_flight if each != put and each.version >= len(log))
    return store._replace(log=log, in_flight=late)


def steps(model: Model, store: Store) -> Iterator[tuple[str, Store]]:
    """What happens in the store by itself."""
    for late in store.in_flight:
        landed = landing(model, store, late)
        if landed is not None:
            yield f"! version {late.version} lands late", landed
    if model.restores and not any(entry.restored for entry in store.log):
        for version in range(len(store.log) - 1):
            restored = landing(model, store, Put(len(store.log), _restore(model, store, version)))
            assert restored is not None
            yield f"! the table is restored to version {version}", restored


def _restore(model: Model, store: Store, version: int) -> Entry:
    """`maintenance.restore`: files, schema and offsets of then."""
    then, now = table_at(store.log[: version + 1], model.partitions), table_at(store.log, model.partitions)
    removes = tuple(file.name for file in now.files)
    return Entry(NOBODY, removes=removes, adds=then.files, schema=then.schema, restored=then.offsets)
