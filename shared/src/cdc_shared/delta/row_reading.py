"""Single rows of data files, in the table's columns as they are now."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.store import ObjectStore
from pyroaring import BitMap

from cdc_shared.delta.actions import AddFile
from cdc_shared.storage.range_file import RangeFile


def read_rows(
    store: ObjectStore, files: Mapping[str, AddFile], rows: Mapping[str, BitMap], schema: pa.Schema
) -> pa.Table:
    """Return the `rows` (path → positions) of data files in the columns of `schema`. Lets the store's errors out.

    Only the row groups that hold some are read.
    """
    found = [_rows_of(store, files[path], positions, schema) for path, positions in rows.items()]
    return pa.concat_tables(found) if found else schema.empty_table()


def conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows in the columns of `schema`; columns and nested fields that they were written without are null."""
    if rows.schema == schema:
        return rows.replace_schema_metadata(None)
    columns = [
        rows.column(field.name).cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _rows_of(store: ObjectStore, file: AddFile, positions: BitMap, schema: pa.Schema) -> pa.Table:
    wanted = np.frombuffer(positions.to_array(), np.uint32).astype(np.int64)
    found, start = [], 0
    with pq.ParquetFile(pa.PythonFile(RangeFile(store, file.path, file.size), mode="r")) as parquet:
        for group in range(parquet.num_row_groups):
            end = start + parquet.metadata.row_group(group).num_rows
            first, last = np.searchsorted(wanted, [start, end])
            if first < last:
                # First conformed: delta-rs writes texts as views, of which Arrow takes no single ones.
                found.append(conformed(parquet.read_row_group(group), schema).take(wanted[first:last] - start))
            start = end
    return pa.concat_tables(found)
