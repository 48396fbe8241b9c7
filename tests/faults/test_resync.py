"""Resync: whatever was missed, a new snapshot makes the table equal to its source; no ghost row stays. Attacks I9."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions
from mongo_pipeline import MongoPipeline
from stack_endpoints import Stack
from trial_pipeline import trial_name
from waiting import wait_until

from cdc_shared.connect.connect_client import ConnectClient

pytestmark = pytest.mark.faults

DOCUMENTS = 500
TIMEOUT_S = 120.0


@pytest.fixture
def pipeline(stack: Stack, tests_root: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MongoPipeline]:
    """A pipeline whose collection `items` is in its table."""
    name = trial_name(request.node.name)
    pipeline = MongoPipeline(stack, name, tests_root, tmp_path / name, partitions=2)
    try:
        pipeline.db["items"].insert_many([{"_id": n, "n": n} for n in range(DOCUMENTS)])
        pipeline.start()
        pipeline.await_equal("items", TIMEOUT_S)
        yield pipeline
    finally:
        pipeline.close()


def resync(pipeline: MongoPipeline, *options: str) -> str:
    """`delta-writer resync`, as people run it; what it said."""
    environment = pipeline.stack.writer_environment | {
        "CDC_PIPELINES_TOPIC": pipeline.specs_topic,
        "CONNECT_URL": pipeline.stack.connect_url,
    }
    done = subprocess.run(
        [sys.executable, "-m", "delta_writer", "resync", pipeline.name, *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def change_unseen(pipeline: MongoPipeline, rng: random.Random, ids: str) -> None:
    """Delete a third of the documents, change a third, and add some."""
    items = pipeline.db["items"]
    present = [each["_id"] for each in items.find({}, {"_id": 1})]
    rng.shuffle(present)
    third = len(present) // 3
    items.delete_many({"_id": {"$in": present[:third]}})
    items.update_many({"_id": {"$in": present[third : 2 * third]}}, {"$set": {"changed": ids}})
    items.insert_many([{"_id": f"{ids} {n}", "n": n} for n in range(50)])


def expire(pipeline: MongoPipeline, rng: random.Random) -> None:
    """Kafka drops changes that the stopped writer has not read."""
    change_unseen(pipeline, rng, "expired")
    ends: dict[int, int] = {}

    def changes_have_come() -> bool:
        held = {p: pipeline.held("items", p)[1] for p in range(2)}
        stable = held == ends and all(held[p] > at for p, at in pipeline.offsets("items").items())
        ends.update(held)
        return stable

    wait_until(changes_have_come, TIMEOUT_S, "the changes are in the topic", poll_s=1.0)
    topic = pipeline.topic("items")
    for future in pipeline.admin.delete_records([TopicPartition(topic, p, end) for p, end in ends.items()]).values():
        future.result(TIMEOUT_S)


def make_topic_again(pipeline: MongoPipeline, rng: random.Random) -> None:
    """Somebody deletes the change topic; Connect cannot go on until it is restarted."""
    topic = pipeline.topic("items")
    pipeline.admin.delete_topics([topic])[topic].result(TIMEOUT_S)
    wait_until(lambda: topic not in pipeline.admin.list_topics(timeout=TIMEOUT_S).topics, TIMEOUT_S, "it is gone")
    change_unseen(pipeline, rng, "topic gone")


def add_a_partition(pipeline: MongoPipeline, rng: random.Random) -> None:
    """Keys move between partitions."""
    topic = pipeline.topic("items")
    partitions = len(pipeline.admin.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions) + 1
    pipeline.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(TIMEOUT_S)
    change_unseen(pipeline, rng, "repartitioned")


def wait_resync_needed(pipeline: MongoPipeline) -> None:
    pipeline.writer.wait_state(pipeline.name, "resync_needed", TIMEOUT_S)


@pytest.mark.timeout(600)
def test_a_resync_makes_the_table_equal_whatever_was_missed(pipeline: MongoPipeline, rng: random.Random) -> None:
    """A gap in the stream, and each way into "resync needed", one after the other on the same table."""
    with ConnectClient(pipeline.stack.connect_url) as connect:
        connect.stop(pipeline.name, TIMEOUT_S)
        connect.forget_offsets(pipeline.name, TIMEOUT_S)
    change_unseen(pipeline, rng, "gap")
    said = resync(pipeline)
    assert pipeline.rows("items") == pipeline.documents("items")  # at once: the command has waited for it
    assert f"{pipeline.name}.items is whole again" in said
    assert pipeline.writer.metric("cdc_rows_swept_total") == DOCUMENTS // 3

    pipeline.writer.stop()
    expire(pipeline, rng)
    pipeline.start_writer(ready=False)
    wait_resync_needed(pipeline)
    resync(pipeline, "--collection", "items")
    assert pipeline.rows("items") == pipeline.documents("items")

    add_a_partition(pipeline, rng)
    wait_resync_needed(pipeline)
    resync(pipeline)
    assert pipeline.rows("items") == pipeline.documents("items")

    make_topic_again(pipeline, rng)
    said = resync(pipeline)
    assert "starts anew" in said
    assert pipeline.rows("items") == pipeline.documents("items")

    pipeline.db["items"].delete_many({"n": {"$lt": 20}})  # the stream goes on, also in a writer that starts later
    pipeline.writer.stop()
    pipeline.start_writer()
    pipeline.db["items"].insert_one({"_id": "afterwards"})
    pipeline.await_equal("items", TIMEOUT_S)
