"""Snapshots of many pipelines, followed by one reader: what comes, what goes, and what is away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from cdc_shared.errors import Transient
from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.snapshots import snapshot_follower as module
from cdc_shared.snapshots.snapshot_follower import SnapshotFollower
from cdc_shared.snapshots.snapshot_progress import SnapshotProgress, SnapshotState

pytestmark = pytest.mark.unit


class Message:
    def __init__(self, topic: str, offset: int, value: bytes | None = None, error: KafkaError | None = None) -> None:
        self._told = (topic, offset, value, error)

    def topic(self) -> str:
        return self._told[0]

    def offset(self) -> int:
        return self._told[1]

    def value(self) -> bytes | None:
        return self._told[2]

    def error(self) -> KafkaError | None:
        return self._told[3]


class Kafka:
    """Takes the place of an admin client and a consumer."""

    def __init__(self) -> None:
        self.topics: dict[str, list[bytes]] = {}
        self.records: dict[str, list[int]] = {}
        """Change topic → the times of its records."""
        self.positions: dict[str, int] = {}
        self.error: KafkaError | None = None

    def tell(self, pipeline: str, kind: str, at_ms: int = 0, **data: str) -> None:
        told = {"aggregate_type": "Initial Snapshot", "type": kind, "timestamp": at_ms, "additional_data": data}
        self.topics.setdefault(f"cdc.notifications.{pipeline}", []).append(json.dumps(told).encode())

    def list_topics(self, timeout: float) -> SimpleNamespace:
        return SimpleNamespace(
            topics={name: SimpleNamespace(partitions={0: None}) for name in (*self.topics, *self.records)}
        )

    def list_offsets(self, asked: Mapping[TopicPartition, Any], **_: Any) -> dict[TopicPartition, Future[Any]]:
        answers = {}
        for part, spec in asked.items():
            answers[part] = Future[Any]()
            if self.error is not None:
                answers[part].set_exception(KafkaException(self.error))
                continue
            times, since = self.records[part.topic], spec._value
            young = [offset for offset, at in enumerate(times) if at >= since]
            offset = len(times) if since == LATEST else young[0] if young else -1
            answers[part].set_result(SimpleNamespace(offset=offset))
        return answers

    def incremental_assign(self, parts: list[TopicPartition]) -> None:
        self.positions |= {part.topic: 0 for part in parts}

    def incremental_unassign(self, parts: list[TopicPartition]) -> None:
        for part in parts:
            del self.positions[part.topic]

    def consume(self, number: int, timeout: float) -> list[Message]:
        messages = []
        for topic, position in self.positions.items():
            told = self.topics.get(topic, [])
            messages += [Message(topic, at, told[at]) for at in range(position, len(told))]
            if position < len(told) or not told:
                messages.append(Message(topic, len(told), error=KafkaError(KafkaError._PARTITION_EOF)))
            self.positions[topic] = len(told)
        return messages

    def close(self) -> None:
        pass


LATEST = module.OffsetSpec.latest()._value  # type: ignore[no-untyped-call]


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kafka = Kafka()
        self.now_s = 0.0
        self.totals: Mapping[str, int] | Exception = {"a": 100, "b": 20}
        self.counted = 0
        monkeypatch.setattr(module, "AdminClient", lambda config: self.kafka)
        monkeypatch.setattr(module, "Consumer", lambda config: self.kafka)
        self.follower = SnapshotFollower("kafka:1", self._count, lambda: self.now_s)

    def look(self, *names: str, **asked: list[str]) -> dict[str, SnapshotProgress]:
        specs = [PipelineSpec(name=each, source=SourceSpec(connection="env:X", database="db")) for each in names]
        return self.follower.look(specs, asked)

    def send(self, pipeline: str, collection: str, number: int, at_ms: int) -> None:
        self.kafka.records.setdefault(f"{pipeline}.db.{collection}", []).extend([at_ms] * number)

    def _count(self, spec: PipelineSpec) -> Mapping[str, int]:
        self.counted += 1
        if isinstance(self.totals, Exception):
            raise self.totals
        return self.totals


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def begin(world: World, pipeline: str = "p", at_ms: int = 100_000) -> None:
    world.kafka.tell(pipeline, "STARTED", at_ms)
    world.kafka.tell(pipeline, "IN_PROGRESS", at_ms, current_collection_in_progress="db.a")


def test_records_since_the_attempt_began_are_counted(world: World) -> None:
    world.send("p", "a", 40, at_ms=50_000)  # of before
    begin(world)
    assert world.look("p")["p"].documents == 0
    world.send("p", "a", 30, at_ms=101_000)
    world.now_s = 10
    progress = world.look("p")["p"]
    assert (progress.state, progress.documents, progress.total) == (SnapshotState.RUNNING, 30, 120)
    assert (progress.documents_per_s, progress.percent, progress.seconds_left) == (3.0, 25.0, 30.0)
    assert world.counted == 1
    world.now_s = 100  # of the last minute nothing came
    world.look("p")
    world.now_s = 130
    assert world.look("p")["p"].documents_per_s == 0


def test_an_end_and_another_beginning_are_told_apart(world: World) -> None:
    begin(world)
    world.send("p", "a", 30, at_ms=101_000)
    world.look("p")
    world.kafka.tell("p", "TABLE_SCAN_COMPLETED", 102_000, scanned_collection="db.a", status="SUCCEEDED")
    world.kafka.tell("p", "COMPLETED", 103_000)
    progress = world.look("p")["p"]
    assert (progress.state, progress.percent, progress.completed_ms) == (SnapshotState.COMPLETED, 100.0, 103_000)
    begin(world, at_ms=200_000)
    again = world.look("p")["p"]
    assert (again.state, again.documents, again.completed_ms) == (SnapshotState.RUNNING, 0, None)
    world.kafka.tell("p", "ABORTED", 201_000)
    assert (world.look("p")["p"].state, world.look("p")["p"].percent) == (SnapshotState.ABANDONED, None)


def test_a_connector_that_goes_on_from_its_offsets_leaves_the_last_snapshot_complete(world: World) -> None:
    begin(world)
    world.kafka.tell("p", "COMPLETED", 103_000)
    world.kafka.tell("p", "SKIPPED", 104_000)
    assert world.look("p")["p"].completed_ms == 103_000


def test_each_pipeline_is_its_own(world: World) -> None:
    world.kafka.tell("never-snapshot", "SKIPPED")
    begin(world, "p")
    world.kafka.tell("q", "STARTED", 100_000)
    world.kafka.tell("q", "COMPLETED", 100_500)
    found = world.look("p", "q", "never-snapshot", "without-topics", p=["a"])
    assert {name: each.state for name, each in found.items()} == {
        "p": SnapshotState.RUNNING,
        "q": SnapshotState.COMPLETED,
    }
    assert found["p"].total == 100  # of what was asked for


def test_a_pipeline_that_is_made_again_begins_anew(world: World) -> None:
    begin(world)
    assert "p" in world.look("p")
    del world.kafka.topics["cdc.notifications.p"]
    assert world.look("p") == {}
    world.kafka.tell("p", "SKIPPED")
    assert world.look("p") == {}
    assert world.look() == {}


def test_a_source_or_a_leader_that_is_away_costs_only_the_counts(world: World) -> None:
    begin(world)
    world.send("p", "a", 30, at_ms=101_000)
    world.totals = Transient("no primary")
    progress = world.look("p")["p"]
    assert (progress.documents, progress.percent) == (30, None)
    world.totals = {"a": 60}
    assert world.look("p")["p"].percent == 50
    world.kafka.error = KafkaError(KafkaError.LEADER_NOT_AVAILABLE)
    progress = world.look("p")["p"]
    assert (progress.state, progress.documents) == (SnapshotState.RUNNING, None)
