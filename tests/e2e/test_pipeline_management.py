"""A pipeline's life through the API on the real stack, its Kafka Connect killed in the middle of every step."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from api_database import TrialDatabase
from managed_pipeline import ManagedPipeline, managed_pipeline
from private_connect import PrivateConnect
from trial_pipeline import trial_name
from waiting import wait_until

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.kafka.topics import held_offsets

pytestmark = pytest.mark.e2e

DOCUMENTS = 200
UP_TO_A_KILL_S = 1.0
QUIET_S = 3.0
"""Ten times what a change takes to its table."""


@pytest.fixture
def pipeline(
    connect: PrivateConnect,
    database: TrialDatabase,
    tests_root: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[ManagedPipeline]:
    monkeypatch.setenv("MONGODB_URI", connect.stack.mongodb_uri)
    name = trial_name(request.node.name)
    with managed_pipeline(connect.stack, name, tests_root, tmp_path, database) as pipeline:
        yield pipeline


def check_nothing_comes(pipeline: ManagedPipeline, collection: str) -> None:
    """Nothing that is written now comes into the topic, and so into no table."""
    topic = pipeline.topic(collection)
    before = held_offsets(pipeline.admin, topic, 1)
    pipeline.db[collection].update_many({}, {"$inc": {"n": 1}})
    pipeline.db[collection].insert_one({"_id": f"unseen {time.monotonic_ns()}"})
    time.sleep(QUIET_S)  # that something does not happen can only be waited out
    assert held_offsets(pipeline.admin, topic, 1) == before


@pytest.mark.timeout(300)
def test_a_pipeline_goes_through_its_life_while_connect_dies_in_every_step(
    pipeline: ManagedPipeline,
    connect: PrivateConnect,
    rng: random.Random,
    measured: Callable[[str, float, str], None],
) -> None:
    def with_a_kill(what: str, step: Callable[[], object], state: str) -> None:
        step()
        time.sleep(rng.uniform(0.0, UP_TO_A_KILL_S))
        connect.kill()
        connect.start()
        started = time.monotonic()
        pipeline.await_state(state)
        measured(f"{what}: {state} after Connect was back", time.monotonic() - started, "s")

    items = pipeline.db["items"]
    items.insert_many([{"_id": n, "n": n} for n in range(DOCUMENTS)])
    pipeline.create()
    assert pipeline.state() == "stopped"

    with_a_kill("start", lambda: pipeline.ask("start"), "running")
    pipeline.await_equal("items")
    items.delete_many({"_id": {"$lt": 20}})
    pipeline.await_equal("items")

    with_a_kill("pause", lambda: pipeline.ask("pause"), "paused")
    check_nothing_comes(pipeline, "items")

    with_a_kill("resume", lambda: pipeline.ask("resume"), "running")
    pipeline.await_equal("items")

    with_a_kill("stop", lambda: pipeline.ask("stop"), "stopped")
    check_nothing_comes(pipeline, "items")

    with_a_kill("delete", lambda: pipeline.delete(keep_tables=False), "gone")
    check_nothing_is_left(pipeline)


def check_nothing_is_left(pipeline: ManagedPipeline) -> None:
    with ConnectClient(pipeline.stack.connect_url) as client:
        assert pipeline.name not in client.connectors()
    topics = pipeline.admin.list_topics(timeout=10).topics
    assert not [topic for topic in topics if pipeline.name in topic and topic != pipeline.specs_topic]
    assert not list(pipeline.stack.connect_secrets_dir.glob(f"{pipeline.name}.*"))
    assert pipeline.db["cdc_heartbeat"].find_one({"_id": pipeline.name}) is None
    assert pipeline.rows("items") == {}
    wait_until(lambda: not pipeline.writer.pipeline_state(pipeline.name)[0], 10.0, "the writer knows it no more")
    assert pipeline.operations()[0]["state"] == "succeeded"
