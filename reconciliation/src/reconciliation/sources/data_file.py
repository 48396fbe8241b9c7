"""Data files of a Delta table, read from front to back whoever wrote them, in memory that does not grow with them.

The bytes of a row group come in few large requests; columns that the file lacks are null, and columns of another
spelling of a type (delta-rs writes views and large strings) are cast to the table's.
"""

import io
from collections.abc import Iterator, Sequence
from typing import Final

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.store import ObjectStore
from pyroaring import BitMap

from cdc_shared.delta.actions import AddFile
from cdc_shared.delta.deletion_vector import decode_stored_vector, vector_location
from cdc_shared.delta.row_reading import conformed
from cdc_shared.storage.range_file import RangeFile

BATCH_ROWS: Final = 16_384
"""Few enough that what is decoded is still in the processor's caches when it is hashed, in blocks of 4,096 rows: 5 to
10 % less CPU than twice as many of both."""
SMALL_BYTES: Final = 8 * 1024 * 1024
"""A file of no more is fetched whole."""
MAX_WINDOW_BYTES: Final = 96 * 1024 * 1024
"""A row group of more is read piece by piece: another program may have written it."""
_STREAM_BYTES: Final = 1024 * 1024
_GAP_BYTES: Final = 256 * 1024
"""Columns that are not wanted and lie between two that are get fetched too when they take no more."""


def deleted_rows(store: ObjectStore, file: AddFile) -> BitMap:
    """Return the rows of a data file that its deletion vector marks.

    Raises:
        Fatal: the vector is damaged, or of a kind that the platform does not write.
    """
    if file.deletion_vector is None:
        return BitMap()
    path, start, length = vector_location(file.deletion_vector)
    stored = obstore.get_range(store, path, start=start, length=length)
    return decode_stored_vector(bytes(stored), file.deletion_vector)


def read_batches(
    store: ObjectStore, file: AddFile, columns: pa.Schema, first_row: int = 0, end_row: int | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """Yield rows in these columns, deleted ones included, each piece with the position of its first row.

    Of the row groups, those that begin at `first_row` or later and before `end_row`: slices of a file that follow each
    other give each row once, whatever its row groups are. Lets the store's errors out; a file that is no Parquet or
    does not fit the columns raises `pa.ArrowInvalid`.
    """
    source = _Windows(store, file.path, file.size)
    if file.size <= SMALL_BYTES:
        source.fetch([(0, file.size)])
    file_of_source = pa.PythonFile(source, mode="r")
    metadata = pq.read_metadata(file_of_source)
    # A window that is there whole is handed out as it is; only what is read piece by piece needs room for the pieces.
    buffer_size = 0 if _fits_windows(metadata) else _STREAM_BYTES
    with pq.ParquetFile(file_of_source, metadata=metadata, buffer_size=buffer_size) as parquet:
        names = [name for name in columns.names if name in parquet.schema_arrow.names]
        start = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if first_row <= start and (end_row is None or start < end_row):
                if file.size > SMALL_BYTES:
                    source.fetch(_ranges(parquet.metadata, group, names))
                yield from _row_group(parquet, group, names, columns, start)
            start += rows


def _row_group(
    parquet: pq.ParquetFile, group: int, names: Sequence[str], columns: pa.Schema, start: int
) -> Iterator[tuple[int, pa.Table]]:
    if not names:  # no column of the table's is in the file; it has rows all the same
        rows = parquet.metadata.row_group(group).num_rows
        for first in range(0, rows, BATCH_ROWS):
            empty = [pa.nulls(min(BATCH_ROWS, rows - first), field.type) for field in columns]
            yield start + first, pa.Table.from_arrays(empty, schema=columns)
        return
    for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(names), use_threads=False):
        yield start, conformed(pa.Table.from_batches([batch]), columns)
        start += len(batch)


def _ranges(metadata: pq.FileMetaData, group: int, names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the (start, end) of the wanted columns' bytes, near ones joined; empty when they are too many."""
    wanted = set(names)
    row_group = metadata.row_group(group)
    spans: list[tuple[int, int]] = []
    for index in range(row_group.num_columns):
        column = row_group.column(index)
        if column.path_in_schema.partition(".")[0] in wanted:
            start = column.data_page_offset
            if column.has_dictionary_page and column.dictionary_page_offset is not None:
                start = min(start, column.dictionary_page_offset)
            spans.append((start, start + column.total_compressed_size))
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start - joined[-1][1] <= _GAP_BYTES:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined if sum(end - start for start, end in joined) <= MAX_WINDOW_BYTES else []


def _fits_windows(metadata: pq.FileMetaData) -> bool:
    sizes = (
        sum(row_group.column(index).total_compressed_size for index in range(row_group.num_columns))
        for row_group in map(metadata.row_group, range(metadata.num_row_groups))
    )
    return max(sizes, default=0) <= MAX_WINDOW_BYTES


class _Windows(RangeFile):
    """A `RangeFile` that answers from what was fetched ahead, where it was."""

    def __init__(self, store: ObjectStore, path: str, size: int) -> None:
        super().__init__(store, path, size)
        self._windows: list[tuple[int, pa.Buffer]] = []

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch these (start, end) and forget what was fetched before."""
        self._windows = []
        if ranges:
            starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
            bodies = obstore.get_ranges(self._store, self._path, starts=starts, ends=ends)
            self._windows = [(start, pa.py_buffer(body)) for start, body in zip(starts, bodies, strict=True)]

    def read_buffer(self, length: int) -> pa.Buffer:
        """Read as `read` does, without a copy of what was fetched ahead. `pa.PythonFile` calls it."""
        length = max(0, min(length, self._size - self._at))
        for start, body in self._windows:
            if start <= self._at and self._at + length <= start + body.size:
                piece = body.slice(self._at - start, length)
                self.seek(length, io.SEEK_CUR)
                return piece
        return pa.py_buffer(self.read(length))
