"""How many rows a version of a table has, from its log alone: seconds, whatever the table's size."""

import pyarrow as pa
import pyarrow.parquet as pq
from obstore.exceptions import BaseError

from cdc_shared.delta.stats import physical_rows
from cdc_shared.errors import Fatal
from cdc_shared.storage.object_store import map_store_error
from cdc_shared.storage.range_file import RangeFile
from reconciliation.sources.deltalake_reader import PinnedTable


def count_rows(table: PinnedTable) -> int:
    """Return how many live rows a version has: those of its data files less those that deletion vectors mark.

    Reads the footer of files whose row count the log does not say; other programs may leave it out.

    Raises:
        Fatal: the table marks rows as deleted softly: only a scan can tell those from others. Also the store's errors.
        Transient: the store stays away.
    """
    if table.soft_deletes:
        raise Fatal("the table marks deleted rows instead of deleting them: mode `counts` cannot count it, use `keys`")
    rows = 0
    for file in table.snapshot.files.values():
        physical = physical_rows(file)
        if physical is None:
            try:
                with pq.ParquetFile(pa.PythonFile(RangeFile(table.store, file.path, file.size), mode="r")) as parquet:
                    physical = parquet.metadata.num_rows
            except (BaseError, OSError) as error:
                raise map_store_error(error, f"the footer of {file.path}") from error
        rows += physical - (0 if file.deletion_vector is None else file.deletion_vector.cardinality)
    return rows
