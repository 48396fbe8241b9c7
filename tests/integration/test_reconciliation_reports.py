"""Reports on the real object store and in the real Postgres: written, read through what they point to, and expired."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from api_database import TrialDatabase
from reconciliation_reports import COLLECTION, difference, report
from stack_endpoints import Stack

from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import delete_everything
from cdc_shared.storage.report_files import REPORT_FORMATS, ReportGone, read_report
from reconciliation.database import Database
from reconciliation.reporters.report import Report
from reconciliation.reporters.report_retention import expire_reports
from reconciliation.reporters.report_store import save_report, write_to_lake

pytestmark = pytest.mark.integration

MONTH = timedelta(days=30)


@pytest.fixture
def lake(stack: Stack, tests_root: str) -> Iterator[tuple[str, ObjectStoreSettings]]:
    root = f"{tests_root}/reports-{uuid4().hex[:8]}"
    yield root, stack.object_store
    delete_everything(root, stack.object_store)


async def _finished_run(database: Database, days_ago: int) -> str:
    """A run that ended so long ago, with a difference."""
    async with database.connection() as connection:
        ended = f"now() - interval '{days_ago} days'"
        run: Any = await connection.fetchval(
            f"""
            WITH job AS (
                INSERT INTO reconciliation_jobs (pipeline, mode, state, requested_by, finished_at)
                VALUES ('shop', 'full', 'completed', 'ann', {ended}) RETURNING id)
            INSERT INTO reconciliation_runs (job_id, pipeline, database, collection, state, finished_at)
            SELECT id, 'shop', $1, $2, 'completed', {ended} FROM job RETURNING id
            """,
            COLLECTION.database,
            COLLECTION.name,
        )
        await connection.execute(
            "INSERT INTO reconciliation_differences (run_id, number, kind, key, details) "
            "VALUES ($1, 1, 'extra', 'k', '{}'::text::jsonb)",
            run,
        )
    return str(run)


def _report_of(run: str) -> Report:
    made = report([difference(key="hostile \x00 \ud800", document={"a": "x" * 10_000})])
    return Report(replace(made.run, run_id=run), made.result)


def test_a_report_is_where_postgres_says_and_goes_when_it_is_old(
    database: TrialDatabase, lake: tuple[str, ObjectStoreSettings]
) -> None:
    root, stores = lake

    async def work() -> None:
        postgres = await Database.open(database.dsn)
        try:
            old, kept, wanted, young = [await _finished_run(postgres, days) for days in (100, 99, 98, 1)]
            for run in (old, kept, wanted, young):
                made = _report_of(run)
                path = await asyncio.to_thread(write_to_lake, made, root, stores)
                async with postgres.connection() as connection:
                    await save_report(connection, made, path)
                    await save_report(connection, made, path)
            async with postgres.connection() as connection:
                # The newest verdict on the collection, and the one that a repair is proposed for, stay.
                await connection.execute(
                    "INSERT INTO reconciliation_verifications "
                    "(pipeline, database, collection, last_run_id, checked_at) "
                    "VALUES ('shop', 'shop', 'orders', $1, now())",
                    kept,
                )
                await connection.execute(
                    "INSERT INTO reconciliation_repairs (pipeline, job_id, kinds, max_keys, plan, proposed_by) "
                    "SELECT 'shop', job_id, '{extra}', 1, '{}'::text::jsonb, 'ann' "
                    "FROM reconciliation_runs WHERE id = $1",
                    wanted,
                )
                paths = {
                    str(row["run_id"]): row["lake_path"]
                    for row in await connection.fetch("SELECT run_id, lake_path FROM reconciliation_reports")
                }
            for form in REPORT_FORMATS:
                assert b"".join(read_report(paths[old], form, stores))
            told = json.loads(b"".join(read_report(paths[old], "json", stores)))
            assert told["differences"][0]["key"] == "hostile \\u0000 \\ud800"

            assert await expire_reports(postgres, stores, MONTH) == 1
            assert await expire_reports(postgres, stores, MONTH) == 0
            with pytest.raises(ReportGone):
                read_report(paths[old], "html", stores)
            assert b"".join(read_report(paths[kept], "csv", stores))
            async with postgres.connection() as connection:
                for table in ("reports", "differences"):
                    rows = await connection.fetch(f"SELECT run_id FROM reconciliation_{table}")
                    assert {str(row["run_id"]) for row in rows} == {kept, wanted, young}
                assert await connection.fetchval("SELECT count(*) FROM reconciliation_runs") == 4
        finally:
            await postgres.close()

    asyncio.run(work())
