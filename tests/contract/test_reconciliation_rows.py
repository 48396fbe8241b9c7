"""The contract between the API and the reconciliation service is rows in Postgres: what one writes, the other reads."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from api_app import Api
from reconciliation_reports import difference, report

from cdc_shared.models.collection import Collection
from cdc_shared.models.reconciliation import DifferenceKind, JobState, Mode, Outcome
from cdc_shared.security.data_key import DataKeys
from cdc_shared.settings import ObjectStoreSettings
from control_plane.models.pages import Page
from control_plane.models.reconciliation import Difference, Job, JobDetail, Verification
from control_plane.models.reconciliation_schedules import Schedule
from control_plane.models.repairs import Repair
from control_plane.permissions import Role
from reconciliation.database import Database
from reconciliation.reconciler.difference import How
from reconciliation.reconciler.result import PhaseTime, RunResult, TopicPositions, Verified
from reconciliation.reporters.report_store import write_to_lake
from reconciliation.scheduler.cron_scheduler import CronScheduler
from reconciliation.scheduler.job_store import JobStore
from reconciliation.scheduler.repair_proposal import propose_repair
from reconciliation.scheduler.repair_store import RepairStore
from reconciliation.scheduler.result_store import ResultStore, WrittenReport

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

SHOP = "/api/v1/pipelines/shop/reconciliation"
ORDERS = Collection("shop", "orders")
AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
KEYS = DataKeys([secrets.token_bytes(32)])
FOUND = [
    difference(DifferenceKind.MISSING, "1", document={"_id": 1}, source_key="1", explanation="no row"),
    difference(
        DifferenceKind.DIFFERENT,
        "2",
        [("/total", How.VALUE), ("/at/0", How.ONLY_IN_SOURCE)],
        {"_id": 2, "total": 25},
        {"_id": 2, "total": "\x00"},
        source_key="2",
        rules_version=3,
        rows=1,
        explanation="repair it",
    ),
    difference(DifferenceKind.REJECTED, "3", source_key="3", explanation="a rule rejects it"),
]


@pytest.fixture
async def database(shared_api: Api) -> AsyncIterator[Database]:
    """The service's way to the API's database."""
    await shared_api.database.execute(
        "TRUNCATE pipelines, operations, idempotency_keys, reconciliation_jobs, reconciliation_schedules, "
        "reconciliation_verifications, reconciliation_repairs CASCADE"
    )
    opened = await Database.open(shared_api.database.dsn)
    yield opened
    await opened.close()


@pytest.fixture
async def operator(shared_api: Api, database: Database) -> httpx.AsyncClient:
    client = await shared_api.signed_in(Role.OPERATOR)
    spec = {"name": "shop", "source": {"connection": "secret:shop", "database": "shop"}}
    assert (await client.post("/api/v1/pipelines", json=spec)).status_code == 201
    assert (await client.post("/api/v1/pipelines/shop/start")).status_code == 202
    return client


async def worked(database: Database, result: RunResult, lake: Path) -> None:
    """Take the oldest job and bring it to its end, as the service does, with this result for `orders`."""
    jobs = JobStore(database, "worker-1", 30.0)
    job = await jobs.take(has_room=True)
    assert job is not None
    await jobs.add_runs(job.claim, job.pipeline, [ORDERS])
    (run,) = await jobs.runs(job.id)
    run = await jobs.begin_run(job.claim, run)
    await jobs.tell_progress(run, {"phase": "scanning_source", "done": 5, "total": 10, "per_s": 2.5, "percent": 50.0})
    made = report(verified_through=result.verified_through)
    made = replace(made, run=replace(made.run, run_id=str(run.id)), result=result)
    path = write_to_lake(made, str(lake), lake_settings())
    await ResultStore(database, KEYS).keep(job, run, result, WrittenReport(made, path), AT)
    if job.options.repair:
        await propose_repair(database, job)
    await jobs.finish(job.claim, JobState.COMPLETED, result.outcome)


def lake_settings() -> ObjectStoreSettings:
    return ObjectStoreSettings.model_construct()


def result() -> RunResult:
    """Of a run that found `FOUND`."""
    timeline = [PhaseTime("scanning_table", AT, 1.5, "12 files")]
    return report(FOUND, timeline=timeline, notes=["all of it"], watermark=AT, settled=4).result


async def test_what_a_run_found_is_read_as_it_was_stored(
    shared_api: Api, operator: httpx.AsyncClient, database: Database, tmp_path: Path
) -> None:
    asked = Job.model_validate((await operator.post(f"{SHOP}/jobs", json={"mode": "full"})).json())
    await worked(database, result(), tmp_path)
    job = JobDetail.model_validate((await operator.get(f"{SHOP}/jobs/{asked.id}")).json())
    assert (job.state, job.outcome, job.attempts) == ("completed", "differences", 1)
    (run,) = job.runs
    assert (run.collection, run.state, run.outcome, run.has_report) == ("orders", "completed", "differences", True)
    assert run.summary is not None
    assert run.summary.differences == {"missing": 1, "different": 1, "rejected": 1}
    assert (run.summary.settled, run.summary.watermark, run.summary.notes) == (4, AT, ["all of it"])
    assert [(each.name, each.began, each.detail) for each in run.summary.timeline] == [
        ("scanning_table", AT, "12 files")
    ]

    found = Page[Difference].model_validate((await operator.get(f"{SHOP}/jobs/{job.id}/differences")).json()).items
    assert [(each.kind, each.key, each.can_be_repaired) for each in found] == [
        (each.kind, each.key, True) for each in FOUND
    ]
    assert [(each.pointer, each.how) for each in found[1].fields] == [("/total", "value"), ("/at/0", "only_in_source")]
    assert (found[1].document, found[1].row) == (FOUND[1].document, FOUND[1].row)
    assert (found[1].rules_version, found[1].rows, found[1].explanation) == (3, 1, "repair it")

    for form, part in (("html", "<!doctype html"), ("csv", "missing"), ("json", '"differences"')):
        answer = await operator.get(f"{SHOP}/jobs/{job.id}/reports/shop/orders", params={"format": form})
        assert answer.status_code == 200, answer.text
        assert part in answer.text.lower()
    (verified,) = Page[Verification].model_validate((await operator.get(f"{SHOP}/verifications")).json()).items
    assert (verified.collection, verified.verified_through, verified.last_job_id) == ("orders", None, job.id)
    assert verified.differences == {"missing": 1, "different": 1, "rejected": 1}


async def test_progress_is_shown_while_a_run_goes_on(operator: httpx.AsyncClient, database: Database) -> None:
    asked = (await operator.post(f"{SHOP}/jobs")).json()["id"]
    jobs = JobStore(database, "worker-1", 30.0)
    job = await jobs.take(has_room=True)
    assert job is not None
    await jobs.add_runs(job.claim, job.pipeline, [ORDERS])
    run = await jobs.begin_run(job.claim, (await jobs.runs(job.id))[0])
    await jobs.tell_progress(run, {"phase": "scanning_source", "done": 5, "total": 10, "per_s": 2.5, "percent": 50.0})
    (shown,) = JobDetail.model_validate((await operator.get(f"{SHOP}/jobs/{asked}")).json()).runs
    assert shown.progress is not None
    assert (shown.progress.phase, shown.progress.done, shown.progress.percent) == ("scanning_source", 5, 50.0)
    await operator.post(f"{SHOP}/jobs/{asked}/cancel")
    assert await jobs.heartbeat(job.claim) == "cancel"


async def test_a_verdict_of_equality_is_what_the_pipeline_is_verified_through(
    operator: httpx.AsyncClient, database: Database, tmp_path: Path
) -> None:
    await operator.post(f"{SHOP}/jobs", json={"mode": "incremental"})
    equal = report(verified_through=AT).result
    verified = Verified(TopicPositions("topic", {0: 7}), "rows", 1)
    await worked(database, replace(equal, outcome=Outcome.EQUAL, verified=verified), tmp_path)
    (told,) = (await operator.get(f"{SHOP}/verifications")).json()["items"]
    assert datetime.fromisoformat(told["verified_through"]) == AT
    (job,) = (await operator.get(f"{SHOP}/jobs")).json()["items"]
    detail = JobDetail.model_validate((await operator.get(f"{SHOP}/jobs/{job['id']}")).json())
    assert detail.runs[0].summary is not None
    assert detail.runs[0].summary.verified_through == AT


async def test_a_cancelled_job_stores_no_verdict(
    operator: httpx.AsyncClient, database: Database, tmp_path: Path
) -> None:
    asked = (await operator.post(f"{SHOP}/jobs")).json()["id"]
    jobs = JobStore(database, "worker-1", 30.0)
    job = await jobs.take(has_room=True)
    assert job is not None
    await jobs.add_runs(job.claim, job.pipeline, [ORDERS])
    run = await jobs.begin_run(job.claim, (await jobs.runs(job.id))[0])
    await operator.post(f"{SHOP}/jobs/{asked}/cancel")
    made = report(verified_through=AT)
    made = replace(made, run=replace(made.run, run_id=str(run.id)))
    await ResultStore(database, KEYS).keep(job, run, made.result, WrittenReport(made, None), AT)
    assert (await operator.get(f"{SHOP}/verifications")).json()["items"] == []


async def test_a_run_that_was_paused_meanwhile_does_not_take_a_later_verdict_back(
    operator: httpx.AsyncClient, database: Database, tmp_path: Path
) -> None:
    for through, offset in ((AT, 7), (AT - timedelta(days=1), 3)):
        await operator.post(f"{SHOP}/jobs")
        verified = Verified(TopicPositions("topic", {0: offset}), "rows", offset)
        equal = replace(report(verified_through=through).result, outcome=Outcome.EQUAL, verified=verified)
        await worked(database, equal, tmp_path)
    (told,) = (await operator.get(f"{SHOP}/verifications")).json()["items"]
    assert datetime.fromisoformat(told["verified_through"]) == AT
    kept = await ResultStore(database, KEYS).verified("shop", "shop", "orders")
    assert kept == Verified(TopicPositions("topic", {0: 7}), "rows", 7)


async def test_who_wrote_the_schedule_does_not_approve_what_it_proposes(
    shared_api: Api, operator: httpx.AsyncClient, database: Database, tmp_path: Path
) -> None:
    admin = await shared_api.signed_in(Role.ADMIN)
    config = {"cron": "0 2 * * *", "options": {"repair": True}}
    made = await admin.post(f"{SHOP}/schedules", json=config)
    assert made.status_code == 201, made.text
    now = AT
    scheduler = CronScheduler(database, lambda: now)
    assert await scheduler.fire_due() == []
    now = AT + timedelta(days=1)
    assert len(await scheduler.fire_due()) == 1
    await worked(database, result(), tmp_path)
    (proposed,) = (await operator.get(f"{SHOP}/repairs")).json()["items"]
    assert proposed["proposed_by"] == made.json()["created_by"]
    refused = await admin.post(f"{SHOP}/repairs/{proposed['id']}/approve")
    assert (refused.status_code, refused.json()["code"]) == (403, "own_proposal")


@pytest.mark.parametrize("by_itself", [False, True])
async def test_an_approved_repair_is_taken_with_the_keys_that_were_planned(
    shared_api: Api, operator: httpx.AsyncClient, database: Database, tmp_path: Path, by_itself: bool
) -> None:
    asked = (await operator.post(f"{SHOP}/jobs", json={"options": {"repair": by_itself}})).json()["id"]
    await worked(database, result(), tmp_path)
    if not by_itself:
        answer = await operator.post(f"{SHOP}/jobs/{asked}/repairs", json={"dry_run": False})
        assert answer.status_code == 201, answer.text
    (proposed,) = Page[Repair].model_validate((await operator.get(f"{SHOP}/repairs")).json()).items
    assert (proposed.plan.keys, proposed.plan.by_kind) == (2, {"missing": 1, "different": 1})
    repairs = RepairStore(database, KEYS, "worker-1", 30.0)
    assert await repairs.take() is None, "nobody has approved it"
    admin = await shared_api.signed_in(Role.ADMIN)
    assert (await admin.post(f"{SHOP}/repairs/{proposed.id}/approve")).status_code == 200
    taken = await repairs.take()
    assert taken is not None
    assert (taken.id, taken.max_keys, taken.kinds) == (proposed.id, 10_000, tuple(proposed.kinds))
    keys = await ResultStore(database, KEYS).repaired_keys(proposed.id, "shop", "orders")
    assert keys == ["1", "2"]


async def test_a_schedule_fires_as_the_api_says(operator: httpx.AsyncClient, database: Database) -> None:
    config = {"cron": "0 2 * * *", "time_zone": "Europe/Berlin", "mode": "counts", "collections": ["orders"]}
    made = Schedule.model_validate((await operator.post(f"{SHOP}/schedules", json=config)).json())
    before = datetime.now(UTC)
    assert await CronScheduler(database, lambda: before).fire_due() == []
    (fired,) = await CronScheduler(database, lambda: made.upcoming[0]).fire_due()
    job = Job.model_validate((await operator.get(f"{SHOP}/jobs/{fired}")).json())
    assert (job.mode, job.collections, job.schedule_id) == (Mode.COUNTS, ["orders"], made.id)
    shown = (await operator.get(f"{SHOP}/schedules/{made.id}")).json()
    assert datetime.fromisoformat(shown["last_fired_at"]) == made.upcoming[0]
