"""Jobs of reconciliation on a real Postgres, the comparison made up: who takes them, one run of a collection at a time,
what people want of them, and what becomes of a killed process's.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from api_database import TrialDatabase
from reconciliation_jobs import PIPELINE, WAIT_S, NewJob, add_job, state_of, until, wait_for, want
from reconciliation_worker import DATABASE, KEYS, FakeRunner, Told, reconciliation_worker

from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.status_topic import CollectionReport, Heard, PartitionReport, WriterReport
from cdc_shared.metrics.prometheus_metrics import PipelineState
from cdc_shared.models.collection import Collection
from cdc_shared.models.reconciliation import DifferenceKind, JobState
from reconciliation import database as reconciliation_database
from reconciliation.database import IDLE_IN_TRANSACTION_S, Database
from reconciliation.reconciler.difference import Difference, FieldDifference, How
from reconciliation.reconciler.sealed_keys import open_key
from reconciliation.scheduler import job_executor
from reconciliation.scheduler.job_store import JobStore, hold
from reconciliation.scheduler.run_lock import RunLock

pytestmark = [pytest.mark.integration, pytest.mark.anyio, pytest.mark.timeout(60)]

FOLLOWED_WITHIN_S = 2.0
"""A heartbeat, a check of the run and two statements; twice what is promised, for a machine that does much else."""
WORKER = Path(__file__).parents[1] / "support" / "reconciliation_worker.py"


@pytest.fixture
def new_job(database: TrialDatabase) -> NewJob:
    return partial(add_job, database)


@asynccontextmanager
async def two_workers(database: TrialDatabase, runner: FakeRunner) -> AsyncIterator[tuple[Told, Told]]:
    async with (
        reconciliation_worker(database.dsn, runner, "one") as one,
        reconciliation_worker(database.dsn, runner, "two") as two,
    ):
        yield one, two


async def test_a_job_is_worked_stored_and_told_of(database: TrialDatabase, new_job: NewJob, tmp_path: Path) -> None:
    runner = FakeRunner(tmp_path, tables=("a", "b"))
    job = await new_job()
    async with reconciliation_worker(database.dsn, runner) as told:
        assert await until(database, job, "completed", "failed") == "completed"
    found = (await database.fetch("SELECT * FROM reconciliation_jobs WHERE id = $1", job))[0]
    assert (found["outcome"], found["worker"], found["attempts"], found["error"]) == ("equal", None, 1, None)
    runs = await database.fetch("SELECT * FROM reconciliation_runs WHERE job_id = $1 ORDER BY collection", job)
    assert [(run["collection"], run["state"], run["outcome"]) for run in runs] == [
        ("a", "completed", "equal"),
        ("b", "completed", "equal"),
    ]
    verified = await database.fetch("SELECT * FROM reconciliation_verifications ORDER BY collection")
    assert [each["verified_through"].isoformat() for each in verified] == ["2026-11-23T20:00:00+00:00"] * 2
    assert await database.fetch_value("SELECT count(*) FROM reconciliation_reports") == 2
    assert told.states == [JobState.COMPLETED]
    assert told.news == [], "the job names no channel"
    assert not [each for each in tmp_path.iterdir() if each.is_dir()], "what the runs had read is deleted"


async def test_what_is_found_is_stored_with_its_keys_sealed(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path
) -> None:
    runner = FakeRunner(tmp_path)
    hostile = 'a\x00b\ud800 "quoted"'
    runner.differences = [
        Difference(
            key=hostile,
            source_key='{"id":"secret person"}',
            kind=DifferenceKind.DIFFERENT,
            fields=(FieldDifference(f"/{hostile}", How.VALUE),),
            document=hostile,
            row="{}",
            rules_version=2,
            rows=1,
            explanation="not equal",
        ),
        Difference(key="k2", source_key=None, kind=DifferenceKind.EXTRA, rows=1),
    ]
    job = await new_job(repair=True)
    async with reconciliation_worker(database.dsn, runner):
        assert await until(database, job, "completed", "failed") == "completed"

        async def proposed() -> Any:
            return await database.fetch("SELECT * FROM reconciliation_repairs")

        repair = (await wait_for(proposed, "a repair is proposed"))[0]
    rows = await database.fetch("SELECT * FROM reconciliation_differences ORDER BY number")
    assert [(row["number"], row["kind"]) for row in rows] == [(1, "different"), (2, "extra")]
    assert rows[1]["source_key"] is None
    assert b"secret person" not in rows[0]["source_key"]
    run = str(rows[0]["run_id"])
    assert open_key(rows[0]["source_key"], KEYS, PIPELINE, run, 1) == '{"id":"secret person"}'
    with pytest.raises(Fatal):
        open_key(rows[0]["source_key"], KEYS, PIPELINE, run, 2)
    details = json.loads(rows[0]["details"])
    assert details["fields"] == [{"pointer": '/a\\u0000b\\udc00 "quoted"'.replace("dc00", "d800"), "how": "value"}]
    verdict = (await database.fetch("SELECT * FROM reconciliation_verifications"))[0]
    assert (verdict["last_outcome"], verdict["verified_through"]) == ("differences", None)
    plan = json.loads(repair["plan"])
    assert (plan["keys"], plan["by_kind"], repair["state"]) == (1, {"different": 1}, "proposed")


async def test_of_two_schedules_at_once_one_runs(database: TrialDatabase, new_job: NewJob, tmp_path: Path) -> None:
    """Whichever process takes which, however late: the second is skipped, not run after the first."""
    for round_ in range(2):
        runner = FakeRunner(tmp_path / str(round_))
        first, second = await new_job("skip"), await new_job("skip")
        async with two_workers(database, runner):
            states = [await until(database, job, "completed", "skipped", "failed") for job in (first, second)]
        assert states == ["completed", "skipped"]
        assert runner.together == 1


async def test_a_skipped_collection_does_not_keep_the_others_from_running(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path
) -> None:
    runner = FakeRunner(tmp_path, tables=("a", "b"))
    runner.may_go_on.clear()
    first = await new_job(collections=["a"])
    async with reconciliation_worker(database.dsn, runner):
        await until(database, first, "running")
        second = await new_job("skip", ["a", "b"])

        async def skipped() -> Any:
            return await database.fetch_value("SELECT true FROM reconciliation_runs WHERE state = 'skipped'")

        await wait_for(skipped, "the collection under way is skipped")
        runner.may_go_on.set()
        assert await until(database, second, "completed", "failed") == "completed"
    states = await database.fetch("SELECT state FROM reconciliation_runs WHERE job_id = $1 ORDER BY collection", second)
    assert [row["state"] for row in states] == ["skipped", "completed"]


async def test_queue_and_warn_wait_for_each_other_and_warn_says_so(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path
) -> None:
    runner = FakeRunner(tmp_path, tables=("a", "b"))
    runner.may_go_on.clear()
    jobs = [await new_job(overlap, which) for overlap, which in (("queue", ["a"]), ("warn", None), ("queue", ["b"]))]
    async with two_workers(database, runner) as told:

        async def warned() -> Any:
            return await database.fetch_value("SELECT warning FROM reconciliation_jobs WHERE id = $1", jobs[1])

        await until(database, jobs[0], "running")
        warning = await wait_for(warned, "the one that waits says so")
        assert warning.startswith("waits for the run of job ")
        await asyncio.sleep(0.3)
        # The third one overlaps with the second, which was asked for before.
        assert [await state_of(database, job) for job in jobs] == ["running", "queued", "queued"]
        runner.may_go_on.set()
        assert [await until(database, job, "completed", "failed") for job in jobs] == ["completed"] * 3
    assert runner.together == 1
    news = [each for one in told for each in one.news]
    assert [(each.state, each.waits, each.warning) for each in news] == [(JobState.QUEUED, True, warning)]
    assert [request.collection.name for request in runner.requests] == ["a", "a", "b", "b"]


async def test_the_lock_holds_whatever_the_rows_say(database: TrialDatabase, new_job: NewJob, tmp_path: Path) -> None:
    """Somebody who is in no table of jobs has the collection: queue waits, skip does not."""
    runner = FakeRunner(tmp_path)
    opened = await Database.open(database.dsn)
    async with RunLock(opened, PIPELINE, Collection(DATABASE, "a"), silent_s=30) as lock:
        assert await lock.try_acquire()
        queued = await new_job("queue")
        async with reconciliation_worker(database.dsn, runner):
            await until(database, queued, "running")
            skipped = await new_job("skip")
            assert await until(database, skipped, "skipped", "completed") == "skipped"
            assert runner.requests == []
            await lock.__aexit__(None, None, None)
            assert await until(database, queued, "completed", "failed") == "completed"
    await opened.close()


async def test_pause_and_cancel_are_followed_within_a_second_or_so(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path
) -> None:
    runner = FakeRunner(tmp_path, chunks=200, chunk_s=0.1)
    job = await new_job()
    async with reconciliation_worker(database.dsn, runner):

        async def begun() -> bool:
            return len(runner.chunks_read()) >= 3

        await wait_for(begun, "a few chunks are read")
        await want(database, job, "pause")
        asked = time.monotonic()
        await until(database, job, "paused")
        assert time.monotonic() - asked < FOLLOWED_WITHIN_S
        read = runner.chunks_read()
        await asyncio.sleep(0.4)
        assert runner.chunks_read() == read, "nothing is read while it is paused"
        await want(database, job, "run")

        async def goes_on() -> bool:
            return len(runner.chunks_read()) > len(read)

        await wait_for(goes_on, "it goes on")
        await want(database, job, "cancel")
        asked = time.monotonic()
        await until(database, job, "cancelled")
        assert time.monotonic() - asked < FOLLOWED_WITHIN_S
    assert len(set(runner.chunks_read())) == len(runner.chunks_read()) < 200
    run = (await database.fetch("SELECT state, finished_at FROM reconciliation_runs"))[0]
    assert run["state"] == "cancelled"
    assert run["finished_at"] is not None


async def test_wishes_for_jobs_that_nobody_works_are_followed(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path
) -> None:
    cancelled, paused = await new_job(), await new_job()
    await want(database, cancelled, "cancel")
    await want(database, paused, "pause")
    async with reconciliation_worker(database.dsn, FakeRunner(tmp_path)):
        await until(database, cancelled, "cancelled")
        await until(database, paused, "paused")
        await want(database, paused, "run")
        await until(database, paused, "completed")


async def test_progress_is_shown_while_it_runs(database: TrialDatabase, new_job: NewJob, tmp_path: Path) -> None:
    runner = FakeRunner(tmp_path, chunks=30, chunk_s=0.1)
    await new_job()
    async with reconciliation_worker(database.dsn, runner):

        async def half_way() -> Any:
            shown = await database.fetch_value("SELECT progress FROM reconciliation_runs WHERE state = 'running'")
            progress = json.loads(shown) if shown else {}
            return progress if progress.get("percent") else None

        progress = await wait_for(half_way, "progress is shown")
    assert progress["phase"] == "scanning_source"
    assert 0 < progress["done"] < progress["total"] == 30
    assert progress["per_s"] > 0
    assert progress["seconds_left"] > 0


async def test_a_writer_that_is_behind_holds_the_run_back(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path
) -> None:
    runner, lag_s = FakeRunner(tmp_path, chunks=20, chunk_s=0.05), 100.0

    def reports(pipeline: str) -> list[Heard]:
        assert pipeline == PIPELINE
        now_ms = int(time.time() * 1000)
        partition = PartitionReport(partition=0, offset=1, lag=9)
        table = CollectionReport(
            database=DATABASE,
            collection="a",
            topic="t",
            partitions=(partition,),
            watermark_ms=now_ms - int(lag_s * 1000),
        )
        report = WriterReport(pipeline=pipeline, state=PipelineState.RUNNING, at_ms=now_ms, collections=(table,))
        return [Heard(report, 0.0, False)]

    job = await new_job(max_lag_s=60.0)
    async with reconciliation_worker(database.dsn, runner, lag_reports=reports):

        async def held() -> Any:
            shown = await database.fetch_value("SELECT progress FROM reconciliation_runs WHERE state = 'running'")
            return "max_lag_s" in (json.loads(shown).get("throttled_by") or "") if shown else None

        await wait_for(held, "it says what it waits for")
        read = len(runner.chunks_read())
        await asyncio.sleep(0.4)
        assert len(runner.chunks_read()) <= read + 1
        lag_s = 5.0
        assert await until(database, job, "completed", "failed") == "completed"


async def test_a_postgres_that_breaks_every_connection_costs_no_job(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_executor, "FIRST_WAIT_S", 0.1)
    runner = FakeRunner(tmp_path, chunks=30, chunk_s=0.1)
    job = await new_job()
    async with reconciliation_worker(database.dsn, runner):
        for read in (5, 12, 20, 30):

            async def so_many(least: int = read) -> bool:
                return len(runner.chunks_read()) >= least

            await wait_for(so_many, f"{read} chunks are read")
            await database.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert await until(database, job, "completed", "failed") == "completed"
    assert len(runner.chunks_read()) == len(set(runner.chunks_read())) == 30
    assert await database.fetch_value("SELECT attempts FROM reconciliation_jobs") == 1


async def test_a_service_that_ends_gives_its_job_back_and_the_next_one_goes_on(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path
) -> None:
    runner = FakeRunner(tmp_path, chunks=10, chunk_s=0.1)
    job = await new_job()
    async with reconciliation_worker(database.dsn, runner, "one"):

        async def begun() -> bool:
            return len(runner.chunks_read()) >= 3

        await wait_for(begun, "a few chunks are read")
    assert await state_of(database, job) == "queued"
    async with reconciliation_worker(database.dsn, runner, "two"):
        assert await until(database, job, "completed", "failed") == "completed"
    assert len(runner.chunks_read()) == len(set(runner.chunks_read())) == 10


async def test_killed_at_half_it_is_taken_over_and_reads_nothing_twice(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path
) -> None:
    job = await new_job("skip")

    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(WORKER), database.dsn, name, str(tmp_path), "40", "0.1", "2"],
            env={**os.environ, "PYTHONPATH": str(WORKER.parent)},
        )

    seen = FakeRunner(tmp_path)
    first = start("first")
    second: subprocess.Popen[bytes] | None = None
    try:

        async def half() -> bool:
            return len(seen.chunks_read()) >= 20

        await wait_for(half, "half of it is read", 30)
        second = start("second")
        first.send_signal(signal.SIGKILL)
        first.wait()
        at_half = len(seen.chunks_read())
        assert await until(database, job, "completed", "failed", "skipped", timeout_s=30) == "completed"
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()
    assert at_half < 40
    assert len(seen.chunks_read()) == len(set(seen.chunks_read())) == 40
    assert await database.fetch_value("SELECT attempts FROM reconciliation_jobs") == 2


async def test_a_process_that_hangs_in_a_transaction_does_not_keep_its_job(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation_database, "IDLE_IN_TRANSACTION_S", 1.0)
    hanging = await Database.open(database.dsn)
    await new_job()
    job = await JobStore(hanging, "hanging", 0.5).take(has_room=True)
    assert job is not None

    async def hang() -> None:
        async with hanging.transaction() as connection:
            await hold(connection, job.claim)
            async with reconciliation_worker(database.dsn, FakeRunner(tmp_path), "other", takeover_s=0.5):
                assert await until(database, job.id, "completed", "failed") == "completed"

    try:
        with pytest.raises(Transient):
            await hang()
    finally:
        await hanging.close()


async def test_a_process_that_was_silent_has_nothing_more_to_say(
    database: TrialDatabase, new_job: NewJob, tmp_path: Path
) -> None:
    """Frozen past the take-over and thawed, it stores nothing and ends its run; the other one's result stands."""
    runner = FakeRunner(tmp_path, chunks=30, chunk_s=0.1)
    job = await new_job()
    process = subprocess.Popen(
        [sys.executable, str(WORKER), database.dsn, "frozen", str(tmp_path / "frozen"), "200", "0.1", "2"],
        env={**os.environ, "PYTHONPATH": str(WORKER.parent)},
    )
    try:
        await until(database, job, "running", timeout_s=30)
        process.send_signal(signal.SIGSTOP)
        async with reconciliation_worker(database.dsn, runner, "other", takeover_s=2.0):

            async def taken() -> bool:
                return bool(await database.fetch_value("SELECT worker = 'other' FROM reconciliation_jobs"))

            # Frozen within a transaction, it holds the job until Postgres ends that.
            await wait_for(taken, "another one takes it over", WAIT_S + IDLE_IN_TRANSACTION_S)
            process.send_signal(signal.SIGCONT)
            assert await until(database, job, "completed", "failed") == "completed"
        frozen = FakeRunner(tmp_path / "frozen")
        read = len(frozen.chunks_read())
        await asyncio.sleep(0.5)
        assert len(frozen.chunks_read()) == read < 200, "it has ended its run"
    finally:
        process.kill()
        process.wait()
    assert await database.fetch_value("SELECT count(*) FROM reconciliation_reports") == 1
