"""The sample pipeline `shop`: deployed, awaited until its rows are in Delta, and queried with DuckDB."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import duckdb

from cdc_shared.analytics.duckdb_client import connect, delta_scan_sql
from cdc_shared.storage.object_store import table_url
from local_stack.deployment import connector_template, deploy
from local_stack.endpoints import endpoint_values
from local_stack.errors import StackError
from local_stack.parts.object_store import store_settings
from local_stack.stack import Stack

SPEC = "shop.yaml"
SPEC_NAME = "shop"
DATABASE = "shop"
COLLECTION = "orders"
ROWS_SHOWN = 5
ROWS_WITHIN_S = 120.0
POLL_S = 0.5


@dataclass(frozen=True)
class SampleResult:
    sql: str
    """The query as people can run it themselves."""
    rows: str
    """Its answer as DuckDB prints it."""
    count: int
    took_s: float
    """From the call until the first rows were there."""


def run_sample(stack: Stack, say: Callable[[str], None]) -> SampleResult:
    """Deploy the sample pipeline, wait for its first rows and query them. Raises `StackError` when none come."""
    begun = time.monotonic()
    endpoints = endpoint_values(stack, prometheus=False)
    say("deploying the sample pipeline shop")
    deploy(stack.layout.templates / SPEC, connector_template(stack.layout), endpoints)
    url = table_url(stack.delta_root, SPEC_NAME, DATABASE, COLLECTION)
    connection = connect(store_settings(stack))
    say(f"waiting for the first rows in {url}")
    count = _wait_for_rows(connection, url)
    took_s = time.monotonic() - begun
    sql = sample_query(stack)
    return SampleResult(sql, str(connection.sql(sql)), count, took_s)


def _wait_for_rows(connection: duckdb.DuckDBPyConnection, url: str) -> int:
    deadline = time.monotonic() + ROWS_WITHIN_S
    reason = "the table is empty"
    while time.monotonic() < deadline:
        try:
            row = connection.sql(f"SELECT count(*) FROM {delta_scan_sql(url)}").fetchone()  # nosec B608
        except duckdb.Error as error:  # there is no table yet
            reason = str(error).splitlines()[0][:200]
        else:
            if row is not None and row[0] > 0:
                return int(row[0])
        time.sleep(POLL_S)
    raise StackError(
        f"no row has come to {url} within {ROWS_WITHIN_S:.0f} s ({reason}): "
        "see `make status`, then `make logs PART=writer`"
    )


def sample_query(stack: Stack) -> str:
    """The orders that changed last."""
    url = table_url(stack.delta_root, SPEC_NAME, DATABASE, COLLECTION)
    columns = "_id, status, total::DECIMAL(12, 2) AS total, len(items) AS items, _cdc_source_ts AS changed"
    return f"SELECT {columns}\nFROM {delta_scan_sql(url)}\nORDER BY changed DESC LIMIT {ROWS_SHOWN}"  # nosec B608
