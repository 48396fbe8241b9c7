"""Documents and rows held against each other by their hashes: what is equal is done with, the rest are candidates.

The parts of both sides are joined in DuckDB a range of key hashes at a time, so memory is bounded however many rows
there are, and a comparison that was killed goes on with the ranges that are missing. A candidate is not yet wrong: it
may be a change that came in between, or a row in other columns (`discrepancy_detector` settles it).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from cdc_shared.models.reconciliation import DifferenceKind
from reconciliation.reconciler.hash_join import CompareLimits, HashJoin, RangeCounts
from reconciliation.reconciler.spill import KEYLESS, MAP_RANGES, Side, SourceStatus, Spill
from reconciliation.sources.deltalake_reader import KeyHash, RowLocation


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
        counts: candidates by kind, all of them, and as `filtered` the documents that have no row and should have none.
        rescued_rows, keyless_rows: rows with values in `_cdc_rescued`, and without `_cdc_key`.
    """

    documents: int
    rows: int
    compared: int
    sampled: int
    counts: Mapping[DifferenceKind, int]
    rescued_rows: int
    keyless_rows: int
    digest_map: list[RangeDigest]
    spill: Spill

    def candidates(self, *kinds: DifferenceKind) -> Iterator[Candidate]:
        """Yield the candidates of these kinds (of all by default), by their hashes, from the disk."""
        manifest = self.spill.manifest()
        files = () if manifest is None else manifest.files
        wanted = set(kinds or DifferenceKind)
        for path in self.spill.candidate_files():
            with pq.ParquetFile(path) as parquet:
                for batch in parquet.iter_batches(1024):
                    for row in batch.to_pylist():
                        if row["kind"] in wanted:
                            yield _candidate(row, files)


def compare(
    spill: Spill,
    limits: CompareLimits | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Comparison:
    """Compare the parts of both sides. Every task of the manifest must be finished.

    `progress(done, total)` is called before each range of hashes and at the end; what it raises ends the comparison,
    and calling again goes on from there.

    Raises:
        ValueError: parts are missing.
        Transient, Fatal: as `HashJoin.run`.
    """
    manifest = spill.manifest()
    for side in Side:
        if manifest is None or (missing := manifest.tasks(side) - len(spill.finished(side))):
            raise ValueError(f"{missing if manifest else 'all'} parts of the {side} are missing: scan them first")
    join = HashJoin(spill, limits or CompareLimits())
    with join:
        for done in range(join.ranges):
            progress(done, join.ranges)
            join.run(done)
        progress(join.ranges, join.ranges)
        return _comparison(spill, join.counts())


def _comparison(spill: Spill, found: RangeCounts) -> Comparison:
    documents, rows = spill.facts(Side.SOURCE), spill.facts(Side.SINK)
    return Comparison(
        documents=documents["rows"],
        rows=rows["rows"],
        compared=found.compared,
        sampled=found.sampled,
        counts=found.kinds,
        rescued_rows=rows.get("rescued", 0),
        keyless_rows=rows.get("keyless", 0),
        digest_map=_digest_map(spill, found.differing),
        spill=spill,
    )


def _digest_map(spill: Spill, differing: Mapping[int, int]) -> list[RangeDigest]:
    source, sink = spill.range_sums(Side.SOURCE), spill.range_sums(Side.SINK)
    return [
        RangeDigest(
            range=each,
            source_rows=int(source.rows[each]),
            sink_rows=int(sink.rows[each]),
            source_digest=int(source.digest[each]),
            sink_digest=int(sink.digest[each]),
            differing=differing.get(each, 0),
        )
        for each in range(MAP_RANGES)
    ]


def _candidate(row: Mapping[str, Any], files: Any) -> Candidate:
    return Candidate(
        kind=DifferenceKind(row["kind"]),
        hash=(row["hash_hi"], row["hash_lo"]),
        source_key=row["source_key"],
        status=None if row["status"] is None else SourceStatus(row["status"]),
        locations=tuple(RowLocation(files[each["file"]], each["position"]) for each in row["locations"] or ()),
        rows=row["rows"],
    )
