"""What the scans of one run leave on the local disk: a Parquet file for each finished part, and the manifest of all.

A part is put in place whole or not at all, so a killed run goes on with the parts that are missing. Parts belong to the
manifest that they were made under (table version, rules, sample, plan, software): another one begins an empty spill.

    <directory>/manifest.json
    <directory>/source/00000000.parquet …    `SOURCE_PART`, a file for each task of the source's plan
    <directory>/sink/00000000.parquet …      `SINK_PART`, a file for each task of the table's plan
    <directory>/candidates/00000000.parquet …  a file for each range of hashes that was compared (`hash_join`)

Rows of a part rise by the upper bits of `hash_hi`, so that a range of hashes is a few row groups of each. Hashes and
digests do not compress; only the other columns are.
"""

import json
import os
import shutil
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cdc_shared.delta.key_hash import KeyHashes
from cdc_shared.models.reconciliation import Mode

MAP_RANGES: Final = 256
"""Ranges of the digest map: a hash lies in the one that its highest byte names."""
ROW_GROUP_ROWS: Final = 32_768
_RANGES_KEY: Final = b"cdc.ranges"
_FACTS_KEY: Final = b"cdc.facts"
_MANIFEST: Final = "manifest.json"
_CANDIDATES: Final = "candidates"
_HASHES: "Final[list[pa.Field[Any]]]" = [
    pa.field(name, pa.uint64(), nullable=False) for name in ("hash_hi", "hash_lo", "digest_hi", "digest_lo")
]
SOURCE_PART: Final = pa.schema(
    [
        *_HASHES,
        pa.field("status", pa.uint8(), nullable=False),
        pa.field("canonical", pa.binary(16)),
        pa.field("source_key", pa.string()),
    ]
)
"""A document a row: `status` is a `SourceStatus`; `canonical` is set of the sampled ones; `source_key` is the key text
of its `_id`, before any mask.
"""
SINK_PART: Final = pa.schema(
    [
        *_HASHES,
        pa.field("file", pa.uint32(), nullable=False),
        pa.field("position", pa.uint32(), nullable=False),
        pa.field("rules_version", pa.int32()),
        pa.field("canonical", pa.binary(16)),
        pa.field("rescued", pa.bool_(), nullable=False),
    ]
)
"""A live row a row: `file` counts the manifest's `files`, `position` the file's rows, deleted ones included.

A row without `_cdc_key`, which another program must have written, has the hash (0, 0).
"""
CANDIDATES: Final = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        *_HASHES[:2],
        pa.field("source_key", pa.string()),
        pa.field("status", pa.uint8()),
        pa.field("rows", pa.uint64(), nullable=False),
        pa.field("locations", pa.list_(pa.struct([("file", pa.uint32()), ("position", pa.uint32())]))),
    ]
)
"""A candidate a row, as `data_comparator.Candidate` says."""
KEYLESS: Final = (0, 0)


class Side(StrEnum):
    """Whose rows a part holds; also the directory's name."""

    SOURCE = "source"
    SINK = "sink"


class SourceStatus(IntEnum):
    """What row, if any, a document should have."""

    EXPECTED = 0
    REJECTED = 1
    """A validation rule rejects it: no row, or that of an older valid one."""
    FILTERED = 2
    """No row."""
    UNREADABLE = 3
    """It cannot be read as a document: its digest says nothing."""
    NO_PLACE = 4
    """It has a field that the table has no column for: no row of that version equals it."""


class Manifest(msgspec.Struct, frozen=True):
    """What a run compares, fixed when it begins.

    Attributes:
        software: names all that hashes and digests depend on; parts of another one are of no use.
        table_id: `rows_identity` of the table.
        version, schema: of the table, and its `schemaString`.
        watermark_ms: the table's watermark at that version.
        rules_version: of the rules that expected rows are made by.
        sample_mask: rows with `hash_lo & mask == 0` get a canonical digest; None is none.
        topic_id, ends_before: the change topic, and where its partitions ended before anything was read.
        files: the data files of the version, as sink parts number them.
        source_plan, sink_plan: the tasks, by number, as JSON values of the scans' own.
    """

    software: str
    mode: Mode
    table_id: str
    version: int
    schema: str
    watermark_ms: int
    rules_version: int
    sample_mask: int | None
    topic_id: str
    ends_before: Mapping[int, int]
    files: Sequence[str]
    source_plan: Sequence[Any]
    sink_plan: Sequence[Any]

    def tasks(self, side: Side) -> int:
        """Return how many parts a side has."""
        return len(self.source_plan if side is Side.SOURCE else self.sink_plan)


@dataclass(frozen=True, slots=True)
class ScannedPart:
    """What one task found: rows of `SOURCE_PART` or `SINK_PART`, in the order of `sorted_part`.

    `facts` are numbers to be added up over the parts: `rescued`, `keyless`, bytes read, …
    """

    side: Side
    number: int
    rows: pa.Table
    facts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RangeSums:
    """Of each of the `MAP_RANGES`: how many rows, and all their hashes and digests folded with xor."""

    rows: npt.NDArray[np.uint64]
    digest: npt.NDArray[np.uint64]


def source_part(
    number: int,
    hashes: KeyHashes,
    digests: KeyHashes,
    statuses: npt.NDArray[np.uint8],
    source_keys: "Sequence[str] | pa.Array[Any]",
    canonical: "Mapping[int, bytes] | None" = None,
    facts: Mapping[str, int] | None = None,
) -> ScannedPart:
    """Return the part of one source task; `canonical`: row → 16 bytes, of the sampled rows."""
    columns = [
        *_columns(hashes, digests),
        pa.array(statuses, pa.uint8()),
        _canonical(len(hashes), canonical or {}),
        source_keys if isinstance(source_keys, pa.Array) else pa.array(source_keys, pa.string()),
    ]
    rows = sorted_part(pa.Table.from_arrays(columns, schema=SOURCE_PART))
    return ScannedPart(Side.SOURCE, number, rows, dict(facts or {}))


def sink_part(
    number: int,
    hashes: KeyHashes,
    digests: KeyHashes,
    files: npt.NDArray[np.uint32],
    positions: npt.NDArray[np.uint32],
    rules_versions: "pa.Array[Any]",
    rescued: npt.NDArray[np.bool_],
    canonical: "Mapping[int, bytes] | None" = None,
    facts: Mapping[str, int] | None = None,
) -> ScannedPart:
    """Return the part of one table task; `canonical` as in `source_part`."""
    columns = [
        *_columns(hashes, digests),
        pa.array(files),
        pa.array(positions),
        rules_versions,
        _canonical(len(hashes), canonical or {}),
        pa.array(rescued),
    ]
    rows = sorted_part(pa.Table.from_arrays(columns, schema=SINK_PART))
    return ScannedPart(Side.SINK, number, rows, dict(facts or {}))


def sorted_part(rows: pa.Table) -> pa.Table:
    """Return the rows of a part in the order that parts have: that of the upper bits of `hash_hi`.

    The lower bits make room for the row's number, so that plain numbers are sorted, which takes half the time.
    """
    low = np.uint64((1 << max(1, len(rows)).bit_length()) - 1)
    packed = rows.column("hash_hi").to_numpy() & ~low | np.arange(len(rows), dtype=np.uint64)
    packed.sort()
    return rows.combine_chunks().take(packed & low)


class Spill:
    """One run's directory. One process writes it; parts of other machines come to it as `ScannedPart`s."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def manifest(self) -> Manifest | None:
        """Return what the spill was begun for; None when there is none, or one of another layout."""
        try:
            return msgspec.json.decode((self.directory / _MANIFEST).read_bytes(), type=Manifest)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def begin(self, manifest: Manifest) -> None:
        """Empty the spill for this manifest, unless it was begun for exactly it: then its finished parts stay.

        Raises OSError when the disk cannot be written.
        """
        encoded = msgspec.json.encode(manifest)
        path = self.directory / _MANIFEST
        if path.exists() and path.read_bytes() == encoded:
            return
        self.remove()
        self.directory.mkdir(parents=True)
        for name in (*Side, _CANDIDATES):
            (self.directory / name).mkdir()
        _replace(path, encoded)

    def finished(self, side: Side) -> set[int]:
        """Return the numbers of the parts that are there."""
        return {int(path.stem) for path in self.parts(side)}

    def parts(self, side: Side) -> list[Path]:
        """Return the files of the finished parts, by number."""
        return sorted((self.directory / side).glob("*.parquet"))

    def write(self, part: ScannedPart) -> None:
        """Put a part in its place; one that is there already is replaced. Raises OSError when the disk is full."""
        facts = {**part.facts, "rows": len(part.rows)}
        metadata = {_RANGES_KEY: _range_sums(part.rows), _FACTS_KEY: json.dumps(facts).encode()}
        path = self.directory / part.side / f"{part.number:08d}.parquet"
        unfinished = path.with_suffix(".unfinished")
        plain = [field.name for field in _HASHES]
        pq.write_table(
            part.rows.replace_schema_metadata(metadata),
            unfinished,
            row_group_size=ROW_GROUP_ROWS,
            compression={name: "none" if name in plain else "zstd" for name in part.rows.column_names},
            use_dictionary=False,
            write_statistics=["hash_hi"],
        )
        _sync(unfinished)
        unfinished.replace(path)

    def candidate_file(self, number: int) -> Path:
        """Return where the candidates of one range of hashes are, once they are."""
        return self.directory / _CANDIDATES / f"{number:08d}.parquet"

    def candidate_files(self) -> list[Path]:
        """Return the files of the ranges that are compared, by number."""
        return sorted((self.directory / _CANDIDATES).glob("*.parquet"))

    @contextmanager
    def candidate_writer(self, number: int) -> Iterator[pq.ParquetWriter]:
        """Lend the file of one range's candidates, in its place once it is whole. Raises OSError: the disk is full."""
        path = self.candidate_file(number)
        unfinished = path.with_suffix(".unfinished")
        with pq.ParquetWriter(unfinished, CANDIDATES, compression="zstd") as file:
            yield file
        _sync(unfinished)
        unfinished.replace(path)

    def facts(self, side: Side) -> dict[str, int]:
        """Return the facts of a side's parts, added up; `rows` is how many rows they have."""
        total: dict[str, int] = {"rows": 0}
        for path in self.parts(side):
            for name, value in json.loads(_metadata(path)[_FACTS_KEY]).items():
                total[name] = total.get(name, 0) + value
        return total

    def range_sums(self, side: Side) -> RangeSums:
        """Return the digest map of a side's parts, from their footers."""
        sums = RangeSums(np.zeros(MAP_RANGES, np.uint64), np.zeros(MAP_RANGES, np.uint64))
        for path in self.parts(side):
            each = np.frombuffer(b64decode(_metadata(path)[_RANGES_KEY]), "<u8").reshape(2, MAP_RANGES)
            np.add(sums.rows, each[0], out=sums.rows)
            np.bitwise_xor(sums.digest, each[1], out=sums.digest)
        return sums

    def source_hashes(self) -> npt.NDArray[np.uint64]:
        """Return the `hash_hi` of all documents that were scanned, rising, each once."""
        read = [pq.read_table(path, columns=["hash_hi"])["hash_hi"].to_numpy() for path in self.parts(Side.SOURCE)]
        return np.unique(np.concatenate([np.empty(0, np.uint64), *read]))

    def source_keys(self) -> list[str]:
        """Return the key texts of all documents that were scanned."""
        read = (pq.read_table(path, columns=["source_key"])["source_key"] for path in self.parts(Side.SOURCE))
        return [key for column in read for key in column.to_pylist() if key]

    def remove(self) -> None:
        """Delete the directory and all in it."""
        shutil.rmtree(self.directory, ignore_errors=True)


def _columns(hashes: KeyHashes, digests: KeyHashes) -> "list[pa.Array[Any]]":
    return [pa.array(np.ascontiguousarray(each[:, half])) for each in (hashes, digests) for half in (0, 1)]


def _canonical(rows: int, canonical: Mapping[int, bytes]) -> "pa.Array[Any]":
    if not canonical:
        return pa.nulls(rows, pa.binary(16))
    return pa.array([canonical.get(row) for row in range(rows)], pa.binary(16))


def _range_sums(rows: pa.Table) -> bytes:
    columns = [rows.column(field.name).to_numpy() for field in _HASHES]
    starts = np.searchsorted(columns[0], np.arange(MAP_RANGES, dtype=np.uint64) << np.uint64(56))
    counts = np.diff(np.append(starts, len(rows)))
    folded = np.bitwise_xor.reduce(np.stack([column * factor for column, factor in zip(columns, _ODD, strict=True)]))
    digest = np.zeros(MAP_RANGES, np.uint64)
    filled = counts > 0
    if filled.any():
        digest[filled] = np.bitwise_xor.reduceat(folded, starts[filled])
    return b64encode(np.stack([counts.astype("<u8"), digest.astype("<u8")]).tobytes())


_ODD: Final = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93], np.uint64)
"""Unlike factors, so that equal halves of a hash and a digest do not cancel each other."""


def _metadata(path: Path) -> Mapping[bytes, bytes]:
    return pq.read_metadata(path).metadata or {}


def _replace(path: Path, body: bytes) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(body)
    _sync(unfinished)
    unfinished.replace(path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
