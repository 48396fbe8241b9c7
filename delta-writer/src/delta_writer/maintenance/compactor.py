"""Rewriting data files as of a version: the rows that lived then, in one new file, in the table's columns.

Memory is bounded whatever the files' sizes: inputs are copied to the local disk one after the other (small ones to
memory) and read in batches of `BATCH_ROWS`; the output is written there row group by row group (`ROW_GROUP_BYTES`
decoded) and then uploaded. Beside that a job holds 50 bytes a row: key hashes, the same sorted, and where each row came
from.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol, cast

import deltalake
import numpy as np
import numpy.typing as npt
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.store import ObjectStore

from cdc_shared.delta.actions import AddFile
from cdc_shared.delta.key_hash import hash_keys
from cdc_shared.delta.row_reading import conformed
from cdc_shared.storage.object_store import MULTIPART_CHUNK_BYTES, MULTIPART_CONCURRENCY
from delta_writer.maintenance.budget import Budget
from delta_writer.maintenance.rewrite_directory import rewrite_directory
from delta_writer.writer.deletion_vectors import DeletionVectors
from delta_writer.writer.file_changes import FileRewrite, RewrittenFile
from delta_writer.writer.index_run import MemoryRun
from delta_writer.writer.parquet_file import DataFileStream

BATCH_ROWS: Final = 16_384
SMALL_BYTES: Final = 8 * 1024 * 1024
KEY_COLUMN: Final = "_cdc_key"


class Conversion(Protocol):
    """Makes other rows of rows: as many, in their order."""

    schema: pa.Schema

    def convert(self, rows: pa.Table) -> pa.Table:
        """Return the rows, which have all columns of the table, in the columns of `schema`."""
        ...


def rewrite_files(
    store: ObjectStore,
    version: int,
    schema_string: str,
    files: Sequence[AddFile],
    budget: Budget,
    cache_dir: Path,
    clock: Callable[[], float] = time.time,
    conversion: Conversion | None = None,
) -> FileRewrite:
    """Rewrite `files`, as they are at `version` with the schema `schema_string`, into one; upload it, commit nothing.

    Columns and nested fields that a file was written without are null in its rows. With a `conversion` the output holds
    what it makes of the rows. Needs room under `cache_dir`, until
    it returns, for the output and the largest input.

    Raises:
        Stopped: the budget's stop event was set.
        ArrowInvalid: a value does not fit its column as the table's schema has it now.
        OSError: the local disk is full, or cannot be written.
    """
    vectors = DeletionVectors(store, clock)
    dead = {file.path: vectors.of(file) for file in files}
    schema = arrow_schema(schema_string)
    output_schema = schema if conversion is None else conversion.schema
    hashes: list[npt.NDArray[np.uint64]] = []
    numbers: list[npt.NDArray[np.uint32]] = []
    positions: list[npt.NDArray[np.uint32]] = []
    with rewrite_directory(cache_dir) as directory:
        stream = DataFileStream(directory / "output", output_schema)
        for number, file in enumerate(files):
            dead_rows = np.frombuffer(dead[file.path].to_array(), np.uint32)
            for start, batch in _batches(_open(store, file, directory / "input", budget)):
                live = np.ones(len(batch), np.bool_)
                first, end = np.searchsorted(dead_rows, [start, start + len(batch)])
                live[dead_rows[first:end] - start] = False
                # First conformed: Arrow filters no views, which delta-rs writes texts as.
                rows = conformed(batch, schema).filter(pa.array(live))
                if conversion is not None:
                    rows = conversion.convert(rows)
                stream.write(rows)
                hashes.append(hash_keys(cast(list[str], rows.column(KEY_COLUMN).to_pylist())))
                positions.append((np.flatnonzero(live) + start).astype(np.uint32))
                numbers.append(np.full(len(rows), number, np.uint32))
                budget.used()
        stats = stream.finish()
        rows_of = np.concatenate(positions) if positions else np.empty(0, np.uint32)
        outputs = []
        if len(rows_of):
            add = _upload(store, directory / "output", stats, budget, clock)
            keys = MemoryRun.of_file(add.path, np.concatenate(hashes))
            outputs.append(RewrittenFile(add, keys, np.concatenate(numbers), rows_of))
    return FileRewrite(version, dead, outputs, str(uuid.uuid4()))


def arrow_schema(schema_string: str) -> pa.Schema:
    """Return the columns of a Delta schema."""
    return pa.schema(deltalake.Schema.from_json(schema_string).to_arrow())  # type: ignore[arg-type]  # by its C interface


def _open(store: ObjectStore, file: AddFile, local_path: Path, budget: Budget) -> pa.NativeFile:
    if file.size <= SMALL_BYTES:
        body = obstore.get(store, file.path).bytes()
        budget.used(read=len(body))
        return pa.BufferReader(body)
    with local_path.open("wb") as local:  # by ranges: one request would not outlast the rests between its pieces
        for start in range(0, file.size, SMALL_BYTES):
            part = obstore.get_range(store, file.path, start=start, end=min(start + SMALL_BYTES, file.size))
            local.write(part)
            budget.used(read=len(part))
    return pa.OSFile(str(local_path), "rb")


def _batches(source: pa.NativeFile) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows of a file in pieces, each with the position of its first row."""
    start = 0
    with source, pq.ParquetFile(source) as file:
        for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
            yield start, pa.Table.from_batches([batch])
            start += len(batch)


def _upload(store: ObjectStore, local: Path, stats: str, budget: Budget, clock: Callable[[], float]) -> AddFile:
    path = f"part-{uuid.uuid4()}.zstd.parquet"
    size = local.stat().st_size
    obstore.put(store, path, local, chunk_size=MULTIPART_CHUNK_BYTES, max_concurrency=MULTIPART_CONCURRENCY)
    budget.used(written=size)
    return AddFile(
        path=path,
        partition_values={},
        size=size,
        modification_time=int(clock() * 1000),
        data_change=False,
        stats=stats,
    )
