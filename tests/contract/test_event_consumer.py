"""What a pipeline may rely on of its consumer, held against the real one and the fake that unit tests use."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from fake_kafka import FakeKafka
from stack_endpoints import Stack
from waiting import wait_until

from cdc_shared.kafka.partition_ends import written_ends
from cdc_shared.kafka.topics import ensure_topic
from delta_writer.consumer.event_consumer import EventConsumer, PartitionEnd, consumer_config

pytestmark = pytest.mark.contract

READ_TIMEOUT_S = 30.0
SESSION_TIMEOUT_S = 10.0


class Broker(Protocol):
    """One topic, and how to join a group on it."""

    topic: str

    def send(self, values: list[bytes]) -> None: ...

    def join(self, start_at: int) -> Any: ...


class FakeBroker:
    def __init__(self) -> None:
        self.topic = "p.db.things"
        self._kafka = FakeKafka(when_drained=lambda: None)

    def send(self, values: list[bytes]) -> None:
        for value in values:
            self._kafka.send_raw(b"k", value, self.topic)

    def join(self, start_at: int) -> Any:
        return self._kafka.open(lambda *_: start_at, lambda _: None)


class RealBroker:
    def __init__(self, stack: Stack, cleanup: ExitStack) -> None:
        self._stack, self._cleanup = stack, cleanup
        self._pipeline = f"contract-{uuid.uuid4().hex[:10]}"
        self.topic = f"{self._pipeline}.db.things"
        admin = AdminClient({"bootstrap.servers": stack.kafka})
        ensure_topic(admin, self.topic, 1, {})
        cleanup.callback(lambda: admin.delete_topics([self.topic])[self.topic].result())

    def send(self, values: list[bytes]) -> None:
        producer = Producer({"bootstrap.servers": self._stack.kafka})
        for value in values:
            producer.produce(self.topic, value, b"k", partition=0)
        assert producer.flush(READ_TIMEOUT_S) == 0

    def join(self, start_at: int) -> Any:
        config = consumer_config(self._stack.kafka, self._pipeline, SESSION_TIMEOUT_S, None)
        consumer = EventConsumer(config, self._pipeline, lambda *_: start_at, lambda _: None)
        self._cleanup.callback(consumer.close)
        return consumer


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    with ExitStack() as cleanup:
        yield FakeBroker() if request.param == "fake" else RealBroker(request.getfixturevalue("stack"), cleanup)


def read(consumer: Any, count: int) -> list[tuple[int, bytes]]:
    """Poll until `count` records have come."""
    found: list[tuple[int, bytes]] = []

    def enough() -> bool:
        polled = [each for each in consumer.poll(0.1) if not isinstance(each, PartitionEnd)]
        found.extend((record.offset(), record.value()) for record in polled)
        return len(found) >= count

    wait_until(enough, READ_TIMEOUT_S, f"{count} records are read")
    return found


def read_to_end(consumer: Any, offset: int) -> list[int]:
    """Poll until the partition's end is told to be at the offset; the offsets of the records that came before."""
    found: list[int] = []

    def at_end() -> bool:
        for each in consumer.poll(0.1):
            if isinstance(each, PartitionEnd):
                assert each.offset <= offset, "an end further than there is anything"
                if each.offset == offset:
                    return True
            else:
                found.append(each.offset())
        return False

    wait_until(at_end, READ_TIMEOUT_S, f"the end at {offset} is told")
    return found


def values(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


def test_reading_begins_where_it_is_told(broker: Broker) -> None:
    broker.send(values(0, 1, 2, 3))
    assert read(broker.join(2), 2) == [(2, b"2"), (3, b"3")]


def test_a_seek_reads_again(broker: Broker) -> None:
    broker.send(values(0, 1, 2))
    consumer = broker.join(0)
    assert len(read(consumer, 3)) == 3
    consumer.seek(broker.topic, 0, 1)
    assert read(consumer, 2) == [(1, b"1"), (2, b"2")]


def test_waiting_loses_nothing(broker: Broker) -> None:
    broker.send(values(0, 1))
    consumer = broker.join(0)
    assert len(read(consumer, 2)) == 2
    broker.send(values(2, 3))
    for _ in range(5):
        consumer.keep_alive(0.2)
    assert read(consumer, 2) == [(2, b"2"), (3, b"3")]


def test_what_kafka_holds_and_how_far_the_end_is(broker: Broker) -> None:
    broker.send(values(0, 1, 2))
    consumer = broker.join(0)
    read(consumer, 3)
    assert consumer.held(broker.topic, 0) == (0, 3)
    assert consumer.lag(broker.topic, 0, 1) == 2


def test_a_hint_is_never_read(broker: Broker) -> None:
    broker.send(values(0, 1, 2))
    consumer = broker.join(0)
    read(consumer, 3)
    consumer.hint_offsets({(broker.topic, 0): 3})
    consumer.close()
    assert [offset for offset, _ in read(broker.join(1), 2)] == [1, 2]


def test_the_end_is_told_when_it_is_reached(broker: Broker) -> None:
    broker.send(values(0, 1, 2))
    consumer = broker.join(1)
    assert read_to_end(consumer, 3) == [1, 2]
    broker.send(values(3))
    assert read_to_end(consumer, 4) == [3]
    consumer.seek(broker.topic, 0, 2)
    assert read_to_end(consumer, 4) == [2, 3]


@pytest.fixture
def real(stack: Stack) -> Iterator[RealBroker]:
    with ExitStack() as cleanup:
        yield RealBroker(stack, cleanup)


@pytest.mark.integration
def test_an_end_that_was_reached_is_told_again_after_a_pause_and_nothing_is_skipped(real: RealBroker) -> None:
    """Attacks I2: the watermark of a quiet table rests on the end; librdkafka counts it as a record that was taken."""
    real.send(values(0))
    consumer = real.join(0)
    assert read_to_end(consumer, 1) == [0]
    consumer.keep_alive(0.3)
    assert read_to_end(consumer, 1) == []
    consumer.keep_alive(0.3)
    real.send(values(1))
    assert read_to_end(consumer, 2) == [1]


@pytest.mark.integration
def test_an_open_transaction_is_written_but_not_at_the_end_and_its_marker_is(real: RealBroker, stack: Stack) -> None:
    """Attacks I12: what is behind the last stable offset is never taken for read, and claims reach beyond it."""
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    producer = Producer({"bootstrap.servers": stack.kafka, "transactional.id": real.topic})
    producer.init_transactions(READ_TIMEOUT_S)

    def write(value: bytes) -> None:
        producer.begin_transaction()
        producer.produce(real.topic, value, b"k", partition=0)
        assert producer.flush(READ_TIMEOUT_S) == 0

    consumer = real.join(0)
    assert read_to_end(consumer, 0) == []
    write(b"0")
    assert written_ends(admin, [(real.topic, 0), (f"{real.topic}.none", 0)]) == {(real.topic, 0): 1}
    assert consumer.held(real.topic, 0) == (0, 0)
    consumer.seek(real.topic, 0, 0)
    assert read_to_end(consumer, 0) == []
    producer.commit_transaction(READ_TIMEOUT_S)
    assert read_to_end(consumer, 2) == [0]
    write(b"aborted")
    producer.abort_transaction(READ_TIMEOUT_S)
    assert read_to_end(consumer, 4) == []
    assert (written_ends(admin, [(real.topic, 0)]), consumer.held(real.topic, 0)) == ({(real.topic, 0): 4}, (0, 4))
    assert consumer.lag(real.topic, 0, 4) == 0


@pytest.mark.integration
def test_the_sentinels_topic_is_no_collections(real: RealBroker, stack: Stack) -> None:
    """The group is given every topic of the pipeline but that one, also those whose names look like it."""
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    pipeline, _, _ = real.topic.split(".")
    sentinel, alike = f"{pipeline}.db.cdc_heartbeat", f"{pipeline}.db.my.cdc_heartbeat"
    for topic in (sentinel, alike):
        ensure_topic(admin, topic, 1, {})
    consumer = real.join(0)
    try:
        wait_until(
            lambda: consumer.poll(0.1) is None or len(consumer.assigned()) > 1, READ_TIMEOUT_S, "all is assigned"
        )
        assert sorted(topic for topic, _ in consumer.assigned()) == sorted([real.topic, alike])
    finally:
        for future in admin.delete_topics([sentinel, alike]).values():
            future.result()
