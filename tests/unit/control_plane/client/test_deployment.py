"""From a spec to a pipeline that runs, against an API that does what it is told in its own time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from cdc_shared.errors import Fatal, Transient
from cdc_shared.models.common import PipelineSpec, SourceSpec
from control_plane.client.connection import Connection
from control_plane.client.deployment import PreflightFailed, check, config_from, run
from control_plane.client.pipelines import OperationFailed, Pipelines
from control_plane.client.session import ServiceToken
from control_plane.models.operation import Operation
from control_plane.models.pipeline import Pipeline, PipelineConfig

pytestmark = pytest.mark.unit

NOW = datetime(2026, 3, 1, tzinfo=UTC)
AT = NOW.isoformat()
SPEC = PipelineSpec(name="shop", source=SourceSpec(connection="env:MONGODB_URI", database="shop"))
CONFIG = config_from(SPEC)
OTHER = CONFIG.model_copy(update={"topic_partitions": 3})


class FakeApi:
    """One pipeline at most; what is asked of it is there after `looks` looks, unless it is to fail."""

    def __init__(self, config: PipelineConfig | None = None, desired: str = "stopped", *, looks: int = 3) -> None:
        self.spec = config.stored() if config else None
        self.desired, self.state, self.looks = desired, desired, looks
        self.fails_with: str | None = None
        self.operation_ends = "succeeded"
        self.checks: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.slept_s = 0.0
        self._seen = 0

    def pipelines(self) -> Pipelines:
        connection = Connection(
            "http://api.test",
            ServiceToken("cdcs_x"),
            transport=httpx.MockTransport(self._answer),
            clock=lambda: self.slept_s,
            sleep=self._sleep,
        )
        return Pipelines(connection, clock=lambda: self.slept_s, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept_s += seconds

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1/pipelines")
        if request.method != "GET":
            self.asked.append(f"{request.method} {path}".strip())
        if path == "/validate":
            valid = all(each["outcome"] != "failed" for each in self.checks)
            return httpx.Response(200, json={"pipeline": "shop", "valid": valid, "checks": self.checks})
        if request.method in ("POST", "PUT") and path in ("", "/shop"):
            self.spec = json.loads(request.content)
            return self._pipeline()
        if self.spec is None:
            return httpx.Response(404, json={"code": "not_found", "detail": "there is no pipeline shop"})
        if "operations/" in path:
            return self._operation()
        match path.removeprefix("/shop/"):
            case "start" | "resume":
                self.desired, self.state, self._seen = "running", "starting", 0
            case "restart":  # until the operation has ended it is still called failed
                self._seen = 0
                return self._operation()
        if request.method == "GET":
            self._seen += 1
            if self._seen > self.looks and self.state == "starting":
                self.state = "failed" if self.fails_with else self.desired
        return self._pipeline()

    def _pipeline(self) -> httpx.Response:
        failed = self.fails_with if self.state == "failed" else None
        running = {
            "kind": "ConnectorRunning",
            "status": "false" if failed else "true",
            "reason": "Failed" if failed else "Running",
            "message": failed or "it runs",
            "since": AT,
        }
        well = {"kind": "ResyncNeeded", "status": "false", "reason": "NothingLost", "message": "none", "since": AT}
        seen_at = (NOW + timedelta(seconds=self._seen)).isoformat()
        status = {"state": self.state, "desired": self.desired, "since": AT, "observed_at": seen_at, "operations": []}
        body = {"name": "shop", "version": 1, "spec": self.spec, "created_at": AT, "created_by": "ann"}
        body |= {"updated_at": AT, "updated_by": "ann", "status": {**status, "conditions": [running, well]}}
        return httpx.Response(200, json=body, headers={"ETag": '"a-1"'})

    def _operation(self) -> httpx.Response:
        self._seen += 1
        state = self.operation_ends if self._seen > self.looks else "running"
        if state == "succeeded":
            self.state = self.desired
        error = "Kafka does not answer" if state != "succeeded" else None
        body = {"id": str(uuid4()), "pipeline": "shop", "kind": "restart", "arguments": {}, "state": state}
        return httpx.Response(202, json={**body, "error": error, "requested_by": "ann", "requested_at": AT})


def ignore(_pipeline: Pipeline) -> None:
    return None


@pytest.mark.parametrize(
    ("api", "asked"),
    [
        (FakeApi(), ["POST", "POST /shop/start"]),
        (FakeApi(CONFIG), ["POST /shop/start"]),
        (FakeApi(CONFIG, "running"), []),
        (FakeApi(CONFIG, "paused"), ["POST /shop/resume"]),
        (FakeApi(OTHER, "running"), ["PUT /shop"]),
    ],
    ids=["absent", "stopped", "running", "paused", "of another spec"],
)
def test_whatever_it_was_it_is_brought_to_the_spec_and_to_run(api: FakeApi, asked: list[str]) -> None:
    states: list[str] = []

    pipeline = run(api.pipelines(), CONFIG, 60, lambda seen: states.append(seen.status.state))

    assert pipeline.status.state == "running"
    assert api.spec == CONFIG.stored()
    assert api.asked == asked
    assert states[-1] == "running"
    assert len(states) == len(set(states))  # told when something is another, not at every look


def test_one_that_has_failed_is_restarted() -> None:
    api = FakeApi(CONFIG, "running", looks=2)
    api.state = "failed"

    run(api.pipelines(), CONFIG, 60, ignore)

    assert api.asked == ["POST /shop/restart"]


def test_one_that_fails_is_not_waited_for_and_says_why() -> None:
    api = FakeApi(CONFIG)
    api.fails_with = "the source refuses the password"

    with pytest.raises(Fatal, match=r"pipeline shop has failed: the source refuses the password$"):
        run(api.pipelines(), CONFIG, 60, ignore)

    assert api.slept_s < 5


def test_one_that_does_not_get_there_is_given_up_with_its_state() -> None:
    api = FakeApi(CONFIG, looks=1_000)

    with pytest.raises(Transient, match="pipeline shop is starting after 20 s: it is not known why"):
        run(api.pipelines(), CONFIG, 20, ignore)

    assert 20 <= api.slept_s < 21


def test_a_preflight_that_fails_names_what_has() -> None:
    api = FakeApi()
    api.checks = [
        {"name": "kafka", "outcome": "ok", "message": "1 broker answers", "duration_ms": 1.0},
        {"name": "replica_set", "outcome": "failed", "message": "no replica set; start one", "duration_ms": 1.0},
    ]
    with pytest.raises(PreflightFailed, match=r"^replica_set: no replica set; start one$") as caught:
        check(api.pipelines(), CONFIG)
    assert len(caught.value.report.checks) == 2

    api.checks.pop()
    assert check(api.pipelines(), CONFIG).valid


def test_an_operation_is_waited_for_to_its_end() -> None:
    api = FakeApi(CONFIG, "running")
    pipelines = api.pipelines()

    assert pipelines.wait_for(pipelines.restart("shop"), 60).state == "succeeded"

    api.operation_ends = "failed"
    operation: Operation = pipelines.restart("shop")
    with pytest.raises(OperationFailed, match="restart of pipeline shop failed: Kafka does not answer"):
        pipelines.wait_for(operation, 60)
    api.looks = 1_000
    with pytest.raises(Transient, match="restart of pipeline shop has not ended in 5 s"):
        pipelines.wait_for(operation, 5)


def test_what_only_the_platform_may_say_of_a_spec_is_refused() -> None:
    versioned = SPEC.model_copy(update={"quality": SPEC.quality.model_copy(update={"version": 3})})

    with pytest.raises(Fatal, match=r"quality\.version"):
        config_from(versioned)
    assert config_from(SPEC).spec() == SPEC
