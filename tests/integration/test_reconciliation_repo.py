"""What Postgres itself keeps true of reconciliation: pages of many differences are walks along an index, somebody who
listens is told, and no verdict outlives the tables that it is of, whoever is first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest
from api_database import TrialDatabase

from cdc_shared.models.reconciliation import CHANNEL, DifferenceKind, JobState, ScheduleConfig
from control_plane.database import prepare_connection
from control_plane.models.reconciliation import DifferenceFilter, DifferencePosition, Job, NewJob, Wanted
from control_plane.problems import Problem
from control_plane.repositories import pipeline_repo, reconciliation_repo, reconciliation_schedule_repo
from control_plane.services import reconciliation_scheduler

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

DIFFERENCES = 100_000
TIMEOUT_S = 10.0


@pytest.fixture
async def connection(database: TrialDatabase) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(database.dsn)
    await prepare_connection(opened)
    yield opened
    await opened.close()


@pytest.fixture
async def other(database: TrialDatabase) -> AsyncIterator[asyncpg.Connection]:
    """The reconciliation service's connection."""
    opened = await asyncpg.connect(database.dsn)
    await prepare_connection(opened)
    yield opened
    await opened.close()


async def made(connection: asyncpg.Connection) -> Job:
    """A started pipeline, and a job of it."""
    await connection.execute(
        "INSERT INTO pipelines (name, spec, started, created_by, updated_by) VALUES ('shop', '{}', true, 'x', 'x')"
    )
    return await reconciliation_repo.insert_job(connection, "shop", NewJob(), "x")


async def keep_verdict(connection: asyncpg.Connection) -> None:
    """As the service does at the end of a run."""
    await connection.execute(
        "INSERT INTO reconciliation_verifications (pipeline, database, collection, verified_through, last_outcome, "
        "checked_at) VALUES ('shop', 'shop', 'orders', now(), 'equal', now())"
    )


async def test_pages_of_many_differences_are_walks_along_an_index(connection: asyncpg.Connection) -> None:
    job = await made(connection)
    run: UUID = await connection.fetchval(
        "INSERT INTO reconciliation_runs (job_id, pipeline, database, collection) "
        "VALUES ($1, 'shop', 'shop', 'orders') RETURNING id",
        job.id,
    )
    await connection.execute(
        "INSERT INTO reconciliation_differences SELECT $1, n, CASE WHEN n % 1000 = 7 THEN 'extra' ELSE 'missing' END, "
        'n::text, NULL, \'{"explanation": "x"}\' FROM generate_series(1, $2) n',
        run,
        DIFFERENCES,
    )
    await connection.execute("ANALYZE reconciliation_differences")
    assert await reconciliation_repo.count_differences(connection, job.id) == {
        (DifferenceKind.EXTRA, False): DIFFERENCES // 1000,
        (DifferenceKind.MISSING, False): DIFFERENCES - DIFFERENCES // 1000,
    }
    deep = DifferencePosition("shop", "orders", DIFFERENCES - 3)
    found = await reconciliation_repo.differences(connection, job.id, DifferenceFilter(), deep, 50)
    assert [each.number for each in found] == [DIFFERENCES - 2, DIFFERENCES - 1, DIFFERENCES]
    extra = DifferenceFilter(kind=DifferenceKind.EXTRA)
    found = await reconciliation_repo.differences(connection, job.id, extra, None, 3)
    assert [each.number for each in found] == [7, 1007, 2007]
    assert [each.kind for each in found] == [DifferenceKind.EXTRA] * 3
    plan = await connection.fetchval(
        "EXPLAIN (FORMAT JSON) SELECT number FROM reconciliation_differences WHERE run_id = $1 AND number > $2 "
        "ORDER BY number LIMIT 51",
        run,
        DIFFERENCES - 1000,
    )
    assert "Seq Scan" not in str(plan)


async def test_who_listens_is_told_of_what_people_ask_and_change(
    connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    await other.add_listener(CHANNEL, lambda *told: heard.put_nowait(str(told[-1])))

    async def told() -> str:
        return await asyncio.wait_for(heard.get(), TIMEOUT_S)

    job = await made(connection)
    assert await told() == str(job.id)
    await reconciliation_repo.want(connection, job.id, Wanted.PAUSE)
    assert await told() == str(job.id)
    schedule = await reconciliation_schedule_repo.insert(connection, "shop", ScheduleConfig(cron="0 2 * * *"), "x")
    assert await told() == str(schedule.id)
    await reconciliation_schedule_repo.remove(connection, schedule.id)
    assert await told() == str(schedule.id)
    await connection.execute("UPDATE reconciliation_jobs SET heartbeat_at = now()")
    await reconciliation_repo.want(connection, job.id, Wanted.CANCEL)
    assert await told() == str(job.id)
    assert heard.empty(), "of a heartbeat nobody is told"


@pytest.mark.parametrize("end", ["DELETE FROM pipelines", "UPDATE pipelines SET started = false"])
async def test_a_verdict_that_is_stored_while_the_tables_are_dropped_goes_with_them(
    connection: asyncpg.Connection, other: asyncpg.Connection, end: str
) -> None:
    """The service holds its job while it stores: the drop waits for it, and then finds the verdict."""
    job = await made(connection)
    storing = other.transaction()
    await storing.start()
    await other.fetchval("SELECT true FROM reconciliation_jobs WHERE id = $1 FOR UPDATE", job.id)
    dropping = asyncio.create_task(connection.execute(end))
    await _until_blocked(other)
    await keep_verdict(other)
    await storing.commit()
    await asyncio.wait_for(dropping, TIMEOUT_S)
    assert await reconciliation_repo.verifications(other, None) == []
    kept = await reconciliation_repo.find_job(other, "shop", job.id)
    assert kept is not None
    assert (kept.state, kept.wanted) == (JobState.QUEUED, Wanted.CANCEL), "so that no later verdict is stored"


async def test_what_is_asked_for_while_its_pipeline_is_deleted_goes_with_it(
    connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await made(connection)
    spec = {"name": "shop", "source": {"connection": "env:NOWHERE", "database": "shop"}}
    await pipeline_repo.replace_spec(connection, "shop", spec, "x")
    record = await pipeline_repo.find(connection, "shop")
    assert record is not None
    asking = other.transaction()
    await asking.start()
    config = ScheduleConfig(cron="0 2 * * *")
    await reconciliation_scheduler.create_schedule(other, record, config, "x", datetime.now(UTC))
    await reconciliation_scheduler.request_job(other, record, NewJob(), "x")
    await pipeline_repo.replace_spec(connection, "shop", spec, "x")  # waits for nobody
    deleting = asyncio.create_task(connection.execute("DELETE FROM pipelines"))
    await _until_blocked(other)
    await asking.commit()
    await asyncio.wait_for(deleting, TIMEOUT_S)
    assert await other.fetchval("SELECT count(*) FROM reconciliation_schedules") == 0
    assert {row["wanted"] for row in await other.fetch("SELECT wanted FROM reconciliation_jobs")} == {"cancel"}
    with pytest.raises(Problem, match="being deleted"):
        await reconciliation_scheduler.create_schedule(other, record, config, "x", datetime.now(UTC))


async def _until_blocked(connection: asyncpg.Connection) -> None:
    """Wait until somebody waits for a lock that this connection has."""

    async def look() -> None:
        waiting = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid)))"
        while not await connection.fetchval(waiting):
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), TIMEOUT_S)
