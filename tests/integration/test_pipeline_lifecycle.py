"""The controller on the real stack: pipelines become what was asked for, and stay so whoever meddles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from api_database import TrialDatabase
from managed_pipeline import ManagedPipeline, managed_pipeline, running_api
from stack_endpoints import Stack
from trial_pipeline import trial_name
from waiting import wait_until

from cdc_shared.connect.connect_client import ConnectClient, ConnectorView
from cdc_shared.kafka.spec_topic import UnknownPipeline, read_spec

pytestmark = pytest.mark.integration

TIMEOUT_S = 60.0


@pytest.fixture
def pipeline(
    stack: Stack,
    database: TrialDatabase,
    tests_root: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[ManagedPipeline]:
    """A pipeline to be made, with its writer and an API of its own."""
    monkeypatch.setenv("MONGODB_URI", stack.mongodb_uri)
    with managed_pipeline(stack, trial_name(request.node.name), tests_root, tmp_path, database) as pipeline:
        yield pipeline


@pytest.fixture
def client(stack: Stack) -> Iterator[ConnectClient]:
    with ConnectClient(stack.connect_url) as client:
        yield client


@pytest.mark.timeout(240)
def test_a_pipeline_stays_what_it_should_be(
    pipeline: ManagedPipeline,
    client: ConnectClient,
    database: TrialDatabase,
    measured: Callable[[str, float, str], None],
) -> None:
    strangers = {name: view.config for name, view in client.connectors().items()}

    def connector() -> ConnectorView | None:
        return client.connectors().get(pipeline.name)

    def published() -> bool:
        try:
            return read_spec(pipeline.stack.kafka, pipeline.name, pipeline.specs_topic).desired == "running"
        except UnknownPipeline:
            return False

    pipeline.db["items"].insert_many([{"_id": n} for n in range(50)])
    pipeline.create()
    assert connector() is None
    asked_at = time.monotonic()
    pipeline.ask("start")
    wait_until(lambda: pipeline.conditions().get("SpecPublished", ("",))[0] == "true", TIMEOUT_S, "it is published")
    measured("from the request to the published spec", time.monotonic() - asked_at, "s")
    pipeline.await_state("running")
    pipeline.await_equal("items")

    # Postgres cuts the leader off: it stands for election again.
    asyncio.run(
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cdc-controller'"
        )
    )
    before = connector()
    assert before is not None
    assert "mongodb://" not in str(before.config)
    # Its task delivers: one whose connector goes while it starts leaves a Connect 4 worker unable to reset its offsets.
    client.delete(pipeline.name)
    wait_until(lambda: (view := connector()) is not None and view.config == before.config, TIMEOUT_S, "it is back")
    pipeline.db["items"].insert_one({"_id": 50})
    pipeline.await_equal("items")
    client.put_config(pipeline.name, {**before.config, "max.batch.size": "17"})
    wait_until(
        lambda: (view := connector()) is not None and view.config == before.config, TIMEOUT_S, "the drift is gone"
    )
    pipeline.unpublish()
    wait_until(published, TIMEOUT_S, "the spec is back")
    pipeline.await_state("running")

    # A second process: it takes over, and changes nothing that is as it should be.
    with running_api(pipeline.settings, database) as other:
        pipeline.stop_api()
        pipeline.api = other
        pipeline.db["items"].delete_one({"_id": 0})
        pipeline.await_equal("items")
        pipeline.ask("restart")
        wait_until(lambda: pipeline.operations()[0]["state"] == "succeeded", TIMEOUT_S, "it was restarted")
        pipeline.await_state("running")
        refused = pipeline.api.request("DELETE", pipeline.path)
        assert (refused.status_code, refused.json()["state"]) == (409, "running")
        pipeline.ask("stop")
        pipeline.await_state("stopped")
        rows = pipeline.rows("items")
        pipeline.delete()
        pipeline.await_state("gone")
        assert pipeline.rows("items") == rows  # kept
        assert connector() is None
    for name, view in client.connectors().items():  # other tests remove theirs
        assert view.config == strangers.get(name, view.config)
