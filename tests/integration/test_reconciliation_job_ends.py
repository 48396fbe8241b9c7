"""How jobs end when something is away, is wrong, or kills whoever works them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import reconciliation_worker as reconciliation_worker_module
from api_database import TrialDatabase
from reconciliation_jobs import NewJob, add_job, until, wait_for
from reconciliation_worker import FakeRunner, reconciliation_worker

from cdc_shared.errors import Fatal, Transient
from cdc_shared.models.reconciliation import DifferenceKind
from reconciliation.database import Database
from reconciliation.reconciler.difference import Difference
from reconciliation.scheduler import job_executor
from reconciliation.scheduler.job import Job
from reconciliation.scheduler.job_store import MAX_LOSSES
from reconciliation.scheduler.repair_proposal import propose_repair

pytestmark = [pytest.mark.integration, pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture
def new_job(database: TrialDatabase) -> NewJob:
    return partial(add_job, database)


async def test_what_is_away_is_tried_again_and_what_is_wrong_is_said(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_executor, "FIRST_WAIT_S", 0.01)
    runner = FakeRunner(tmp_path)
    runner.failures = [Transient("the source is away"), Transient("the source is away")]
    job = await new_job()
    async with reconciliation_worker(database.dsn, runner):
        assert await until(database, job, "completed", "failed") == "completed"
        runner.failures = [Fatal("the table is gone: reset the collection")]
        job = await new_job()
        assert await until(database, job, "completed", "failed") == "failed"
        runner.failures = [ValueError("a value of somebody's document")]
        strange = await new_job()
        assert await until(database, strange, "completed", "failed") == "failed"
    errors = [
        await database.fetch_value("SELECT error FROM reconciliation_jobs WHERE id = $1", j) for j in (job, strange)
    ]
    assert errors[0] == "shop.a: the table is gone: reset the collection"
    assert "unexpected ValueError" in errors[1]
    assert "somebody" not in errors[1]


async def test_a_repair_is_proposed_though_postgres_is_away_for_a_moment(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_executor, "FIRST_WAIT_S", 0.01)
    away = [Transient("Postgres does not answer")]

    async def propose(opened: Database, job: Job) -> None:
        if away:
            raise away.pop()
        await propose_repair(opened, job)

    monkeypatch.setattr(reconciliation_worker_module, "propose_repair", propose)
    runner = FakeRunner(tmp_path)
    runner.differences = [Difference(key="k", source_key="1", kind=DifferenceKind.MISSING)]
    job = await new_job(repair=True)
    async with reconciliation_worker(database.dsn, runner):
        assert await until(database, job, "completed", "failed") == "completed"
    assert await database.fetch_value("SELECT count(*) FROM reconciliation_repairs WHERE job_id = $1", job) == 1


async def test_a_job_that_cannot_be_read_fails_and_holds_nobody_up(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path
) -> None:
    strange, good = await new_job(no_such_option=1), await new_job()
    async with reconciliation_worker(database.dsn, FakeRunner(tmp_path)):
        assert await until(database, good, "completed", "failed") == "completed"
    error = await database.fetch_value("SELECT error FROM reconciliation_jobs WHERE id = $1", strange)
    assert "cannot be read" in error


async def test_an_error_with_characters_that_postgres_cannot_hold_is_said_all_the_same(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path
) -> None:
    runner = FakeRunner(tmp_path)
    runner.failures = [Fatal("the field a\x00b\ud800 has no column")]
    job = await new_job()
    async with reconciliation_worker(database.dsn, runner):
        assert await until(database, job, "completed", "failed") == "failed"
    error = await database.fetch_value("SELECT error FROM reconciliation_jobs WHERE id = $1", job)
    assert error == "shop.a: the field a\\u0000b\\ud800 has no column"


async def test_a_collection_without_a_table_is_told_at_once_and_the_others_are_compared(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path
) -> None:
    job = await new_job(collections=["a", "ordres"])
    async with reconciliation_worker(database.dsn, FakeRunner(tmp_path, tables=("a", "orders"))):
        assert await until(database, job, "completed", "failed") == "failed"
    runs = await database.fetch(
        "SELECT state, error FROM reconciliation_runs WHERE job_id = $1 ORDER BY collection", job
    )
    assert [run["state"] for run in runs] == ["completed", "failed"]
    assert runs[1]["error"] == "shop has no table of ordres; it has: a, orders"


@pytest.mark.parametrize("losses", [MAX_LOSSES - 2, MAX_LOSSES - 1])
async def test_a_job_that_kills_who_works_it_is_not_worked_for_ever(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path, losses: int
) -> None:
    """It counts when a process falls silent in the middle of it, and not when one gives it back."""
    job = await new_job()
    await database.fetch(
        "UPDATE reconciliation_jobs SET state = 'running', worker = 'killed', attempts = 90, losses = $2, "
        "heartbeat_at = now() - interval '1 hour' WHERE id = $1",
        job,
        losses,
    )
    async with reconciliation_worker(database.dsn, FakeRunner(tmp_path)):
        ended = await until(database, job, "completed", "failed")
    error = await database.fetch_value("SELECT error FROM reconciliation_jobs WHERE id = $1", job)
    assert ended == ("failed" if losses == MAX_LOSSES - 1 else "completed"), error
    assert error is None or f"gone {MAX_LOSSES} times" in error


async def test_a_nightly_run_is_not_skipped_for_the_verification_of_a_repair(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path
) -> None:
    runner = FakeRunner(tmp_path)
    runner.may_go_on.clear()
    repair = await database.fetch_value(
        "INSERT INTO reconciliation_repairs (pipeline, job_id, kinds, max_keys, plan, proposed_by) "
        "VALUES ('shop', $1, '{missing}', 1, '{}', 'ada') RETURNING id",
        await new_job(),
    )
    await database.execute("UPDATE reconciliation_jobs SET state = 'completed', finished_at = now(), outcome = 'equal'")
    verification = await new_job(repair_id=repair)
    async with reconciliation_worker(database.dsn, runner):
        await until(database, verification, "running")
        nightly, covered = await new_job("skip"), await new_job("skip")

        async def begun() -> Any:
            return await database.fetch_value("SELECT true FROM reconciliation_jobs WHERE state = 'skipped'")

        await wait_for(begun, "the second of them is skipped for the first")
        assert await until(database, covered, "skipped", "running") == "skipped"
        runner.may_go_on.set()
        assert await until(database, nightly, "completed", "skipped", "failed") == "completed"
