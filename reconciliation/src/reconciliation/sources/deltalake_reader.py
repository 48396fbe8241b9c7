"""One version of a collection's table, pinned: its log's state, and single rows of it.

Data files never change and names are never used twice, so a version can be read while others are written, for as long
as vacuum leaves its files (`VersionGone` or a missing file says that it has not).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from obstore.exceptions import BaseError
from obstore.store import ObjectStore
from pyroaring import BitMap

from cdc_shared.delta.actions import Metadata
from cdc_shared.delta.key_hash import KeyHashes
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import ChangeTopic, app_id
from cdc_shared.delta.positions import partition_base
from cdc_shared.delta.row_reading import read_rows
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_metadata import masked_by, rows_identity
from cdc_shared.delta.time_travel import table_watermark
from cdc_shared.documents import DocumentSchema, from_delta_schema, has_soft_deletes, parquet_schema
from cdc_shared.errors import Fatal
from cdc_shared.storage.object_store import map_store_error
from reconciliation.sources.data_file import deleted_rows, read_batches
from reconciliation.sources.key_column import KEY_COLUMN, hash_key_column

KeyHash: TypeAlias = tuple[int, int]
"""High and low half of a key's hash, as `hash_keys` gives it; (0, 0) is a row that has no key."""
DELETED_COLUMN: Final = "_cdc_deleted"


class RowLocation(NamedTuple):
    """A row of a data file; `position` counts the file's rows from 0, deleted ones included."""

    path: str
    position: int


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A live row: `values` are all columns as `to_pylist` gives them, which is what `canonical_row` takes."""

    location: RowLocation
    values: Mapping[str, Any]

    @property
    def key(self) -> str | None:
        """Its `_cdc_key`; None when another program left it out."""
        return self.values[KEY_COLUMN]  # type: ignore[no-any-return]

    @property
    def rules_version(self) -> int | None:
        """The version of the rules that made it."""
        return self.values["_cdc_rules_version"]  # type: ignore[no-any-return]

    @property
    def rescued(self) -> str | None:
        """The JSON of what did not fit its columns."""
        return self.values["_cdc_rescued"]  # type: ignore[no-any-return]


class PinnedTable:
    """A table at one version.

    Attributes:
        store: whose root the table is.
        topic: the collection's change topic as it is now.
        snapshot: the log's state at the version. Not to be changed.
        metadata: the table's.
        schema: of the documents.
        columns: of the rows.
    """

    def __init__(self, store: ObjectStore, topic: ChangeTopic, snapshot: Snapshot) -> None:
        """Use `newest` or `at`.

        Raises:
            Fatal: there is no table, or it is not one of this platform's.
        """
        if snapshot.metadata is None:
            raise Fatal(f"there is no table for {topic.name} yet: its first batch has not been committed")
        self.store = store
        self.topic = topic
        self.snapshot = snapshot
        self.metadata: Metadata = snapshot.metadata
        self.schema: DocumentSchema = from_delta_schema(self.metadata.schema_string)
        self.soft_deletes = has_soft_deletes(self.metadata.schema_string)
        self.columns: pa.Schema = parquet_schema(self.schema, soft_deletes=self.soft_deletes)

    @classmethod
    def newest(cls, store: ObjectStore, topic: ChangeTopic) -> "PinnedTable":
        """Return the table as it is now. Raises `Transient` and `Fatal` for the store's errors."""
        try:
            return cls(store, topic, DeltaLog(store).load())
        except (BaseError, OSError) as error:
            raise map_store_error(error, f"the log of the table of {topic.name}") from error

    @classmethod
    def at(cls, store: ObjectStore, topic: ChangeTopic, version: int) -> "PinnedTable":
        """Return the table as it was at a version.

        Raises:
            VersionGone: log clean-up has deleted what led to it, or it does not exist yet.
        """
        try:
            return cls(store, topic, DeltaLog(store).load_version(version))
        except (BaseError, OSError) as error:
            raise map_store_error(error, f"the log of the table of {topic.name}") from error

    @property
    def version(self) -> int:
        """The version that is pinned."""
        return self.snapshot.version

    @property
    def table_id(self) -> str:
        """Names the table's rows as one history: another one after a restore."""
        return rows_identity(self.metadata)

    @property
    def watermark_ms(self) -> int | None:
        """The source time strictly before which everything is in the table; None while it has none."""
        return table_watermark(self.snapshot.txns, self.topic.topic_id, self.topic.partitions)

    @property
    def positions(self) -> dict[int, int]:
        """Partition of the change topic → the next offset to come into the table."""
        return {p: self.snapshot.txns.get(app_id(self.topic, p), 0) for p in range(self.topic.partitions)}

    @property
    def masked_by(self) -> int:
        """The version of the rules whose masks all rows have; 0 when none was ever asked for."""
        return masked_by(self.metadata)

    @property
    def partition_base(self) -> int:
        """What `_cdc_partition` counts from."""
        return partition_base(self.metadata)

    def live(self, locations: Iterable[RowLocation]) -> list[RowLocation]:
        """Return those of the rows that are in this version, in the order of their files."""
        by_path: dict[str, BitMap] = {}
        for path, position in locations:
            by_path.setdefault(path, BitMap()).add(position)
        alive: list[RowLocation] = []
        for path, positions in by_path.items():
            file = self.snapshot.files.get(path)
            if file is not None:
                alive += [RowLocation(path, position) for position in positions - deleted_rows(self.store, file)]
        return alive

    def rows(self, locations: Iterable[RowLocation]) -> Iterator[StoredRow]:
        """Yield those of the rows that are in this version; reads each row group that holds some once.

        Memory is what one file's rows take. Raises `Transient` and `Fatal` for the store's errors.
        """
        by_path: dict[str, BitMap] = {}
        try:
            for path, position in self.live(locations):
                by_path.setdefault(path, BitMap()).add(position)
            for path, positions in by_path.items():
                found = read_rows(self.store, self.snapshot.files, {path: positions}, self.columns)
                for position, values in zip(positions, _each(found), strict=True):
                    if not (self.soft_deletes and values[DELETED_COLUMN]):
                        yield StoredRow(RowLocation(path, position), values)
        except (BaseError, OSError) as error:
            raise map_store_error(error, f"version {self.version} of the table of {self.topic.name}") from error


class KeyedRows:
    """The rows of some keys, found in version after version at the cost of what was written in between.

    A data file's keys never change: which rows of it have one of the keys is learned once, and of a later version only
    the files that are new are searched, their key column alone. Not thread-safe.
    """

    def __init__(
        self,
        hashes: Iterable[KeyHash],
        known: Mapping[KeyHash, Sequence[RowLocation]] | None = None,
        searched: Iterable[str] = (),
    ) -> None:
        """`known`: where rows of the keys are in the files `searched`; without them every file is searched once."""
        self._wanted = _SortedHashes(hashes)
        self._searched = set(searched)
        self._locations: dict[KeyHash, list[RowLocation]] = {each: [] for each in self._wanted}
        for each, locations in (known or {}).items():
            if each in self._locations:
                self._locations[each] += locations

    def find(self, table: PinnedTable, hashes: Iterable[KeyHash] | None = None) -> Iterator[tuple[KeyHash, StoredRow]]:
        """Yield the live rows of these of the keys (all by default) in a version, file by file.

        A key without a row is not in it, one with several more than once.
        Raises `Transient` and `Fatal` for the store's errors.
        """
        self.search(table)
        asked = self._locations if hashes is None else {each: self._locations[each] for each in hashes}
        owner = {location: each for each, locations in asked.items() for location in locations}
        for row in table.rows(owner):
            yield owner[row.location], row

    def search(self, table: PinnedTable) -> int:
        """Search the files that have come since; return how many. `find` does it by itself."""
        new = [file for path, file in table.snapshot.files.items() if path not in self._searched]
        keys_only = pa.schema([table.columns.field(KEY_COLUMN)])
        try:
            for file in new:
                for start, batch in read_batches(table.store, file, keys_only):
                    for row, each in self._wanted.among(hash_key_column(batch.column(KEY_COLUMN))):
                        self._locations[each].append(RowLocation(file.path, start + row))
                self._searched.add(file.path)
        except (BaseError, OSError) as error:
            raise map_store_error(error, f"version {table.version} of the table of {table.topic.name}") from error
        return len(new)


class _SortedHashes:
    """A fixed set of hashes, to find which of many are in it."""

    def __init__(self, hashes: Iterable[KeyHash]) -> None:
        self._all = sorted(set(hashes))
        self._high = np.array([high for high, _ in self._all], np.uint64)
        self._set = set(self._all)

    def __iter__(self) -> Iterator[KeyHash]:
        return iter(self._all)

    def among(self, hashes: KeyHashes) -> Iterator[tuple[int, KeyHash]]:
        """Yield the position and the hash of those of `hashes` that are in the set."""
        if not self._all:
            return
        at = np.minimum(np.searchsorted(self._high, hashes[:, 0]), len(self._high) - 1)
        for row in np.flatnonzero(self._high[at] == hashes[:, 0]).tolist():
            each = int(hashes[row, 0]), int(hashes[row, 1])
            if each in self._set:
                yield row, each


def _each(rows: pa.Table) -> Iterator[Mapping[str, Any]]:
    for batch in rows.to_batches(1024):
        yield from batch.to_pylist()
