"""The join of documents and rows by key hash in DuckDB, a range of hashes at a time.

Of a range only hashes, digests and statuses are read, and what comes out is what is not plainly equal; places, keys and
canonical digests are read of these alone. A full outer join of a range took 0.16 µs of CPU a row, grouping the union of
both sides 0.49. So keys with several rows are not looked for but noticed: then there are more pairs than rows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from cdc_shared.errors import Fatal, Transient
from cdc_shared.models.reconciliation import DifferenceKind
from reconciliation.reconciler.spill import CANDIDATES, SINK_PART, SOURCE_PART, Side, SourceStatus, Spill

RANGE_ROWS: Final = 4_000_000
"""About how many rows of both sides together one range holds: 2 million a side take 150 MB of DuckDB's memory. Smaller
ranges share more of their row groups with their neighbours, which are then read twice."""
MAX_LOCATIONS: Final = 100
"""So many rows of one key are named; of more, only the number is told."""
SPLIT: Final = 4
"""Into so many a range is cut that does not fit in memory because hardly anything in it is equal."""
_COUNTS_KEY: Final = "cdc.counts"
_HASHES: Final = 2**64


@dataclass(frozen=True, slots=True)
class CompareLimits:
    """What DuckDB may take."""

    memory_bytes: int = 384 * 1024 * 1024
    threads: int = 1


@dataclass(frozen=True, slots=True)
class RangeCounts:
    """What was counted in one range, or in all: see `Comparison`.

    `differing`: candidates by the highest byte of their hash.
    """

    compared: int = 0
    sampled: int = 0
    kinds: Mapping[DifferenceKind, int] = field(default_factory=dict)
    differing: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def sum(cls, every: Iterable["RangeCounts"]) -> "RangeCounts":
        """Return all of them together."""
        compared = sampled = 0
        kinds: Counter[DifferenceKind] = Counter()
        differing: Counter[int] = Counter()
        for each in every:
            compared += each.compared
            sampled += each.sampled
            kinds.update(each.kinds)
            differing.update(each.differing)
        return cls(compared, sampled, dict(kinds), dict(differing))


class HashJoin:
    """A context manager; not thread-safe. What it finds is in the spill's `candidates`, a file for each range."""

    def __init__(self, spill: Spill, limits: CompareLimits) -> None:
        self._spill = spill
        self._limits = limits
        rows = sum(spill.facts(side)["rows"] for side in Side)
        self.ranges = -(-max(rows, 1) // RANGE_ROWS)
        self._found: dict[int, RangeCounts] = {}

    def __enter__(self) -> "HashJoin":
        self._db = duckdb.connect(
            config={
                "threads": self._limits.threads,
                "memory_limit": f"{self._limits.memory_bytes // 1024}KiB",
                "temp_directory": str(self._spill.directory / "duckdb"),
                "preserve_insertion_order": "false",
                "autoinstall_known_extensions": "false",
            }
        )
        self._db.execute("SET parquet_metadata_cache = true")
        for side, schema in ((Side.SOURCE, SOURCE_PART), (Side.SINK, SINK_PART)):
            paths = ", ".join("'" + str(path).replace("'", "''") + "'" for path in self._spill.parts(side))
            if paths:
                self._db.execute(f"CREATE TEMP VIEW {side}_rows AS SELECT * FROM read_parquet([{paths}])")  # nosec B608
            else:
                self._db.register(f"{side}_rows", schema.empty_table())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def run(self, number: int) -> None:
        """Join one range, unless its file is there already. Ranges come in their order.

        Raises:
            Transient: the disk cannot be read or written.
            Fatal: DuckDB's memory, or the room on the disk beside it, is not enough.
        """
        path = self._spill.candidate_file(number)
        if not path.exists():
            first, end = number * _HASHES // self.ranges, (number + 1) * _HASHES // self.ranges
            try:
                with self._spill.candidate_writer(number) as file:
                    every = []
                    for counts, rows in self._joined(first, end):
                        every.append(counts)
                        file.write_table(rows.cast(CANDIDATES))
                    file.add_key_value_metadata({_COUNTS_KEY: msgspec.json.encode(RangeCounts.sum(every)).decode()})
            except duckdb.IOException as error:
                raise Transient(f"joining in {self._spill.directory}: {str(error).splitlines()[0]}") from error
            except duckdb.OutOfMemoryException as error:
                raise Fatal(
                    f"joining in {self._spill.directory} needs more room than there is: {str(error).splitlines()[0]}"
                ) from error
        found = pq.read_metadata(path).metadata or {}
        self._found[number] = msgspec.json.decode(found[_COUNTS_KEY.encode()], type=RangeCounts)

    def counts(self) -> RangeCounts:
        """Return what the ranges that were run hold together."""
        return RangeCounts.sum(self._found.values())

    def _joined(self, first: int, end: int) -> Iterator[tuple[RangeCounts, pa.Table]]:
        """Yield what is found in a range of hashes, in as many pieces as memory asks for, by hash."""
        try:
            found = self._join(f"hash_hi BETWEEN {first} AND {end - 1}")
        except duckdb.OutOfMemoryException:
            if end - first < SPLIT:
                raise
            for piece in range(SPLIT):
                low, high = (first + (end - first) * each // SPLIT for each in (piece, piece + 1))
                yield from self._joined(low, high)
        else:
            yield found

    def _join(self, within: str) -> tuple[RangeCounts, pa.Table]:
        execute = self._db.execute
        execute(_PAIRS.format(within=within))
        execute(_UNEQUAL)
        compared = self._add_doubled(within)
        execute(_SAMPLED.format(within=within))
        execute(_KINDS)
        counts = RangeCounts(
            compared=compared,
            sampled=self._one("SELECT count(*) FROM sampled")[0],
            kinds={DifferenceKind(kind): count for kind, count in execute(_COUNT_BY_KIND).fetchall()},
            differing=dict(execute(_COUNT_BY_BYTE).fetchall()),
        )
        return counts, execute(_CANDIDATES.format(within=within, locations=MAX_LOCATIONS)).to_arrow_table()

    def _add_doubled(self, within: str) -> int:
        """Add the keys that are there several times, if any are; return how many keys have a document and a row."""
        matched, only_documents, only_rows = self._one(
            "SELECT sum(matched), sum(only_documents), sum(only_rows) FROM pairs"
        )
        documents, rows = (self._count(side, within) for side in (Side.SOURCE, Side.SINK))
        if matched > documents - only_documents:
            self._add_doubled_of(Side.SINK, "source", "only_documents", within)
        if matched > rows - only_rows:
            self._add_doubled_of(Side.SOURCE, "sink", "only_rows", within)
        return documents - only_documents

    def _add_doubled_of(self, side: Side, other: str, only: str, within: str) -> None:
        found = self._db.execute(_DOUBLED_BUCKETS.format(other=other, only=only, within=within)).fetchall()
        within += f" AND {_BUCKET} IN ({', '.join(str(bucket) for (bucket,) in found)})"
        for statement in _DOUBLED:
            self._db.execute(statement.format(side=side, within=within))

    def _count(self, side: Side, within: str) -> int:
        return self._one(f"SELECT count(*) FROM {side}_rows WHERE {within}")[0]  # nosec B608

    def _one(self, query: str) -> tuple[int, ...]:
        row = self._db.execute(query).fetchone()
        return () if row is None else tuple(int(value or 0) for value in row)


_BUCKET: Final = "(hash_lo & 1023)"
"""A range's rows are counted by these, so that keys that are there twice need be looked for in few of them."""
_PAIRS: Final = """
CREATE OR REPLACE TEMP TABLE pairs AS
SELECT
    coalesce(s.hash_lo, t.hash_lo) & 1023 AS bucket,
    count(*) FILTER (WHERE t.hash_hi = s.hash_hi) AS matched,
    count(*) FILTER (WHERE t.hash_hi IS NULL) AS only_documents,
    count(*) FILTER (WHERE s.hash_hi IS NULL) AS only_rows,
    list({{
        hash_hi: coalesce(s.hash_hi, t.hash_hi), hash_lo: coalesce(s.hash_lo, t.hash_lo), status: s.status,
        has_row: t.hash_hi IS NOT NULL
    }}) FILTER (WHERE coalesce(s.digest_hi <> t.digest_hi OR s.digest_lo <> t.digest_lo OR s.status <> 0, true))
        AS unequal
FROM (SELECT hash_hi, hash_lo, digest_hi, digest_lo, status FROM source_rows WHERE {within}) s
FULL OUTER JOIN (SELECT hash_hi, hash_lo, digest_hi, digest_lo FROM sink_rows WHERE {within}) t
    ON s.hash_hi = t.hash_hi AND s.hash_lo = t.hash_lo
GROUP BY bucket
"""
"""Null in a digest is a side that is not there."""
_UNEQUAL: Final = """
CREATE OR REPLACE TEMP TABLE unequal AS
SELECT
    hash_hi, hash_lo, max(status) AS status, max((status IS NOT NULL)::BIGINT) AS documents,
    count(*) FILTER (WHERE has_row) AS rows
FROM (SELECT unnest(unequal, recursive := true) FROM pairs)
GROUP BY hash_hi, hash_lo
"""
_DOUBLED_BUCKETS: Final = f"""
SELECT bucket FROM pairs JOIN (
    SELECT {_BUCKET} AS bucket, count(*) AS rows FROM {{other}}_rows WHERE {{within}} GROUP BY bucket
) USING (bucket)
WHERE matched > rows - {{only}}
"""  # nosec B608
"""Each row of one side that has found more than one of the other is in one of these: few rows to group."""
_DOUBLED: Final = (
    """
CREATE OR REPLACE TEMP TABLE doubled AS
SELECT hash_hi, hash_lo FROM {side}_rows WHERE {within} GROUP BY ALL HAVING count(*) > 1
""",
    "DELETE FROM unequal WHERE (hash_hi, hash_lo) IN (FROM doubled)",
    """
INSERT INTO unequal
SELECT hash_hi, hash_lo, max(status), sum(document), sum(1 - document) FROM (
    SELECT hash_hi, hash_lo, status, 1 AS document FROM source_rows WHERE {within}
    UNION ALL SELECT hash_hi, hash_lo, NULL, 0 FROM sink_rows WHERE {within}
) SEMI JOIN doubled USING (hash_hi, hash_lo)
GROUP BY hash_hi, hash_lo
""",
)
_SAMPLED: Final = """
CREATE OR REPLACE TEMP TABLE sampled AS
SELECT hash_hi, hash_lo, bool_or(s.canonical <> t.canonical) AS differs
FROM (SELECT hash_hi, hash_lo, canonical FROM source_rows WHERE {within} AND canonical IS NOT NULL) s
JOIN (SELECT hash_hi, hash_lo, canonical FROM sink_rows WHERE {within} AND canonical IS NOT NULL) t
    USING (hash_hi, hash_lo)
GROUP BY hash_hi, hash_lo
"""
_KINDS: Final = f"""
CREATE OR REPLACE TEMP TABLE kinds AS
SELECT *, CASE
    WHEN documents = 0 THEN '{DifferenceKind.EXTRA}'
    WHEN rows > 1 THEN '{DifferenceKind.DUPLICATED}'
    WHEN status = {SourceStatus.FILTERED:d} AND rows = 0 THEN '{DifferenceKind.FILTERED}'
    WHEN status = {SourceStatus.REJECTED:d} THEN '{DifferenceKind.REJECTED}'
    WHEN rows = 0 THEN '{DifferenceKind.MISSING}'
    WHEN status = {SourceStatus.FILTERED:d} THEN '{DifferenceKind.EXTRA}'
    ELSE '{DifferenceKind.DIFFERENT}' END AS kind
FROM unequal
UNION ALL
SELECT hash_hi, hash_lo, {SourceStatus.EXPECTED:d}, 1, 1, '{DifferenceKind.DECODER}'
FROM sampled ANTI JOIN unequal USING (hash_hi, hash_lo) WHERE differs
"""  # nosec B608
_COUNT_BY_KIND: Final = "SELECT kind, count(*) FROM kinds GROUP BY kind"
_COUNT_BY_BYTE: Final = f"""
SELECT (hash_hi >> 56)::INTEGER, count(*) FROM kinds WHERE kind <> '{DifferenceKind.FILTERED}' GROUP BY 1
"""  # nosec B608
_CANDIDATES: Final = f"""
WITH chosen AS MATERIALIZED (SELECT * FROM kinds WHERE kind <> '{DifferenceKind.FILTERED}' AND {{within}})
SELECT
    kind, hash_hi, hash_lo, s.source_key, CASE WHEN documents > 0 THEN status END::UTINYINT AS status,
    rows::UBIGINT AS rows, t.locations
FROM chosen
LEFT JOIN (
    SELECT hash_hi, hash_lo, min(source_key) AS source_key
    FROM source_rows SEMI JOIN chosen USING (hash_hi, hash_lo) WHERE {{within}} GROUP BY ALL
) s USING (hash_hi, hash_lo)
LEFT JOIN (
    SELECT hash_hi, hash_lo, min({{{{file: file, position: position}}}}, {{locations}}) AS locations
    FROM sink_rows SEMI JOIN chosen USING (hash_hi, hash_lo) WHERE {{within}} GROUP BY hash_hi, hash_lo
) t USING (hash_hi, hash_lo)
ORDER BY hash_hi, hash_lo
"""  # nosec B608
