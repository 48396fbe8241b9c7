"""Topics: Java's partitioner to the bit, and what each answer of Kafka's administration means."""

from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.topics import (
    TopicIdentity,
    UnknownTopic,
    change_topic,
    ensure_topic,
    murmur2,
    partition_for,
    signal_topic,
    topic_id,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("data", "java"),
    [  # from org.apache.kafka.common.utils.UtilsTest
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(data: bytes, java: int) -> None:
    assert murmur2(data) == java & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("key", "java", "partition_of_7"),
    [  # printed by Utils.murmur2 and BuiltInPartitioner.partitionForKey of kafka-clients 4.3.1: every length modulo 4
        ("", 275646681, 2),
        ("99170f", -993176329, 4),
        ("183477a35a94", -1644846997, 6),
        ("390b770209d32a595d", 465795891, 1),
        ("41f4b3e592471abe05194bb5", -994799817, 5),
        ("5dcab3910016175aa147e1f3e98ee8", 1102364493, 6),
        ("df7fae40bfe793d9fced52b202e34d15e5c4", -1427321629, 3),
        ("166fc2edcea4fb1b65e240a4e944b31d0705e6c8b7", -562653982, 0),
        ("fc97c696693058b22edd1479f1953297e1c82141a6a46d99", 1081536217, 6),
        ("364cf461b317c99fee614cc5a74b029f8f814e38d93995b694aa21", 2095858812, 5),
        ("847891d75da8ddddc46434afeb50781ae04364f9b3a3f3707eab79470ba3", 1720957717, 3),
        ("b66c499800da641a22a420ee9989ec985901e416c9c38fbf7ae22a00a4174c64b5", 334039479, 4),
    ],
)
def test_partitions_are_javas(key: str, java: int, partition_of_7: int) -> None:
    data = bytes.fromhex(key)
    assert murmur2(data) == java & 0xFFFFFFFF
    assert partition_for(data, 7) == partition_of_7
    assert partition_for(data, 1) == 0


def test_topic_names() -> None:
    assert change_topic("shop", "shop", "order.items") == "shop.shop.order.items"
    assert change_topic("shop", "my-db", "a b/ü") == "shop.my-db.a_b__"
    assert signal_topic("shop") == "cdc.signals.shop"


class FakeUuid:
    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


class FakeDescription:
    def __init__(self, topic_id: str, partitions: int) -> None:
        self.topic_id = FakeUuid(topic_id)
        self.partitions = [object()] * partitions


class FakeEntry:
    def __init__(self, value: str) -> None:
        self.value = value


class FakeAdmin(AdminClient):
    """Kafka's administration as one topic sees it; a KafkaError is answered to whatever it is set for."""

    def __init__(self, partitions: int | None = None, config: dict[str, str] | None = None) -> None:
        self.partitions = partitions
        self.config = config or {}
        self.errors: dict[str, KafkaError] = {}
        self.altered: dict[str, str] = {}
        self.propagation = 0
        """How many times a topic just made is still unknown to the broker that describes it."""
        self.unseen = 0

    def _answer(self, call: str, value: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        if call in self.errors:
            future.set_exception(KafkaException(self.errors[call]))
        else:
            future.set_result(value)
        return future

    def create_topics(self, new_topics: Any, **_: Any) -> Any:  # type: ignore[override]
        (topic,) = new_topics
        if self.partitions is not None:
            self.errors["create"] = KafkaError(KafkaError.TOPIC_ALREADY_EXISTS)
        elif "create" not in self.errors:
            self.partitions, self.config = topic.num_partitions, dict(topic.config)
            self.unseen = self.propagation
        return {topic.topic: self._answer("create", None)}

    def describe_topics(self, topics: Any, **_: Any) -> Any:  # type: ignore[override]
        self.unseen -= 1
        self.errors.pop("describe", None)
        if self.partitions is None or self.unseen >= 0:
            self.errors["describe"] = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
        description = FakeDescription("/MPd+EuDQ/GMoP0efTD4Ig==", self.partitions or 0)
        return {"t": self._answer("describe", description)}

    def describe_configs(self, resources: Any, **_: Any) -> Any:  # type: ignore[override]
        return {resources[0]: self._answer("configs", {name: FakeEntry(v) for name, v in self.config.items()})}

    def incremental_alter_configs(self, resources: Any, **_: Any) -> Any:  # type: ignore[override]
        self.altered = {entry.name: entry.value for entry in resources[0].incremental_configs}
        return {resources[0]: self._answer("alter", None)}


def test_a_missing_topic_is_made_with_its_configuration() -> None:
    admin = FakeAdmin()
    assert ensure_topic(admin, "t", 3, {"cleanup.policy": "compact"}) is True
    assert (admin.partitions, admin.config) == (3, {"cleanup.policy": "compact"})


def test_a_new_topic_is_usable_when_ensure_returns() -> None:
    admin = FakeAdmin()
    admin.propagation = 3
    assert ensure_topic(admin, "t", 3, {}) is True
    assert topic_id(admin, "t").partitions == 3


def test_a_topic_that_is_right_is_left_alone() -> None:
    admin = FakeAdmin(3, {"cleanup.policy": "compact", "retention.ms": "1"})
    assert ensure_topic(admin, "t", 3, {"cleanup.policy": "compact"}) is False
    assert admin.altered == {}


def test_a_topic_that_a_broker_made_by_itself_is_corrected() -> None:
    admin = FakeAdmin(1, {"cleanup.policy": "delete", "retention.ms": "1"})
    assert ensure_topic(admin, "t", 1, {"cleanup.policy": "compact", "retention.ms": "1"}) is False
    assert admin.altered == {"cleanup.policy": "compact"}


def test_another_number_of_partitions_is_for_a_person_to_decide() -> None:
    admin = FakeAdmin(4)
    with pytest.raises(Fatal, match="topic t has 4 partitions, not 1"):
        ensure_topic(admin, "t", 1, {"cleanup.policy": "compact"})
    assert admin.altered == {}


def test_the_topic_id_is_spelled_as_kafkas_tools_spell_it() -> None:
    assert topic_id(FakeAdmin(2), "t") == TopicIdentity("_MPd-EuDQ_GMoP0efTD4Ig", 2)


def test_an_unknown_topic_may_come_yet() -> None:
    with pytest.raises(UnknownTopic, match="topic t: it does not exist"):
        topic_id(FakeAdmin(), "t")


@pytest.mark.parametrize(
    ("code", "kind", "part"),
    [
        (KafkaError._TRANSPORT, Transient, "create topic t"),
        (KafkaError._TIMED_OUT, Transient, "create topic t"),
        (KafkaError.NOT_CONTROLLER, Transient, "create topic t"),
        (KafkaError.INVALID_REPLICATION_FACTOR, Fatal, "replication factor"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, Fatal, "grant"),
        (KafkaError.TOPIC_EXCEPTION, Fatal, "249"),
    ],
)
def test_errors_by_kind(code: int, kind: type[Exception], part: str) -> None:
    admin = FakeAdmin()
    admin.errors["create"] = KafkaError(code)
    with pytest.raises(kind, match=part):
        ensure_topic(admin, "t", 1, {})
