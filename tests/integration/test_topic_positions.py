"""Where a snapshot attempt lies in a change topic, asked of a real broker. Attacks I9."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from stack_endpoints import Stack

from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.errors import Transient
from cdc_shared.kafka.topics import ensure_topic, held_offsets, topic_id
from cdc_shared.snapshots.topic_positions import CLOCK_MARGIN_MS, TopicPositions

pytestmark = pytest.mark.integration

TIMEOUT_S = 30.0
NOW_MS = int(time.time() * 1000)
"""Kafka deletes what is older than its retention at any time, so records must not be from long ago."""

NewTopic = Callable[..., ChangeTopic]


@pytest.fixture
def admin(stack: Stack) -> AdminClient:
    return AdminClient({"bootstrap.servers": stack.kafka})


@pytest.fixture
def new_topic(admin: AdminClient) -> Iterator[NewTopic]:
    """Makes topics of two partitions, and removes them."""
    made: list[str] = []

    def make(timestamps: str = "CreateTime") -> ChangeTopic:
        made.append(f"test-positions-{uuid.uuid4().hex[:8]}")
        ensure_topic(admin, made[-1], 2, {"message.timestamp.type": timestamps})
        return ChangeTopic(made[-1], *topic_id(admin, made[-1]))

    yield make
    for future in admin.delete_topics(made).values():
        future.result(TIMEOUT_S)


@pytest.fixture
def positions(stack: Stack) -> Iterator[TopicPositions]:
    with closing(TopicPositions(stack.kafka)) as positions:
        yield positions


def send(stack: Stack, topic: ChangeTopic, partition: int, *at_ms: int, value: bytes | None = b"{}") -> None:
    producer = Producer({"bootstrap.servers": stack.kafka})
    for each in at_ms:
        producer.produce(topic.name, value=value, key=b"k", partition=partition, timestamp=each)
    assert producer.flush(TIMEOUT_S) == 0


def test_the_bounds_of_an_attempt(stack: Stack, new_topic: NewTopic, positions: TopicPositions) -> None:
    topic, started = new_topic(), NOW_MS
    before = started - CLOCK_MARGIN_MS - 1
    send(stack, topic, 0, before - 50, before, started + 1000, started + 999)
    send(stack, topic, 1, before)  # the attempt sent nothing here
    bounds = positions.bounds(topic, started)
    assert bounds.first == {0: 2, 1: 1}
    assert bounds.end == {0: 4, 1: 1}
    # A clock that was set back after STARTED, by less than the margin, hides none of the attempt's records.
    assert positions.bounds(topic, started + 1000 + CLOCK_MARGIN_MS).first == {0: 2, 1: 1}


def test_records_that_are_not_committed_yet_belong_to_it(
    stack: Stack, new_topic: NewTopic, positions: TopicPositions
) -> None:
    """COMPLETED may be readable before the marker of its own transaction has come to every partition."""
    topic = new_topic()
    producer = Producer({"bootstrap.servers": stack.kafka, "transactional.id": topic.name})
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    for _ in range(3):
        producer.produce(topic.name, value=b"{}", key=b"k", partition=0, timestamp=NOW_MS)
    producer.flush(TIMEOUT_S)
    bounds = positions.bounds(topic, NOW_MS)
    assert (bounds.first[0], bounds.end[0]) == (0, 3)
    assert positions.has_change(topic, 0, 0, 3)  # they may come yet
    producer.commit_transaction(TIMEOUT_S)
    assert positions.bounds(topic, NOW_MS).end[0] == 4  # with the marker
    assert positions.has_change(topic, 0, 2, 4)
    assert not positions.has_change(topic, 0, 3, 4)  # the marker alone


def test_what_an_aborted_transaction_left_changes_nothing(
    stack: Stack, admin: AdminClient, new_topic: NewTopic, positions: TopicPositions
) -> None:
    topic = new_topic()
    producer = Producer({"bootstrap.servers": stack.kafka, "transactional.id": topic.name})
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    producer.produce(topic.name, value=b"{}", key=b"k", partition=0, timestamp=NOW_MS)
    producer.flush(TIMEOUT_S)
    producer.abort_transaction(TIMEOUT_S)
    assert not positions.has_change(topic, 0, 0, held_offsets(admin, topic.name, 1)[0][1])


def test_tombstones_change_nothing(stack: Stack, new_topic: NewTopic, positions: TopicPositions) -> None:
    topic = new_topic()
    send(stack, topic, 0, NOW_MS, NOW_MS, value=None)
    send(stack, topic, 0, NOW_MS)
    assert not positions.has_change(topic, 0, 0, 2)
    assert positions.has_change(topic, 0, 0, 3)
    assert not positions.has_change(topic, 0, 3, 3)


def test_a_beginning_that_retention_may_have_dropped_is_not_told(
    stack: Stack, admin: AdminClient, new_topic: NewTopic, positions: TopicPositions
) -> None:
    topic = new_topic()
    send(stack, topic, 0, NOW_MS - 60_000, NOW_MS, NOW_MS, NOW_MS)
    assert positions.bounds(topic, NOW_MS).first[0] == 1
    admin.delete_records([TopicPartition(topic.name, 0, 1)])[TopicPartition(topic.name, 0)].result(TIMEOUT_S)
    assert positions.bounds(topic, NOW_MS).first[0] is None  # record 0 might have been its first
    send(stack, topic, 1, NOW_MS - 60_000, NOW_MS - 60_000, NOW_MS)
    admin.delete_records([TopicPartition(topic.name, 1, 1)])[TopicPartition(topic.name, 1)].result(TIMEOUT_S)
    assert positions.bounds(topic, NOW_MS).first[1] == 2  # an older record is still there: the first is too


def test_the_brokers_clock_tells_nothing(stack: Stack, new_topic: NewTopic, positions: TopicPositions) -> None:
    topic = new_topic("LogAppendTime")
    send(stack, topic, 0, NOW_MS)
    assert positions.bounds(topic, NOW_MS).first == {0: None, 1: None}


def test_a_topic_made_again_gives_no_answers(stack: Stack, new_topic: NewTopic, positions: TopicPositions) -> None:
    before = replace(new_topic(), topic_id="of-before")
    send(stack, before, 0, NOW_MS)
    with pytest.raises(Transient, match="no longer the one"):
        positions.bounds(before, NOW_MS)
    with pytest.raises(Transient, match="no longer the one"):
        positions.has_change(before, 0, 0, 1)
