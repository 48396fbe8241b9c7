"""Which rows a sweep deletes, and where in the table's files they lie.

A row says where its event lay: `_cdc_partition` and `_cdc_offset`. The partition counts from the table's *base*, which
moves up when the offsets of the change topic begin anew (docs/adr/0011-resync.md), so a row below the base is from
before that.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.store import ObjectStore
from pyroaring import BitMap

from cdc_shared.delta.actions import AddFile
from cdc_shared.storage.range_file import RangeFile

_PARTITION: Final = "_cdc_partition"
_OFFSET: Final = "_cdc_offset"


@dataclass(frozen=True, slots=True)
class SweepRule:
    """A row is obsolete when its partition lies below `base`, or its offset before that partition's in `before`.

    `before` is keyed as rows are: by the base plus Kafka's partition.
    """

    base: int
    before: Mapping[int, int]

    def admits(self, file: AddFile) -> bool:
        """Tell whether the file may hold an obsolete row, by its statistics; True when they do not say."""
        lowest = json.loads(file.stats or "{}").get("minValues", {})
        return self._admits(lowest.get(_PARTITION), lowest.get(_OFFSET))

    def rows_of(self, file: AddFile, store: ObjectStore) -> BitMap:
        """Return the obsolete rows of a data file, also those that are deleted already. Lets the store's errors out."""
        doomed = BitMap()
        with pq.ParquetFile(pa.PythonFile(RangeFile(store, file.path, file.size), mode="r")) as parquet:
            first_row = 0
            for group in range(parquet.num_row_groups):
                table = parquet.read_row_group(group, columns=[_PARTITION, _OFFSET])
                partitions = table.column(_PARTITION).to_numpy()
                doomed |= BitMap(
                    np.flatnonzero(self._matches(partitions, table.column(_OFFSET).to_numpy())) + first_row
                )
                first_row += table.num_rows
        return doomed

    def predicate(self) -> str:
        """Return the rule as a condition in SQL."""
        each = [f"({_PARTITION} = {partition} AND {_OFFSET} < {offset})" for partition, offset in self.before.items()]
        return " OR ".join([f"{_PARTITION} < {self.base}", *each])

    def _matches(self, partitions: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        matches = partitions < self.base
        for partition, before in self.before.items():
            matches |= (partitions == partition) & (offsets < before)
        return matches

    def _admits(self, lowest_partition: Any, lowest_offset: Any) -> bool:
        if lowest_partition is None or lowest_offset is None:
            return True
        return bool(lowest_partition < self.base or lowest_offset < max(self.before.values(), default=0))
