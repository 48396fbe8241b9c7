"""Delta tables as their readers see them: DuckDB, delta-rs QueryBuilder and Polars, in one comparable form."""

from __future__ import annotations

from collections.abc import Callable

import polars
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, Schema
from deltalake.exceptions import TableNotFoundError

from cdc_shared.analytics.duckdb_client import connect, delta_scan_sql
from cdc_shared.delta.log import DeltaLog
from cdc_shared.documents import canonical_row, from_delta_schema
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store

Reader = Callable[[str, ObjectStoreSettings], pa.Table]


def open_table(url: str, store: ObjectStoreSettings) -> DeltaTable | None:
    """The table at its newest version; None when there is none."""
    try:
        return DeltaTable(url, storage_options=store.storage_options())
    except TableNotFoundError:
        return None


def read_with_query_builder(url: str, store: ObjectStoreSettings) -> pa.Table:
    """Every row, read by delta-rs."""
    table = DeltaTable(url, storage_options=store.storage_options())
    return pa.table(QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all())


def read_with_duckdb(url: str, store: ObjectStoreSettings) -> pa.Table:
    """Every row, read by DuckDB's `delta_scan`."""
    return query_with_duckdb(url, store, "SELECT * FROM t")


def query_with_duckdb(url: str, store: ObjectStoreSettings, query: str) -> pa.Table:
    """What DuckDB answers; the query calls the table `t`."""
    with connect(store) as connection:
        return connection.execute(f"WITH t AS (SELECT * FROM {delta_scan_sql(url)}) {query}").to_arrow_table()


def read_with_polars(url: str, store: ObjectStoreSettings) -> pa.Table:
    """Every row, read by Polars."""
    return polars.scan_delta(url, storage_options=store.storage_options()).collect().to_arrow()


READERS: dict[str, Reader] = {
    "duckdb": read_with_duckdb,
    "query_builder": read_with_query_builder,
    "polars": read_with_polars,
}


def canonical_rows(url: str, store: ObjectStoreSettings, read: Reader = read_with_query_builder) -> dict[str, bytes]:
    """What the table holds: `_cdc_key` → the canonical form of the row's document. Empty when there is no table."""
    table = open_table(url, store)
    return {} if table is None else canonical_rows_of(read(url, store), table.schema())


def canonical_rows_of(rows: pa.Table, schema: Schema) -> dict[str, bytes]:
    """`_cdc_key` → the canonical form of the row's document. Raises AssertionError when a key has two rows."""
    documents = from_delta_schema(schema.to_json())
    canonical: dict[str, bytes] = {}
    for row in rows.to_pylist():
        key = row["_cdc_key"]
        assert key not in canonical, f"there is more than one row with the key {key}"
        canonical[key] = canonical_row(row, documents, row["_cdc_rescued"])
    return canonical


def versions(url: str, store: ObjectStoreSettings) -> int:
    """How many commits the table has had."""
    return DeltaLog(open_store(url, store)).load().version + 1


def deletion_vectors(url: str, store: ObjectStoreSettings) -> int:
    """How many of the table's live files have a deletion vector."""
    files = DeltaLog(open_store(url, store)).load().files.values()
    return sum(each.deletion_vector is not None for each in files)
