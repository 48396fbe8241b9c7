"""The keys of a range of a change topic, asked of a real broker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from stack_endpoints import Stack
from waiting import wait_until

from cdc_shared.documents import event_key
from cdc_shared.kafka.topics import UnknownTopic, change_topic, ensure_topic, held_offsets
from cdc_shared.models.collection import Collection
from reconciliation.reconciler.result import TopicPositions
from reconciliation.sources.changed_keys import ChangedKeys, PositionsGone, TooManyKeys

pytestmark = pytest.mark.integration

TIMEOUT_S = 30.0
COLLECTION = Collection("shop", "things")


class Topic:
    """A change topic of two partitions, and what reads it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.pipeline = f"test-changed-{uuid.uuid4().hex[:8]}"
        self.name = change_topic(self.pipeline, COLLECTION.database, COLLECTION.name)
        self.admin = AdminClient({"bootstrap.servers": stack.kafka})
        self.changed = ChangedKeys(stack.kafka, self.pipeline, COLLECTION)

    def make(self) -> None:
        ensure_topic(self.admin, self.name, 2, {})

    def remove(self) -> None:
        self.admin.delete_topics([self.name])[self.name].result(TIMEOUT_S)

    def send(self, partition: int, *keys: str, value: bytes | None = b"{}") -> None:
        producer = Producer({"bootstrap.servers": self.stack.kafka})
        for key in keys:
            producer.produce(self.name, value, event_key(key), partition)
        assert producer.flush(TIMEOUT_S) == 0

    def transaction(self, partition: int, key: str) -> Producer:
        producer = Producer({"bootstrap.servers": self.stack.kafka, "transactional.id": f"{self.name}-{key}"})
        producer.init_transactions(TIMEOUT_S)
        producer.begin_transaction()
        producer.produce(self.name, b"{}", event_key(key), partition)
        assert producer.flush(TIMEOUT_S) == 0
        return producer

    def since(self, start: TopicPositions) -> set[str]:
        return self.changed.keys_between(start, self.changed.ends().offsets)


@pytest.fixture
def topic(stack: Stack) -> Iterator[Topic]:
    made = Topic(stack)
    with closing(made.changed):
        made.make()
        yield made
        made.remove()


def test_whatever_has_a_key_counts_and_markers_are_read_over(topic: Topic) -> None:
    topic.send(0, "1", "2")
    start = topic.changed.ends()
    assert topic.since(start) == set()
    topic.send(0, '{"$oid": "6553f1000000000000000000"}', '"ä\\"\\\\"')
    topic.send(1, "3", value=None)
    topic.transaction(1, "4").commit_transaction(TIMEOUT_S)
    topic.transaction(1, "5").abort_transaction(TIMEOUT_S)
    under_way = topic.transaction(0, "6")
    expected = {'{"$oid": "6553f1000000000000000000"}', '"ä\\"\\\\"', "3", "4", "5", "6"}
    assert topic.since(start) == expected
    ends = topic.changed.ends()
    under_way.commit_transaction(TIMEOUT_S)
    assert topic.changed.keys_between(start, ends.offsets) == expected
    assert topic.since(ends) == set(), "nothing but the marker"
    assert topic.changed.keys_between(TopicPositions(start.topic_id, {}), {0: 1}) == {"1"}
    with pytest.raises(TooManyKeys, match="more than 2"):
        topic.changed.keys_between(start, ends.offsets, 2)
    assert topic.since(start) == expected, "what was left of the reading before is not read again"


def test_what_kafka_has_no_more_is_not_passed_over(topic: Topic) -> None:
    topic.send(0, *map(str, range(10)))
    start = topic.changed.ends()
    topic.send(0, "x")
    held = topic.admin.delete_records([TopicPartition(topic.name, 0, 5)])
    for future in held.values():
        future.result(TIMEOUT_S)
    wait_until(lambda: held_offsets(topic.admin, topic.name, 2)[0][0] == 5, TIMEOUT_S, "records to be dropped")
    with pytest.raises(PositionsGone, match="retention has dropped"):
        topic.since(TopicPositions(start.topic_id, {0: 4, 1: 0}))
    assert topic.since(start) == {"x"}
    with pytest.raises(PositionsGone, match="lost records"):
        topic.changed.keys_between(start, {0: 99})


def test_a_topic_that_was_made_again_has_other_events(topic: Topic) -> None:
    topic.send(0, "1")
    start = topic.changed.ends()
    topic.remove()

    def is_gone() -> bool:
        try:
            topic.changed.ends()
        except UnknownTopic:
            return True
        return False

    wait_until(is_gone, TIMEOUT_S, "the topic to be gone")
    with pytest.raises(PositionsGone):
        topic.changed.keys_between(start, {0: 1})
    topic.make()
    topic.send(0, "2", "3")
    with pytest.raises(PositionsGone, match="made again"):
        topic.changed.keys_between(start, {0: 2})
    now = topic.changed.ends()
    assert now.topic_id != start.topic_id
    assert topic.changed.keys_between(TopicPositions(now.topic_id, {0: 0, 1: 0}), now.offsets) == {"2", "3"}
