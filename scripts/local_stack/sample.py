"""The sample pipeline `shop`: made through the API, awaited until fresh rows are in Delta, and queried with DuckDB."""

import time
from dataclasses import dataclass
from datetime import datetime

import duckdb

from cdc_shared.analytics.duckdb_client import delta_scan_sql
from cdc_shared.analytics.lake import Lake
from cdc_shared.models.common import load_spec
from cdc_shared.storage.object_store import table_url
from control_plane.client.deployment import config_from, run
from local_stack.control_plane import control_plane
from local_stack.endpoints import endpoint_values
from local_stack.errors import StackError
from local_stack.parts.mongodb import server_time
from local_stack.parts.object_store import store_settings
from local_stack.progress import Progress
from local_stack.stack import Stack

SPEC = "shop.yaml"
SPEC_NAME = "shop"
DATABASE = "shop"
COLLECTION = "orders"
SAMPLE_QUERY = """\
SELECT _id, status, total::DECIMAL(12, 2) AS total, len(items) AS items, _cdc_source_ts AS changed
FROM shop.shop.orders
ORDER BY changed DESC LIMIT 5"""
RUNNING_WITHIN_S = 120.0
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
    """From the call until a change made since was there."""


def run_sample(stack: Stack, progress: Progress) -> SampleResult:
    """Bring the sample pipeline to run, wait until a change made after that is in Delta, and query the newest rows.

    Raises `StackError` when none comes.
    """
    begun = time.monotonic()
    since = server_time(stack.mongodb_uri)
    progress.now("starting the sample pipeline shop")
    _run_pipeline(stack, progress)
    progress.now("waiting for the sample's changes to come through")
    url = table_url(stack.delta_root, SPEC_NAME, DATABASE, COLLECTION)
    with Lake(store_settings(stack), stack.delta_root) as lake:
        count = _wait_for_rows(lake.connection, url, since)
        return SampleResult(SAMPLE_QUERY, str(lake.relation(SAMPLE_QUERY)), count, time.monotonic() - begun)


def _run_pipeline(stack: Stack, progress: Progress) -> None:
    config = config_from(load_spec(stack.layout.templates / SPEC))
    with control_plane(endpoint_values(stack, prometheus=False)) as api:
        run(
            api.pipelines,
            config,
            RUNNING_WITHIN_S,
            lambda pipeline: progress.now(f"the sample pipeline shop is {pipeline.status.state}"),
        )


def _wait_for_rows(connection: duckdb.DuckDBPyConnection, url: str, since: datetime) -> int:
    """How many rows the table has once one of them is from `since` or later."""
    deadline = time.monotonic() + ROWS_WITHIN_S
    statement = f"SELECT count(*), epoch(max(_cdc_source_ts)) FROM {delta_scan_sql(url)}"  # nosec B608
    reason = "the table is empty"
    while time.monotonic() < deadline:
        try:
            count, newest = connection.sql(statement).fetchall()[0]
        except duckdb.Error as error:  # there is no table yet
            reason = str(error).splitlines()[0][:200]
        else:
            if newest is not None and newest >= since.timestamp():
                return int(count)
            reason = f"{count} rows, none of them new"
        time.sleep(POLL_S)
    raise StackError(
        f"no new row has come to {url} within {ROWS_WITHIN_S:.0f} s ({reason}): "
        "see `make status`, then `make logs PART=writer`"
    )
