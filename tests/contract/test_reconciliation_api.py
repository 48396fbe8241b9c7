"""The contract of `/api/v1/pipelines/{name}/reconciliation`: what each endpoint takes, answers and refuses, over real
Postgres. The reconciliation service is played by `reconciled`.
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from api_app import Api, open_api, settings_for
from reconciled import Found, add_run, finish, verify
from stack_endpoints import Stack

from control_plane.models.pages import Page
from control_plane.models.reconciliation import Difference, Job, JobDetail, Verification
from control_plane.models.reconciliation_schedules import Schedule
from control_plane.models.repairs import Repair, RepairProposal
from control_plane.permissions import Permission, Role

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

PIPELINES = "/api/v1/pipelines"
SHOP = f"{PIPELINES}/shop/reconciliation"
ALL = "/api/v1/reconciliation/verifications"
NIGHTLY = {"cron": "30 5 * * *", "time_zone": "Europe/Berlin"}
THROUGH = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["code"]) == (status, code), body
    return body


async def make_pipeline(client: httpx.AsyncClient, name: str = "shop", *, start: bool = True) -> None:
    spec = {
        "name": name,
        "source": {"connection": f"secret:{name}", "database": "shop", "include_collections": ["orders", "a/b?ü"]},
    }
    assert (await client.post(PIPELINES, json=spec)).status_code == 201
    if start:
        assert (await client.post(f"{PIPELINES}/{name}/start")).status_code == 202


async def asked(client: httpx.AsyncClient, **job: Any) -> Job:
    answer = await client.post(f"{SHOP}/jobs", json=job)
    assert answer.status_code == 202, answer.text
    return Job.model_validate(answer.json())


async def damaged(api: Api, client: httpx.AsyncClient, *found: Found) -> str:
    """A completed job that found these in `orders`."""
    job = str((await asked(client)).id)
    await add_run(api.database, job, *found)
    await finish(api.database, job)
    return job


@pytest.fixture
async def api(shared_api: Api) -> Api:
    await shared_api.database.execute(
        "TRUNCATE pipelines, operations, idempotency_keys, reconciliation_jobs, reconciliation_schedules, "
        "reconciliation_verifications, reconciliation_repairs CASCADE"
    )
    return shared_api


@pytest.fixture
async def operator(api: Api) -> httpx.AsyncClient:
    client = await api.signed_in(Role.OPERATOR)
    await make_pipeline(client)
    return client


# --- jobs -------------------------------------------------------------------------------------------------------------


async def test_a_job_is_asked_for_and_followed(api: Api, operator: httpx.AsyncClient) -> None:
    answer = await operator.post(f"{SHOP}/jobs", json={"collections": ["orders"], "options": {"documents_per_s": 50}})
    assert answer.status_code == 202, answer.text
    job = Job.model_validate(answer.json())
    assert (job.state, job.wanted, job.mode, job.outcome) == ("queued", "run", "full", None)
    assert (job.collections, job.options.documents_per_s) == (["orders"], 50)
    shown = JobDetail.model_validate((await operator.get(answer.headers["location"])).json())
    assert Job(**{name: getattr(shown, name) for name in Job.model_fields}) == job
    assert shown.runs == []
    await add_run(api.database, str(job.id), Found("missing"), report={})
    (run,) = JobDetail.model_validate((await operator.get(answer.headers["location"])).json()).runs
    assert (run.database, run.collection, run.state, run.has_report) == ("shop", "orders", "completed", True)
    assert run.progress is not None
    assert run.progress.per_s == 12.5
    assert run.summary is not None
    assert run.summary.differences == {"missing": 1}


async def test_nothing_said_is_everything(operator: httpx.AsyncClient) -> None:
    answer = await operator.post(f"{SHOP}/jobs")
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["collections"], job["mode"], job["overlap"]) == (None, "full", "queue")
    assert job["options"]["max_differences"] == 100_000


async def test_what_cannot_be_compared_is_refused(api: Api, operator: httpx.AsyncClient) -> None:
    problem(await operator.post(f"{PIPELINES}/none/reconciliation/jobs"), 404, "not_found")
    body = problem(await operator.post(f"{SHOP}/jobs", json={"collections": ["orders", "ordrs"]}), 422, "not_captured")
    assert "ordrs" in body["detail"]
    for wrong, field in (
        ({"mode": "some"}, "body.mode"),
        ({"collections": []}, "body.collections"),
        ({"options": {"sample_share": 2}}, "body.options.sample_share"),
        ({"options": {"sample": 1}}, "body.options.sample"),
        ({"database": "shop"}, "body.database"),
        ({"notifications": {"channels": [{"kind": "slack", "url": "https://x/T0/hunter2"}]}}, "body"),
    ):
        answer = await operator.post(f"{SHOP}/jobs", json=wrong)
        errors = problem(answer, 422, "invalid_request")["errors"]
        assert errors[0]["field"].startswith(field), errors
        assert "hunter2" not in answer.text
    await make_pipeline(operator, "new", start=False)
    problem(await operator.post(f"{PIPELINES}/new/reconciliation/jobs"), 409, "never_started")
    await operator.delete(f"{PIPELINES}/shop", params={"force": True})
    problem(await operator.post(f"{SHOP}/jobs"), 409, "being_deleted")
    assert await api.database.fetch_value("SELECT count(*) FROM reconciliation_jobs") == 0


async def test_a_request_that_is_sent_again_makes_one_job(api: Api, operator: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first, second = [await operator.post(f"{SHOP}/jobs", json={}, headers=key) for _ in range(2)]
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    problem(await operator.post(f"{SHOP}/jobs", json={"mode": "keys"}, headers=key), 422, "idempotency_key_reused")
    assert await api.database.fetch_value("SELECT count(*) FROM reconciliation_jobs") == 1


async def test_jobs_are_listed_newest_first_in_pages_and_filtered(api: Api, operator: httpx.AsyncClient) -> None:
    ids = [str((await asked(operator, mode=mode)).id) for mode in ("full", "counts", "counts", "keys")]
    await finish(api.database, ids[1], "equal")
    page = Page[Job].model_validate((await operator.get(f"{SHOP}/jobs", params={"limit": 3})).json())
    assert [str(each.id) for each in page.items] == ids[:0:-1]
    await asked(operator)
    rest = (await operator.get(f"{SHOP}/jobs", params={"limit": 3, "cursor": page.next})).json()
    assert ([each["id"] for each in rest["items"]], rest["next"]) == ([ids[0]], None)
    counts = (await operator.get(f"{SHOP}/jobs", params={"mode": "counts"})).json()["items"]
    assert [each["id"] for each in counts] == [ids[2], ids[1]]
    ended = (await operator.get(f"{SHOP}/jobs", params={"state": "completed"})).json()["items"]
    assert [each["id"] for each in ended] == [ids[1]]
    problem(await operator.get(f"{SHOP}/jobs", params={"cursor": "x"}), 422, "invalid_cursor")


async def test_a_job_is_paused_resumed_and_cancelled(api: Api, operator: httpx.AsyncClient) -> None:
    path = f"{SHOP}/jobs/{(await asked(operator)).id}"
    for move, wanted in (("pause", "pause"), ("pause", "pause"), ("resume", "run"), ("cancel", "cancel")):
        answer = await operator.post(f"{path}/{move}")
        assert (answer.status_code, answer.json()["wanted"]) == (202, wanted)
    assert (await operator.get(path)).json()["wanted"] == "cancel"
    assert (await operator.post(f"{path}/cancel")).status_code == 202
    assert problem(await operator.post(f"{path}/resume"), 409, "job_cancelled")["state"] == "queued"
    await finish(api.database, path.rpartition("/")[2], None, "cancelled")
    for move in ("pause", "resume", "cancel"):
        assert problem(await operator.post(f"{path}/{move}"), 409, "job_finished")["state"] == "cancelled"
        problem(await operator.post(f"{SHOP}/jobs/{uuid.uuid4()}/{move}"), 404, "not_found")


async def test_a_job_of_another_pipeline_is_not_there(api: Api, operator: httpx.AsyncClient) -> None:
    await make_pipeline(operator, "crm")
    job, other = await damaged(api, operator, Found("missing")), f"{PIPELINES}/crm/reconciliation"
    await add_run(api.database, job, collection="items", report={})
    for path in ("", "/differences", "/reports/shop/items"):
        problem(await operator.get(f"{other}/jobs/{job}{path}"), 404, "not_found")
    problem(await operator.post(f"{other}/jobs/{job}/cancel"), 404, "not_found")
    problem(await operator.post(f"{other}/jobs/{job}/repairs"), 404, "not_found")


# --- what was found ---------------------------------------------------------------------------------------------------


async def test_differences_are_listed_in_pages_and_filtered(api: Api, operator: httpx.AsyncClient) -> None:
    job = str((await asked(operator)).id)
    await add_run(
        api.database, job, *[Found("missing", f"m{n}") for n in range(3)], Found("extra", "x", is_known=False)
    )
    await add_run(api.database, job, Found("different", "d"), Found("missing", "m9"), collection="a/b?ü")
    await add_run(api.database, job, database_name="Shop")

    async def keys(**params: Any) -> list[str]:
        """Of all pages."""
        found: list[str] = []
        while True:
            answer = await operator.get(f"{SHOP}/jobs/{job}/differences", params=params)
            page = Page[Difference].model_validate(answer.json())
            assert len(page.items) <= params.get("limit", 50)
            found += [each.key for each in page.items]
            if page.next is None:
                return found
            params["cursor"] = page.next

    everything = ["d", "m9", "m0", "m1", "m2", "x"]
    for limit in (1, 2, 3, 5, 6, 50):
        assert await keys(limit=limit) == everything
    assert await keys(kind="missing", limit=1) == ["m9", "m0", "m1", "m2"]
    assert await keys(collection="orders", limit=2) == everything[2:]
    assert await keys(collection="orders", database="Shop") == []
    assert await keys(kind="decoder") == []
    first = (await operator.get(f"{SHOP}/jobs/{job}/differences", params={"limit": 1})).json()["items"][0]
    assert first["fields"] == [{"pointer": "/total", "how": "value"}]
    assert (first["document"], first["row"]) == ('{"_id": 1, "total": 25}', '{"_id": 1, "total": 24}')
    assert "source_key" not in first
    assert "sealed" not in str(first)
    problem(await operator.get(f"{SHOP}/jobs/{job}/differences", params={"cursor": "WzFd"}), 422, "invalid_cursor")


async def test_a_report_is_given_as_a_file_from_the_lake_or_else_as_json(
    api: Api, operator: httpx.AsyncClient, tmp_path: Path
) -> None:
    directory = tmp_path / "shop" / "_reconciliation" / "shop" / "orders"
    directory.mkdir(parents=True)
    html = "<!doctype html><script>alert(1)</script>"
    (directory / "r1.html").write_text(html)
    (directory / "r1.csv").write_text("kind,key\n")
    job = str((await asked(operator)).id)
    path = f"{SHOP}/jobs/{job}/reports/shop"
    problem(await operator.get(f"{path}/orders"), 404, "no_report")
    run = await add_run(api.database, job, report={"format": 1, "outcome": "equal"}, lake_path=str(directory / "r1"))
    shown = await operator.get(f"{path}/orders", params={"format": "html"})
    assert (shown.status_code, shown.text) == (200, html)
    assert shown.headers["content-type"].startswith("text/html")
    assert shown.headers["content-disposition"] == f'attachment; filename="reconciliation-{run}.html"'
    assert shown.headers["content-security-policy"].startswith("default-src 'none'")
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert (await operator.get(f"{path}/orders", params={"format": "csv"})).text == "kind,key\n"
    kept = await operator.get(f"{path}/orders")
    assert kept.json() == {"format": 1, "outcome": "equal"}
    assert kept.headers["content-type"] == "application/json"
    (directory / "r1.html").unlink()
    problem(await operator.get(f"{path}/orders", params={"format": "html"}), 404, "report_not_kept")
    await add_run(api.database, job, collection="a/b?ü", report={"named": "oddly"})
    assert (await operator.get(f"{path}/a/b%3F%C3%BC")).json() == {"named": "oddly"}
    assert (await operator.get(f"{path}/a%2Fb%3F%C3%BC")).json() == {"named": "oddly"}
    problem(await operator.get(f"{path}/orders", params={"format": "pdf"}), 422, "invalid_request")


# --- repairs ----------------------------------------------------------------------------------------------------------

DAMAGE = (
    *[Found("missing")] * 3,
    *[Found("different")] * 2,
    Found("extra", is_known=False),
    Found("rejected"),
    Found("decoder"),
    Found("lagging"),
)


async def test_a_repair_is_planned_proposed_and_approved_by_somebody_else(
    api: Api, operator: httpx.AsyncClient
) -> None:
    job, admin = await damaged(api, operator, *DAMAGE), await api.signed_in(Role.ADMIN)
    dry = await operator.post(f"{SHOP}/jobs/{job}/repairs")
    assert dry.status_code == 200, dry.text
    planned = RepairProposal.model_validate(dry.json())
    assert (planned.dry_run, planned.repair, planned.within_max_keys) == (True, None, True)
    assert (planned.plan.keys, planned.plan.by_kind) == (5, {"missing": 3, "different": 2})
    assert {each.kind: each.keys for each in planned.plan.not_repairable} == {
        "extra": 1,
        "rejected": 1,
        "decoder": 1,
        "lagging": 1,
    }
    assert (await operator.get(f"{SHOP}/repairs")).json()["items"] == []

    proposed = await operator.post(f"{SHOP}/jobs/{job}/repairs", json={"dry_run": False})
    assert proposed.status_code == 201, proposed.text
    repair = Repair.model_validate(proposed.json()["repair"])
    assert (repair.state, repair.max_keys, repair.plan) == ("proposed", 10_000, planned.plan)
    where = proposed.headers["location"]
    problem(await operator.post(f"{where}/approve"), 403, "not_permitted")
    again = await operator.post(f"{SHOP}/jobs/{job}/repairs", json={"dry_run": False})
    assert problem(again, 409, "repair_in_progress")["repair"] == str(repair.id)

    approved = Repair.model_validate((await admin.post(f"{where}/approve")).json())
    assert (approved.state, approved.proposed_by) == ("approved", repair.proposed_by)
    assert approved.decided_by != approved.proposed_by
    assert (await admin.post(f"{where}/approve")).json() == (await operator.get(where)).json()
    assert problem(await operator.post(f"{where}/reject"), 409, "repair_decided")["state"] == "approved"
    await api.database.execute("UPDATE reconciliation_repairs SET state = 'applying'")
    assert (await admin.post(f"{where}/approve")).json()["state"] == "applying", "the answer was lost, the service fast"
    another = await api.signed_in(Role.ADMIN)
    assert problem(await another.post(f"{where}/approve"), 409, "repair_decided")["state"] == "applying"
    assert [each["id"] for each in (await operator.get(f"{SHOP}/repairs")).json()["items"]] == [str(repair.id)]
    audited = await api.database.fetch("SELECT action FROM audit_logs WHERE action LIKE 'repair.%' AND status < 300")
    assert {"repair.propose", "repair.approve", "repair.read"} <= {row["action"] for row in audited}


async def test_whoever_proposed_a_repair_does_not_approve_it(api: Api, operator: httpx.AsyncClient) -> None:
    job, admin = await damaged(api, operator, *DAMAGE), await api.signed_in(Role.ADMIN, name="Ada")
    where = (await admin.post(f"{SHOP}/jobs/{job}/repairs", json={"dry_run": False})).headers["location"]
    problem(await admin.post(f"{where}/approve"), 403, "own_proposal")
    assert (await admin.get(where)).json()["state"] == "proposed"
    assert (await admin.post(f"{where}/reject")).json()["state"] == "rejected"
    assert (await admin.post(f"{where}/reject")).status_code == 200
    problem(await admin.post(f"{where}/approve"), 409, "repair_decided")
    assert (await admin.post(f"{SHOP}/jobs/{job}/repairs", json={"dry_run": False})).status_code == 201


async def test_an_installation_of_one_admin_may_allow_it(
    api: Api, operator: httpx.AsyncClient, stack: Stack, tmp_path: Path
) -> None:
    job = await damaged(api, operator, *DAMAGE)
    settings = settings_for(stack, api.database, tmp_path, repair_self_approval=True)
    async with open_api(settings, api.database) as lonely:
        admin = await lonely.signed_in(Role.ADMIN)
        where = (await admin.post(f"{SHOP}/jobs/{job}/repairs", json={"dry_run": False})).headers["location"]
        assert (await admin.post(f"{where}/approve")).json()["state"] == "approved"


async def test_no_machine_approves(api: Api) -> None:
    admin = await api.admin()
    token = {"name": "bot", "permissions": ["reconciliation:approve"]}
    problem(await admin.post("/api/v1/admin/service-tokens", json=token), 422, "invalid_request")
    machine = await api.machine(Permission.RECONCILIATION_RUN, Permission.RECONCILIATION_READ)
    problem(await machine.post(f"{SHOP}/repairs/{uuid.uuid4()}/approve"), 403, "not_permitted")


async def test_a_repair_that_cannot_be_is_refused(api: Api, operator: httpx.AsyncClient) -> None:
    running = str((await asked(operator)).id)
    problem(await operator.post(f"{SHOP}/jobs/{running}/repairs"), 409, "job_not_completed")
    job = await damaged(api, operator, *DAMAGE)
    wanted = {"dry_run": False, "max_keys": 4}
    body = problem(await operator.post(f"{SHOP}/jobs/{job}/repairs", json=wanted), 409, "too_many_keys")
    assert (body["keys"], body["max_keys"]) == (5, 4)
    dry = (await operator.post(f"{SHOP}/jobs/{job}/repairs", json={"max_keys": 4})).json()
    assert (dry["within_max_keys"], dry["plan"]["keys"]) == (False, 5)
    only = {"dry_run": False, "max_keys": 4, "kinds": ["different"]}
    proposed = (await operator.post(f"{SHOP}/jobs/{job}/repairs", json=only)).json()
    assert proposed["plan"]["by_kind"] == {"different": 2}
    assert "not among the kinds" in str(proposed["plan"]["not_repairable"])
    clean = await damaged(api, operator, Found("filtered"))
    nothing = await operator.post(f"{SHOP}/jobs/{clean}/repairs", json={"dry_run": False})
    problem(nothing, 409, "nothing_to_repair")
    problem(await operator.post(f"{SHOP}/jobs/{job}/repairs", json={"kinds": ["decoder"]}), 422, "invalid_request")
    problem(await operator.get(f"{SHOP}/repairs/{uuid.uuid4()}"), 404, "not_found")
    problem(await operator.post(f"{SHOP}/repairs/{uuid.uuid4()}/reject"), 404, "not_found")


async def test_of_several_who_propose_or_decide_at_once_one_does(api: Api, operator: httpx.AsyncClient) -> None:
    job, admin = await damaged(api, operator, *DAMAGE), await api.signed_in(Role.ADMIN)
    proposals = await asyncio.gather(
        *(operator.post(f"{SHOP}/jobs/{job}/repairs", json={"dry_run": False}) for _ in range(5))
    )
    assert sorted(each.status_code for each in proposals) == [201, 409, 409, 409, 409]
    where = next(each.headers["location"] for each in proposals if each.status_code == 201)
    decisions = await asyncio.gather(*(admin.post(f"{where}/{each}") for each in ("approve", "reject") * 3))
    state = (await admin.get(where)).json()["state"]
    for answer in decisions:
        assert answer.status_code == 409 or answer.json()["state"] == state
    assert sum(each.status_code == 200 for each in decisions) == 3


# --- schedules --------------------------------------------------------------------------------------------------------


async def test_a_schedule_is_made_read_changed_and_taken_away(operator: httpx.AsyncClient) -> None:
    made = await operator.post(f"{SHOP}/schedules", json=NIGHTLY)
    assert made.status_code == 201, made.text
    schedule = Schedule.model_validate(made.json())
    assert (schedule.config.mode, schedule.config.overlap, schedule.version) == ("incremental", "skip", 1)
    due = [each.astimezone(ZoneInfo("Europe/Berlin")) for each in schedule.upcoming]
    assert [(each.hour, each.minute) for each in due] == [(5, 30)] * 5
    assert [each.date() - due[0].date() for each in due] == [timedelta(days=n) for n in range(5)]
    where, etag = made.headers["location"], made.headers["etag"]
    read = await operator.get(where)
    assert (read.json()["config"], read.headers["etag"]) == (made.json()["config"], etag)

    changed = {**NIGHTLY, "cron": "30 3 * * 0", "enabled": False}
    problem(await operator.put(where, json=changed), 428, "precondition_required")
    answer = await operator.put(where, json=changed, headers={"If-Match": etag})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["version"], answer.json()["upcoming"]) == (2, [])
    stale = await operator.put(where, json=NIGHTLY, headers={"If-Match": etag})
    problem(stale, 412, "precondition_failed")
    assert stale.headers["etag"] == answer.headers["etag"] != etag
    same = await operator.put(where, json=changed, headers={"If-Match": answer.headers["etag"]})
    assert same.headers["etag"] == answer.headers["etag"]
    problem(await operator.delete(where, headers={"If-Match": etag}), 412, "precondition_failed")
    assert (await operator.delete(where)).status_code == 204
    problem(await operator.get(where), 404, "not_found")
    problem(await operator.delete(where), 404, "not_found")
    problem(await operator.put(where, json=NIGHTLY, headers={"If-Match": "*"}), 404, "not_found")


async def test_sunday_is_also_day_7(api: Api, operator: httpx.AsyncClient) -> None:
    made = await operator.post(f"{SHOP}/schedules", json={"cron": "15 6 * * 7", "time_zone": "America/New_York"})
    upcoming = Schedule.model_validate(made.json()).upcoming
    assert {each.weekday() for each in upcoming} == {6}
    assert all(each > api.platform.auth.clock() for each in upcoming)


async def test_a_schedule_that_is_never_due_is_refused_and_not_quoted(operator: httpx.AsyncClient) -> None:
    for cron in ("", "@daily", "hunter2-planted x", "61 * * * *", "0 2 * * mon-hunter2", "0 0 31 2 *", "* * * * * *"):
        answer = await operator.post(f"{SHOP}/schedules", json={"cron": cron})
        problem(answer, 422, "invalid_cron")
        assert "hunter2" not in answer.text
    answer = await operator.post(f"{SHOP}/schedules", json={**NIGHTLY, "time_zone": "Europe/hunter2"})
    assert "IANA" in problem(answer, 422, "invalid_time_zone")["detail"]
    assert "hunter2" not in answer.text
    problem(await operator.post(f"{SHOP}/schedules", json={**NIGHTLY, "collections": ["no"]}), 422, "not_captured")
    problem(await operator.post(f"{PIPELINES}/none/reconciliation/schedules", json=NIGHTLY), 404, "not_found")
    problem(await operator.get(f"{PIPELINES}/none/reconciliation/schedules"), 404, "not_found")


async def test_schedules_come_in_pages(operator: httpx.AsyncClient) -> None:
    made = {(await operator.post(f"{SHOP}/schedules", json=NIGHTLY)).json()["id"] for _ in range(5)}
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        turned = {"cursor": cursor} if cursor else {}
        page = (await operator.get(f"{SHOP}/schedules", params={"limit": 2, **turned})).json()
        seen += [each["id"] for each in page["items"]]
        cursor = page["next"]
    assert (sorted(seen), cursor) == (sorted(made), None)
    problem(await operator.get(f"{SHOP}/schedules", params={"cursor": "WyJ4Il0"}), 422, "invalid_cursor")


async def test_channels_name_no_secret_that_is_not_the_pipelines(api: Api, operator: httpx.AsyncClient) -> None:
    def slack(url: str) -> dict[str, Any]:
        return {"channels": [{"kind": "slack", "url": url}]}

    for reserved in ("env:POSTGRES_DSN", "env:AWS_SECRET_ACCESS_KEY", "secret:api-signing-keys"):
        for path, body in (("jobs", {}), ("schedules", NIGHTLY)):
            answer = await operator.post(f"{SHOP}/{path}", json={**body, "notifications": slack(reserved)})
            problem(answer, 422, "reserved_secret")
    made = await operator.post(f"{SHOP}/schedules", json={**NIGHTLY, "notifications": slack("secret:hooks/ops")})
    assert made.status_code == 201, made.text
    limited = await api.signed_in(Role.OPERATOR, pipelines=["shop"])
    others = {**NIGHTLY, "notifications": slack("secret:crm/slack")}
    problem(await limited.post(f"{SHOP}/schedules", json=others), 403, "out_of_scope")
    where, match = made.headers["location"], {"If-Match": "*"}
    problem(await limited.put(where, json=others, headers=match), 403, "out_of_scope")
    kept = {**made.json()["config"], "cron": "0 3 * * *"}
    assert (await limited.put(where, json=kept, headers=match)).status_code == 200, "what was admitted may stay"
    own = {**NIGHTLY, "notifications": slack("secret:shop/slack")}
    assert (await limited.put(where, json=own, headers=match)).status_code == 200


# --- what is verified -------------------------------------------------------------------------------------------------


async def test_what_is_verified_is_told_of_one_pipeline_and_of_all_that_one_may_see(
    api: Api, operator: httpx.AsyncClient
) -> None:
    await make_pipeline(operator, "crm")
    job = await damaged(api, operator, Found("missing"))
    run = await api.database.fetch_value("SELECT id FROM reconciliation_runs")
    await verify(api.database, "shop", "orders", THROUGH, "differences", {"missing": 1}, run)
    await verify(api.database, "shop", "Äpfel", None, "undecided")
    await verify(api.database, "crm", "people", THROUGH)
    page = Page[Verification].model_validate((await operator.get(f"{SHOP}/verifications")).json())
    (first, second) = page.items
    assert (first.collection, first.verified_through, first.differences) == ("orders", THROUGH, {"missing": 1})
    assert (str(first.last_job_id), first.last_outcome) == (job, "differences")
    assert (second.collection, second.verified_through, second.last_job_id) == ("Äpfel", None, None)

    async def of(client: httpx.AsyncClient) -> list[str]:
        return [f"{each['pipeline']}.{each['collection']}" for each in (await client.get(ALL)).json()["items"]]

    assert await of(operator) == ["crm.people", "shop.orders", "shop.Äpfel"]
    assert await of(await api.signed_in(Role.AUDITOR)) == ["crm.people", "shop.orders", "shop.Äpfel"]
    assert await of(await api.signed_in(Role.ANALYST, pipelines=["crm"])) == ["crm.people"]
    two = (await operator.get(ALL, params={"limit": 2})).json()
    rest = (await operator.get(ALL, params={"limit": 2, "cursor": two["next"]})).json()
    assert ([each["collection"] for each in rest["items"]], rest["next"]) == (["Äpfel"], None)
    problem(await operator.get(f"{PIPELINES}/none/reconciliation/verifications"), 404, "not_found")


async def test_a_pipelines_status_says_through_when_it_is_verified(api: Api, operator: httpx.AsyncClient) -> None:
    name = f"p{uuid.uuid4().hex[:12]}"  # no writer of the stack reports of it
    await make_pipeline(operator, name)
    before = (await operator.get(f"{PIPELINES}/{name}/status")).json()
    assert (before["verified_through"], before["verifications"]) == (None, [])
    await verify(api.database, name, "orders", THROUGH)
    await verify(api.database, name, "carts", THROUGH + timedelta(hours=1))
    status = (await operator.get(f"{PIPELINES}/{name}/status")).json()
    assert datetime.fromisoformat(status["verified_through"]) == THROUGH
    assert [each["collection"] for each in status["verifications"]] == ["carts", "orders"]


@pytest.mark.parametrize("end", ["removed", "reset"])
async def test_what_was_verified_of_tables_that_are_gone_is_forgotten(
    api: Api, operator: httpx.AsyncClient, end: str
) -> None:
    """A pipeline that is made anew under the name has other tables."""
    job = await damaged(api, operator, *DAMAGE)
    await verify(api.database, "shop", "orders", THROUGH)
    unfinished = (await asked(operator)).id
    await operator.post(f"{SHOP}/schedules", json=NIGHTLY)
    repair = (await operator.post(f"{SHOP}/jobs/{job}/repairs", json={"dry_run": False})).json()["repair"]["id"]
    if end == "removed":
        await api.database.execute("DELETE FROM pipelines WHERE name = 'shop'")
        assert [each["id"] for each in (await operator.get(f"{SHOP}/jobs")).json()["items"]] == [str(unfinished), job]
        await make_pipeline(operator)
    else:
        await api.database.execute("UPDATE pipelines SET started = false WHERE name = 'shop'")
    assert (await operator.get(f"{SHOP}/verifications")).json()["items"] == []
    assert len((await operator.get(f"{SHOP}/schedules")).json()["items"]) == (end == "reset")
    assert (await operator.get(f"{SHOP}/jobs/{unfinished}")).json()["wanted"] == "cancel"
    assert (await operator.get(f"{SHOP}/repairs/{repair}")).json()["state"] == "rejected"


# --- who may ----------------------------------------------------------------------------------------------------------


async def test_analysts_and_auditors_read_and_change_nothing(api: Api, operator: httpx.AsyncClient) -> None:
    job = await damaged(api, operator, *DAMAGE)
    for role in (Role.ANALYST, Role.AUDITOR):
        reader = await api.signed_in(role)
        for path in ("jobs", f"jobs/{job}", f"jobs/{job}/differences", "repairs", "schedules", "verifications"):
            assert (await reader.get(f"{SHOP}/{path}")).status_code == 200, path
        for path in ("jobs", f"jobs/{job}/cancel", f"jobs/{job}/repairs", "schedules", f"repairs/{job}/approve"):
            problem(await reader.post(f"{SHOP}/{path}", json={}), 403, "not_permitted")


async def test_who_is_limited_to_other_pipelines_sees_nothing(api: Api, operator: httpx.AsyncClient) -> None:
    job = await damaged(api, operator, *DAMAGE)
    limited = await api.signed_in(Role.OPERATOR, pipelines=["crm"])
    for path in ("jobs", f"jobs/{job}", f"jobs/{job}/differences", "repairs", "schedules", "verifications"):
        problem(await limited.get(f"{SHOP}/{path}"), 403, "out_of_scope")
