"""Scanning a table of a test in its own thread, and what came of it in words that a test can compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cdc_shared.delta.key_hash import hash_keys
from cdc_shared.models.reconciliation import Mode
from reconciliation.reconciler.spill import ScannedPart
from reconciliation.sources.deltalake_reader import KeyHash, PinnedTable, RowLocation
from reconciliation.sources.key_selection import KeySelection
from reconciliation.sources.sink_scan import SinkScanTask, plan_sink_scan, scan_slices


def scan_table(
    table: PinnedTable,
    *,
    mode: Mode = Mode.FULL,
    task_rows: int = 1_000_000,
    sample_mask: int | None = None,
    selection: KeySelection | None = None,
) -> list[ScannedPart]:
    """The parts of a version, in tasks of about so many rows."""
    files = [table.snapshot.files[path] for path in sorted(table.snapshot.files)]
    schema = table.metadata.schema_string
    return [
        scan_slices(
            SinkScanTask(
                number, "table", [(each, files[each.file]) for each in slices], mode, schema, sample_mask, selection
            ),
            table.store,
        )
        for number, slices in enumerate(plan_sink_scan(files, task_rows))
    ]


def hash_of(key: str) -> KeyHash:
    """The hash of one key text."""
    high, low = hash_keys([key])[0].tolist()
    return high, low


def rows_by_hash(parts: Sequence[ScannedPart]) -> Counter[KeyHash]:
    """How many rows of each key the parts have."""
    found: Counter[KeyHash] = Counter()
    for row in _each(parts):
        found[row["hash_hi"], row["hash_lo"]] += 1
    return found


def digests_by_hash(parts: Sequence[ScannedPart]) -> dict[KeyHash, tuple[int, int]]:
    """The digest of each key's row."""
    return {(row["hash_hi"], row["hash_lo"]): (row["digest_hi"], row["digest_lo"]) for row in _each(parts)}


def locations_by_hash(table: PinnedTable, parts: Sequence[ScannedPart]) -> dict[KeyHash, RowLocation]:
    """Where each key's row is."""
    paths = sorted(table.snapshot.files)
    return {(row["hash_hi"], row["hash_lo"]): RowLocation(paths[row["file"]], row["position"]) for row in _each(parts)}


def _each(parts: Sequence[ScannedPart]) -> list[dict[str, int]]:
    return [row for part in parts for row in part.rows.to_pylist()]
