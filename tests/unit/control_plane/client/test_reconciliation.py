"""The client of reconciliation asks for what the API serves, and waits for a job's end and no longer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
import yaml

from cdc_shared.errors import Transient
from cdc_shared.models.reconciliation import DifferenceKind, JobState, Mode, ScheduleConfig
from control_plane.client.connection import Connection
from control_plane.client.errors import Stale
from control_plane.client.reconciliation import POLL_S, Reconciliation
from control_plane.client.session import ServiceToken
from control_plane.models.reconciliation import NewJob
from control_plane.models.repairs import NewRepair
from control_plane.openapi import openapi_yaml
from control_plane.openapi_examples import EXAMPLES

pytestmark = pytest.mark.unit

DOCUMENT: dict[str, Any] = yaml.load(openapi_yaml(), Loader=yaml.CSafeLoader)
BY_NAME = {type(each).__name__: each.model_dump(mode="json") for each in EXAMPLES}
ID = UUID(int=1)


class Served:
    """Answers each request with the example of the schema that the API's description names for it."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.now_s = 0.0
        self.changes: dict[str, Any] = {}
        self.status = 0
        transport = httpx.MockTransport(self._answer)
        connection = Connection("http://api.test", ServiceToken("t"), transport=transport, retry_for_s=0)
        self.client = Reconciliation(connection, lambda: self.now_s, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.status:
            return httpx.Response(self.status, json={"code": "x", "detail": "no"})
        responses = described(request)["responses"]
        status, response = next((code, each) for code, each in responses.items() if code[0] == "2")
        if "content" not in response:
            return httpx.Response(int(status))
        name = response["content"]["application/json"]["schema"].get("$ref", "").rpartition("/")[2]
        if not name:
            return httpx.Response(int(status), content=b"a file")
        item = name.removeprefix("Page_").removesuffix("_")
        body = BY_NAME[item] | self.changes
        return httpx.Response(int(status), json={"items": [body], "next": None} if item != name else body)


def described(request: httpx.Request) -> dict[str, Any]:
    """The one operation of the description that a request is for; a path that is not served fails."""
    raw = request.url.raw_path.decode().partition("?")[0]
    exact = [path for path in DOCUMENT["paths"] if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", path), raw)]
    assert len(exact) == 1, raw
    operation: dict[str, Any] = DOCUMENT["paths"][exact[0]][request.method.lower()]
    return operation


SCHEDULE = ScheduleConfig(cron="0 2 * * *")
CALLS: list[tuple[str, Callable[[Reconciliation], Any]]] = [
    ("run_reconciliation", lambda api: api.run("shop", NewJob(mode=Mode.COUNTS))),
    ("list_jobs", lambda api: list(api.jobs("shop", state=JobState.RUNNING))),
    ("get_job", lambda api: api.job("shop", ID)),
    ("cancel_job", lambda api: api.cancel("shop", ID)),
    ("pause_job", lambda api: api.pause("shop", ID)),
    ("resume_job", lambda api: api.resume("shop", ID)),
    ("list_differences", lambda api: list(api.differences("shop", ID, kind=DifferenceKind.MISSING))),
    ("get_report", lambda api: api.report("shop", ID, "shop", "a/b", "csv")),
    ("propose_repair", lambda api: api.plan_repair("shop", ID)),
    ("propose_repair", lambda api: api.propose_repair("shop", ID, NewRepair(max_keys=5))),
    ("list_repairs", lambda api: list(api.repairs("shop"))),
    ("get_repair", lambda api: api.repair("shop", ID)),
    ("approve_repair", lambda api: api.approve("shop", ID)),
    ("reject_repair", lambda api: api.reject("shop", ID)),
    ("list_schedules", lambda api: list(api.schedules("shop"))),
    ("create_schedule", lambda api: api.create_schedule("shop", SCHEDULE)),
    ("get_schedule", lambda api: api.schedule("shop", ID)),
    ("replace_schedule", lambda api: api.replace_schedule(api.schedule("shop", ID), SCHEDULE)),
    ("delete_schedule", lambda api: api.delete_schedule(api.schedule("shop", ID))),
    ("list_verifications", lambda api: list(api.verifications("shop"))),
    ("list_all_verifications", lambda api: list(api.verifications())),
]


@pytest.mark.parametrize(("operation", "call"), CALLS, ids=[f"{n}-{name}" for n, (name, _) in enumerate(CALLS)])
def test_every_call_is_of_the_operation_that_it_is_named_for(
    operation: str, call: Callable[[Reconciliation], Any]
) -> None:
    served = Served()
    answer = call(served.client)
    request = served.asked[-1]
    assert described(request)["operationId"] == operation
    assert answer is not None or operation == "delete_schedule"
    if operation in ("replace_schedule", "delete_schedule"):
        assert request.headers["If-Match"] == '"5d4c3b2a1908-1"'
    if request.method == "POST" and operation not in ("approve_repair", "reject_repair"):
        assert request.headers["Idempotency-Key"], "sent again when its answer is lost"


def test_every_operation_has_its_call() -> None:
    served = {
        each["operationId"]
        for item in DOCUMENT["paths"].values()
        for each in item.values()
        if each["tags"] == ["reconciliation"]
    }
    assert served == {operation for operation, _ in CALLS}


def test_a_plan_changes_nothing_and_a_proposal_does() -> None:
    served = Served()
    served.client.plan_repair("shop", ID, NewRepair(dry_run=False))
    served.client.propose_repair("shop", ID)
    assert [json.loads(each.content)["dry_run"] for each in served.asked] == [True, False]


def test_a_job_is_waited_for_until_it_has_ended() -> None:
    served = Served()
    served.changes = {"state": "running", "outcome": None}
    job, seen = served.client.run("shop"), []

    def on_change(each: Any) -> None:
        seen.append(each.state)
        if len(seen) == 3:
            served.changes = {"state": "failed", "outcome": None, "error": "why"}

    assert served.client.wait_for(job, 60, on_change).state is JobState.FAILED
    assert (len(seen), served.now_s) == (3, 3 * POLL_S)
    served.changes = {"state": "queued"}
    with pytest.raises(Transient, match="queued after 5 s"):
        served.client.wait_for(job, 5)


def test_somebody_elses_change_of_a_schedule_is_told() -> None:
    served = Served()
    schedule = served.client.schedule("shop", ID)
    served.status = 412
    with pytest.raises(Stale):
        served.client.replace_schedule(schedule, SCHEDULE)
