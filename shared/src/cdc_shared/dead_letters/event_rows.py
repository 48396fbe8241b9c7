"""Where a table's rows come from: how far it has read its change topic, and whether one event is among its rows.

The table says how far by a `txn` for each partition, a row by `_cdc_partition` and `_cdc_offset`: `delta.positions`.
"""

import json
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.positions import offset_id, partition_base
from cdc_shared.kafka.topics import TopicIdentity
from cdc_shared.storage.object_store import map_store_error
from cdc_shared.storage.range_file import RangeFile

_PARTITION: Final = "_cdc_partition"
_OFFSET: Final = "_cdc_offset"
_SOURCE_TS: Final = "_cdc_source_ts"
_MIN, _MAX = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OPEN_FILES: Final = 8
_ROW_GROUPS_AT_HAND: Final = 4
"""Those that come one after the other mostly lie together, and a row group's places take 3 MB."""


class _Places(NamedTuple):
    """The rows of a row group, by offset."""

    offsets: npt.NDArray[np.int64]
    partitions: npt.NDArray[np.int64]
    source_ts_us: npt.NDArray[np.int64]


class EventRows:
    """The table at the root of `store` as it was when this was made. It need not exist. Not thread-safe.

    To find an event costs, by the statistics of files and row groups, three columns of the row groups that it may lie
    in. Every method raises `Transient` and `Fatal` for the store.
    """

    def __init__(self, store: ObjectStore, url: str) -> None:
        """`url` is for messages."""
        self._store = store
        self._url = url
        try:
            snapshot = DeltaLog(store).load()
        except (BaseError, OSError) as error:
            raise map_store_error(error, f"reading the log of {url}") from error
        self._txns = snapshot.txns
        self._base = partition_base(snapshot.metadata)
        self._files = [(file.path, file.size) for file in snapshot.files.values()]
        self._bounds = _as_array([_file_bounds(file.stats) for file in snapshot.files.values()])
        self._opened = lru_cache(_OPEN_FILES)(self._open)
        self._places = lru_cache(_ROW_GROUPS_AT_HAND)(self._read)

    def has_read(self, topic: TopicIdentity, partition: int, offset: int) -> bool:
        """Tell whether the table stands beyond the offset."""
        return self._txns.get(offset_id(topic.id, partition), 0) > offset

    def holds(self, topic: TopicIdentity, partition: int, offset: int, source_ts_ms: int) -> bool:
        """Tell whether the event of that source time (ms) at that place is a row.

        Rows from before a new start are found as well, unless the number of partitions changed then. The source time
        tells them from rows of an earlier topic of the same name, whose offsets were the same.
        """
        source_ts_us = source_ts_ms * 1000
        try:
            for file in _admitting(self._bounds, offset, source_ts_us):
                for group in _admitting(self._opened(file)[1], offset, source_ts_us):
                    places = self._places(file, group)
                    if self._is_among(places, topic.partitions, partition, offset, source_ts_us):
                        return True
        except (BaseError, OSError) as error:
            raise map_store_error(error, f"looking for an event in {self._url}") from error
        return False

    def _is_among(self, places: _Places, partitions: int, partition: int, offset: int, source_ts_us: int) -> bool:
        first, end = np.searchsorted(places.offsets, [offset, offset + 1])
        same_partition = (places.partitions[first:end] - self._base - partition) % partitions == 0
        return bool((same_partition & (places.source_ts_us[first:end] == source_ts_us)).any())

    def _open(self, file: int) -> tuple[pq.ParquetFile, npt.NDArray[np.int64]]:
        """A data file, and the bounds of each of its row groups."""
        path, size = self._files[file]
        parquet = pq.ParquetFile(pa.PythonFile(RangeFile(self._store, path, size), mode="r"))
        footer = parquet.metadata
        columns = {footer.schema.column(n).path: n for n in range(footer.num_columns)}
        groups = [footer.row_group(n) for n in range(footer.num_row_groups)]
        return parquet, _as_array(
            [(*_group_bounds(group, columns[_OFFSET]), *_group_bounds(group, columns[_SOURCE_TS])) for group in groups]
        )

    def _read(self, file: int, group: int) -> _Places:
        table = self._opened(file)[0].read_row_group(group, columns=[_OFFSET, _PARTITION, _SOURCE_TS]).sort_by(_OFFSET)
        source_ts = pc.cast(pc.cast(table.column(_SOURCE_TS), pa.timestamp("us", "UTC")), pa.int64())
        partitions = pc.cast(table.column(_PARTITION), pa.int64())
        return _Places(table.column(_OFFSET).to_numpy(), partitions.to_numpy(), source_ts.to_numpy())


# Bounds are the lowest and the highest offset and the lowest and the highest source time (µs). Both are needed: the
# offsets of two partitions may be far apart, so that every file holds a wide span, and a snapshot has one source time.
_Bounds = tuple[int, int, int, int]


def _as_array(bounds: list[_Bounds]) -> npt.NDArray[np.int64]:
    return np.array(bounds, np.int64).reshape(-1, 4)


def _admitting(bounds: npt.NDArray[np.int64], offset: int, source_ts_us: int) -> list[int]:
    """The places of the bounds that an event lies within."""
    low, high, since, until = bounds.T
    within = (low <= offset) & (offset <= high) & (since <= source_ts_us) & (source_ts_us <= until)
    return [int(place) for place in np.flatnonzero(within)]


def _file_bounds(stats: str | None) -> _Bounds:
    """The bounds of a data file, as wide as can be where its statistics do not say."""
    told: dict[str, Any] = json.loads(stats or "{}")
    lowest, highest = told.get("minValues", {}), told.get("maxValues", {})
    since, until = _microseconds(lowest.get(_SOURCE_TS), _MIN), _microseconds(highest.get(_SOURCE_TS), _MAX)
    # Delta truncates times to milliseconds.
    return lowest.get(_OFFSET, _MIN), highest.get(_OFFSET, _MAX), since, until if until == _MAX else until + 1000


def _microseconds(time: str | None, otherwise: int) -> int:
    try:
        return otherwise if time is None else (datetime.fromisoformat(time) - _EPOCH) // timedelta(microseconds=1)
    except ValueError:  # years that Python does not know
        return otherwise


def _group_bounds(group: pq.RowGroupMetaData, column: int) -> tuple[int, int]:
    stats = group.column(column).statistics
    low, high = (None, None) if stats is None else (stats.min_raw, stats.max_raw)
    return (low, high) if isinstance(low, int) and isinstance(high, int) else (_MIN, _MAX)
