"""The join of documents and rows by key hash, a range of hashes at a time.

`pairing` does away with what is plainly equal; DuckDB groups the rest by key, says what each looks like, and looks up
places, keys and canonical digests of these alone. A join of everything in DuckDB took three times as long.
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
from reconciliation.reconciler.pairing import BORDER, PartReader, unpaired
from reconciliation.reconciler.spill import CANDIDATES, SINK_PART, SOURCE_PART, Side, SourceStatus, Spill

RANGE_ROWS: Final = 4_000_000
"""About how many rows of both sides together one range holds, 33 bytes each. Smaller ranges share more of their row
groups with their neighbours, which are then read twice."""
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
        self._parts = PartReader(self._spill)
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
            try:
                with self._spill.candidate_writer(number) as file:
                    every = []
                    for counts, rows in self._joined(*_cut(0, _HASHES, number, self.ranges)):
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
            found = self._join(first, end)
        except duckdb.OutOfMemoryException:
            if end - first < SPLIT * BORDER:
                raise
            for piece in range(SPLIT):
                yield from self._joined(*_cut(first, end, piece, SPLIT))
        else:
            yield found

    def _join(self, first: int, end: int) -> tuple[RangeCounts, pa.Table]:
        execute = self._db.execute
        within = f"hash_hi BETWEEN {first} AND {end - 1}"
        equal, left = unpaired(self._parts.read(first, end), first, end)
        self._db.register("unpaired", left)
        execute(_KEYS)
        self._db.unregister("unpaired")
        execute(_SAMPLED.format(within=within))
        execute(_KINDS)
        counts = RangeCounts(
            compared=equal + self._one("SELECT sum(documents) FROM keys WHERE documents > 0 AND rows > 0")[0],
            sampled=self._one("SELECT count(*) FROM sampled")[0],
            kinds={DifferenceKind(kind): count for kind, count in execute(_COUNT_BY_KIND).fetchall()},
            differing=dict(execute(_COUNT_BY_BYTE).fetchall()),
        )
        return counts, execute(_CANDIDATES.format(within=within, locations=MAX_LOCATIONS)).to_arrow_table()

    def _one(self, query: str) -> tuple[int, ...]:
        row = self._db.execute(query).fetchone()
        return () if row is None else tuple(int(value or 0) for value in row)


def _cut(first: int, end: int, piece: int, pieces: int) -> tuple[int, int]:
    """Return one of as many pieces of a range as there are, in their order."""
    low, high = ((first + (end - first) * each // pieces) // BORDER * BORDER for each in (piece, piece + 1))
    return low, high


_KEYS: Final = """
CREATE OR REPLACE TEMP TABLE keys AS
SELECT
    hash_hi, hash_lo, max(status) AS status, count(status) AS documents, count(*) - count(status) AS rows,
    count(DISTINCT digest_hi) + count(DISTINCT digest_lo) = 2 AS alike
FROM unpaired
GROUP BY hash_hi, hash_lo
"""
"""Some of them are equal all the same: those whose hash begins like another's."""
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
WITH unequal AS (
    SELECT * EXCLUDE (alike) FROM keys WHERE NOT (documents = 1 AND rows = 1 AND alike AND status = 0)
)
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
