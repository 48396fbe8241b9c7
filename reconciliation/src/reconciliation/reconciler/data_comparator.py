"""Documents and rows held against each other by their hashes: what is equal is done with, the rest are candidates.

The parts of both sides are joined in DuckDB a range of key hashes at a time, so memory is bounded however many rows
there are, and a comparison that was killed goes on with the ranges that are missing. A candidate is not yet wrong: it
may be a change that came in between, or a row in other columns (`discrepancy_detector` settles it).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from cdc_shared.errors import Transient
from cdc_shared.models.reconciliation import DifferenceKind
from reconciliation.reconciler.spill import KEYLESS, MAP_RANGES, Side, SourceStatus, Spill
from reconciliation.sources.deltalake_reader import KeyHash, RowLocation

RANGE_ROWS: Final = 1_500_000
"""About how many rows of both sides together one range holds."""
MAX_LOCATIONS: Final = 100
"""So many rows of one key are named; of more, only the number is told."""
_COUNTS_KEY: Final = b"cdc.counts"


@dataclass(frozen=True, slots=True)
class CompareLimits:
    """`max_candidates`: so many of each kind are kept with their rows and keys; of more, only the number."""

    memory_bytes: int = 384 * 1024 * 1024
    threads: int = 1
    max_candidates: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A key whose document and rows are not plainly equal.

    Attributes:
        kind: what it looks like: missing, extra, duplicated, different, decoder or rejected.
        hash: of the key as the table has it (`hash_keys`).
        source_key: key text of the document's `_id`, before any mask; None when the source scan saw no document.
        status: what row the document should have; None without a document.
        locations: its rows in the version that was scanned, `MAX_LOCATIONS` at most.
        rows: how many rows it has there.
    """

    kind: DifferenceKind
    hash: KeyHash
    source_key: str | None
    status: SourceStatus | None
    locations: tuple[RowLocation, ...]
    rows: int

    @property
    def keyless(self) -> bool:
        """Tell whether these are the rows that have no key: no document and no change can ever be theirs."""
        return self.hash == KEYLESS


@dataclass(frozen=True, slots=True)
class RangeDigest:
    """One range of key hashes (by their highest byte): equal digests are equal keys and values.

    `differing` counts the candidates in it.
    """

    range: int
    source_rows: int
    sink_rows: int
    source_digest: int
    sink_digest: int
    differing: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the scans of one run amount to.

    Attributes:
        documents, rows: that were scanned.
        compared: keys that have both a document and a row.
        sampled: of these, also compared through the independent path.
        counts: candidates by kind, all of them; `filtered` are documents that have no row and should have none.
        uninspected: candidates beyond the limit, which `candidates` does not give.
        rescued_rows, keyless_rows: rows with values in `_cdc_rescued`, and without `_cdc_key`.
    """

    documents: int
    rows: int
    compared: int
    sampled: int
    counts: Mapping[DifferenceKind, int]
    uninspected: int
    rescued_rows: int
    keyless_rows: int
    digest_map: list[RangeDigest]
    spill: Spill

    def candidates(self, *kinds: DifferenceKind) -> Iterator[Candidate]:
        """Yield the candidates of these kinds (of all by default), by their hashes, from the disk."""
        manifest = self.spill.manifest()
        files = () if manifest is None else manifest.files
        wanted = set(kinds or DifferenceKind)
        for path in _range_files(self.spill):
            with pq.ParquetFile(path) as parquet:
                for batch in parquet.iter_batches(1024):
                    for row in batch.to_pylist():
                        if row["kind"] in wanted:
                            yield _candidate(row, files)


def compare(
    spill: Spill,
    limits: CompareLimits = CompareLimits(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Compare the finished parts of both sides. Every task of the manifest must be finished.

    `progress(done, total)` is called after each range of hashes; what it raises ends the comparison, and calling again
    goes on from there.

    Raises:
        ValueError: parts are missing.
        Transient: the disk is full.
    """
    raise NotImplementedError


def _range_files(spill: Spill) -> list[Path]:
    return sorted((spill.directory / "candidates").glob("*.parquet"))


def _candidate(row: Mapping[str, Any], files: Any) -> Candidate:
    return Candidate(
        kind=DifferenceKind(row["kind"]),
        hash=(row["hash_hi"], row["hash_lo"]),
        source_key=row["source_key"],
        status=None if row["status"] is None else SourceStatus(row["status"]),
        locations=tuple(RowLocation(files[each["file"]], each["position"]) for each in row["locations"] or ()),
        rows=row["rows"],
    )
