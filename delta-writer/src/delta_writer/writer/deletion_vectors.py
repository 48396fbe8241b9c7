"""The deletion vectors of one table: read, widened, and kept in memory within a bound."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final
from uuid import uuid4

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec.structs import replace
from obstore.store import ObjectStore
from pyroaring import BitMap

from cdc_shared.delta.actions import Action, AddFile, DeletionVectorDescriptor, RemoveFile
from cdc_shared.delta.deletion_vector import (
    decode_stored_vector,
    encode_vector_file,
    vector_file_path,
    vector_location,
)
from cdc_shared.delta.stats import physical_rows, with_loose_bounds, with_row_count
from cdc_shared.storage.range_file import RangeFile

MAX_CACHED_BYTES: Final = 256 * 1024 * 1024
_ENTRY_BYTES: Final = 512
"""What an entry costs beside its rows: path, descriptor, containers."""


class DeletionVectors:
    """Not thread-safe; the bitmaps that it gives are never changed. `clock` is the wall clock in seconds."""

    def __init__(self, store: ObjectStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._cache: OrderedDict[str, tuple[str, BitMap]] = OrderedDict()
        self._cached_bytes = 0

    def of(self, file: AddFile) -> BitMap:
        """Return the rows of a live data file that are deleted. Reads the store when they are not in memory."""
        descriptor = file.deletion_vector
        if descriptor is None:
            return BitMap()
        known = self._cache.get(file.path)
        if known is not None and known[0] == descriptor.unique_id:
            self._cache.move_to_end(file.path)
            return known[1]
        path, start, length = vector_location(descriptor)
        stored = obstore.get_range(self._store, path, start=start, length=length)
        rows = decode_stored_vector(bytes(stored), descriptor)
        self._remember(file.path, descriptor, rows)
        return rows

    def in_memory(self, file: AddFile) -> BitMap | None:
        """Return the deleted rows of a live data file when no read is needed for it, else None."""
        if file.deletion_vector is None:
            return BitMap()
        known = self._cache.get(file.path)
        return known[1] if known is not None and known[0] == file.deletion_vector.unique_id else None

    def write(self, vectors: Mapping[str, BitMap]) -> dict[str, DeletionVectorDescriptor]:
        """Write the vectors of data files to one new file; return the descriptor of each. Nothing for no vector."""
        if not vectors:
            return {}
        file_id = uuid4()
        body, descriptors = encode_vector_file(file_id, vectors)
        obstore.put(self._store, vector_file_path(file_id), body)
        return descriptors

    def swaps(self, files: Mapping[str, AddFile], vectors: Mapping[str, BitMap]) -> list[Action]:
        """Write wider vectors of live files and return the actions that put them in force.

        A file whose rows are all deleted gets only its `remove`.
        """
        swapped = {path: files[path] for path in vectors}
        counted = {path: self._counted(file) for path, file in swapped.items()}
        partly = {path: rows for path, rows in vectors.items() if len(rows) < (physical_rows(counted[path]) or 0)}
        descriptors = self.write(partly)
        now_ms = int(self._clock() * 1000)
        actions = []
        for path, file in swapped.items():
            actions.append(Action(remove=removal(file, now_ms, data_change=True)))
            if path in descriptors:
                add = with_vector(counted[path], descriptors[path])
                actions.append(Action(add=replace(add, modification_time=now_ms, data_change=True)))
        return actions

    def committed(self, files: Mapping[str, AddFile], vectors: Mapping[str, BitMap]) -> None:
        """Keep vectors that a commit has put in force; `files` are the live files after it."""
        for path, rows in vectors.items():
            file = files.get(path)
            if file is None or file.deletion_vector is None:
                self._forget(path)
            else:
                self._remember(path, file.deletion_vector, rows)

    def _counted(self, file: AddFile) -> AddFile:
        """Return the `add` with a row count in its stats, which a file with a vector must have (protocol: "Add").

        Another program's OPTIMIZE may leave it out; the file's footer has it.
        """
        if physical_rows(file) is not None:
            return file
        with pq.ParquetFile(pa.PythonFile(RangeFile(self._store, file.path, file.size), mode="r")) as parquet:
            return replace(file, stats=with_row_count(file.stats, parquet.metadata.num_rows))

    def _remember(self, path: str, descriptor: DeletionVectorDescriptor, rows: BitMap) -> None:
        self._forget(path)
        self._cache[path] = (descriptor.unique_id, rows)
        self._cached_bytes += _size(rows)
        while self._cached_bytes > MAX_CACHED_BYTES and len(self._cache) > 1:
            self._forget(next(iter(self._cache)))

    def _forget(self, path: str) -> None:
        known = self._cache.pop(path, None)
        if known is not None:
            self._cached_bytes -= _size(known[1])


def with_vector(file: AddFile, descriptor: DeletionVectorDescriptor) -> AddFile:
    """Return the `add` of the file with the vector: its column bounds then hold for deleted rows too."""
    return replace(file, deletion_vector=descriptor, stats=with_loose_bounds(file.stats))


def removal(file: AddFile, now_ms: int, *, data_change: bool) -> RemoveFile:
    """Return the `remove` of a live file."""
    return RemoveFile(
        path=file.path,
        data_change=data_change,
        deletion_timestamp=now_ms,
        extended_file_metadata=True,
        partition_values=file.partition_values,
        size=file.size,
        deletion_vector=file.deletion_vector,
    )


def _size(rows: BitMap) -> int:
    """Return about how many bytes the rows take: at most 2 a row, or 8 KiB for each 65,536 rows spanned."""
    return _ENTRY_BYTES + min(2 * len(rows), (rows.max() // 65_536 + 1) * 8192 if rows else 0)
