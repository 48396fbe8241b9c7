"""Topics and the spec topic on the running stack's Kafka: identity, repair, Java's partitions, the last word."""

import random
import threading
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient
from stack_endpoints import Stack

from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.compacted_topic import send_record
from cdc_shared.kafka.rules_topic import read_versions
from cdc_shared.kafka.spec_topic import (
    SpecChange,
    SpecReader,
    UnknownPipeline,
    delete_spec,
    publish_spec,
    read_spec,
)
from cdc_shared.kafka.topics import UnknownTopic, ensure_topic, partition_for, topic_id
from cdc_shared.models.common import InvalidSpec, PipelineSpec, SourceSpec

pytestmark = pytest.mark.integration

WAIT_S = 15.0


@pytest.fixture
def admin(stack: Stack) -> AdminClient:
    return AdminClient({"bootstrap.servers": stack.kafka})


@pytest.fixture
def topic(admin: AdminClient) -> Iterator[str]:
    """A name of this test's own; the topic is deleted afterwards, when the test made it."""
    name = f"topics-test-{uuid.uuid4().hex[:12]}"
    yield name
    if name in admin.list_topics(timeout=WAIT_S).topics:
        admin.delete_topics([name])[name].result(WAIT_S)


def spec(name: str, database: str = "d") -> PipelineSpec:
    return PipelineSpec(name=name, source=SourceSpec(connection="env:X", database=database))


def test_a_topic_is_made_once_repaired_and_told_from_its_successor(admin: AdminClient, topic: str) -> None:
    with pytest.raises(UnknownTopic):
        topic_id(admin, topic)
    assert ensure_topic(admin, topic, 2, {"cleanup.policy": "delete"}) is True
    first = topic_id(admin, topic)
    assert first.partitions == 2
    assert ensure_topic(admin, topic, 2, {"cleanup.policy": "compact"}) is False
    assert topic_id(admin, topic) == first
    with pytest.raises(Fatal, match="has 2 partitions, not 3"):
        ensure_topic(admin, topic, 3, {})
    admin.delete_topics([topic])[topic].result(WAIT_S)
    ensure_topic(admin, topic, 2, {})
    assert topic_id(admin, topic).id != first.id


def test_a_setting_that_kafka_refuses_is_explained(admin: AdminClient, topic: str) -> None:
    with pytest.raises(Fatal, match="correct the topic's configuration"):
        ensure_topic(admin, topic, 1, {"no.such.setting": "1"})


def test_keys_go_where_javas_partitioner_sends_them(
    stack: Stack, admin: AdminClient, topic: str, rng: random.Random
) -> None:
    """librdkafka's own murmur2 stands for Java's; the unit tests hold both to Java's values."""
    ensure_topic(admin, topic, 7, {})
    placed: list[tuple[int | None, int]] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        assert error is None
        placed.append((message.partition(), partition_for(message.key() or b"", 7)))

    producer = Producer({"bootstrap.servers": stack.kafka, "partitioner": "murmur2_random"})
    for _ in range(1000):
        producer.produce(topic, key=rng.randbytes(rng.randint(1, 40)), value=b"", on_delivery=delivered)
    assert producer.flush(WAIT_S) == 0
    assert len(placed) == 1000
    assert all(there == here for there, here in placed)


def test_reading_makes_no_topic(stack: Stack, admin: AdminClient, topic: str) -> None:
    with pytest.raises(UnknownPipeline, match=f"has no topic {topic}"):
        read_spec(stack.kafka, "shop", topic)
    assert read_versions(stack.kafka, "shop", topic) == {}
    assert topic not in admin.list_topics(timeout=WAIT_S).topics


def test_a_kafka_that_is_not_there_is_named_with_its_setting() -> None:
    with pytest.raises(Transient, match=r"127\.0\.0\.1:9 .*refused.*correct KAFKA_BOOTSTRAP_SERVERS"):
        read_spec("127.0.0.1:9", "shop")


def test_a_reader_sees_the_last_word_then_follows_and_survives_rubbish(stack: Stack, topic: str) -> None:
    publish_spec(stack.kafka, spec("shop", "old"), topic=topic)
    publish_spec(stack.kafka, spec("crm"), topic=topic)
    publish_spec(stack.kafka, spec("shop", "new"), topic=topic)
    delete_spec(stack.kafka, "crm", topic=topic)
    send_record(Producer({"bootstrap.servers": stack.kafka}), topic, b"shop", b"{not json")
    invalid: list[str] = []

    def on_invalid(name: str, error: InvalidSpec) -> None:
        invalid.append(f"{name}: {error}")

    stop = threading.Event()
    timer = threading.Timer(WAIT_S, stop.set)
    timer.start()
    with SpecReader.open(stack.kafka, on_invalid, topic=topic) as reader:
        assert reader.read_existing(stop) == {"shop": spec("shop", "new")}
        assert len(invalid) == 1
        assert invalid[0].startswith("shop: ")
        publish_spec(stack.kafka, spec("late"), topic=topic)
        assert next(reader.changes(stop), None) == SpecChange("late", spec("late"))
        delete_spec(stack.kafka, "shop", topic=topic)
        assert next(reader.changes(stop), None) == SpecChange("shop", None)
    timer.cancel()
