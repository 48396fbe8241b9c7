"""The platform's topics: their names, how they are made, their identity, and the partition that a key belongs to."""

from collections.abc import Mapping
from concurrent.futures import Future
from threading import Event
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.errors import map_kafka_error
from cdc_shared.models.common import SENTINEL_COLLECTION
from cdc_shared.retry import retrying

DEAD_LETTERS_TOPIC = "cdc.dead-letters"
PIPELINES_TOPIC = "cdc.pipelines"
STATUS_TOPIC = "cdc.status"

COMPACTED = {"cleanup.policy": "compact"}
SIGNALS_CONFIG = {"cleanup.policy": "delete", "retention.ms": str(7 * 24 * 3600 * 1000)}
# As Kafka Connect makes change topics by the connector's template; for one that must be there before it does.
CHANGE_TOPIC_CONFIG = {
    "cleanup.policy": "delete",
    "retention.ms": str(7 * 24 * 3600 * 1000),
    "message.timestamp.type": "CreateTime",
    "max.message.bytes": str(90 * 1024 * 1024),
}
# A few hundred bytes a snapshot and a restart. Kept for as long as that takes, so that a writer that was away learns of
# every snapshot; the producer's clock, because a snapshot's records are told by it (docs/adr/0010-snapshot-sweep.md).
NOTIFICATIONS_CONFIG = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": str(64 * 1024 * 1024),
    "message.timestamp.type": "CreateTime",
}

ADMIN_TIMEOUT_S = 15.0

T = TypeVar("T")


class UnknownTopic(Transient):
    """The topic does not exist (yet): Kafka Connect makes a change topic with the collection's first event."""


class TopicIdentity(NamedTuple):
    id: str
    """Kafka's topic id as its tools print it (22 characters): a topic made again under its name has another."""
    partitions: int


def change_topic(pipeline: str, database: str, collection: str) -> str:
    """Debezium's topic for a collection. What a topic's name cannot hold, Debezium replaces with `_`."""
    return _sanitised(f"{pipeline}.{database}.{collection}")


def sentinel_topic(pipeline: str, database: str) -> str:
    """Where the changes of the platform's own collection come: no table, but the watermark is made of it."""
    return change_topic(pipeline, database, SENTINEL_COLLECTION)


def signal_topic(pipeline: str) -> str:
    """Where Debezium's signals for a pipeline's connector are sent; it must have one partition."""
    return f"cdc.signals.{pipeline}"


def notification_topic(pipeline: str) -> str:
    """Where a pipeline's connector tells how its snapshots go; it has one partition."""
    return f"cdc.notifications.{pipeline}"


def ensure_connector_topics(admin: AdminClient, pipeline: str, replication_factor: int = 1) -> None:
    """Make the topics that a pipeline's connector needs before its first event. Raises what `ensure_topic` does."""
    ensure_topic(admin, signal_topic(pipeline), 1, SIGNALS_CONFIG, replication_factor)
    ensure_topic(admin, notification_topic(pipeline), 1, NOTIFICATIONS_CONFIG, replication_factor)


def ensure_topic(
    admin: AdminClient, name: str, partitions: int, config: Mapping[str, str], replication_factor: int = 1
) -> bool:
    """Make the topic, or bring the `config` of one that exists to these values; True when it was made and is usable.

    Raises `Fatal` when it exists with another number of partitions: keys would move, so a person must decide.
    """
    topic = NewTopic(name, num_partitions=partitions, replication_factor=replication_factor, config=dict(config))
    try:
        _done(admin.create_topics([topic], request_timeout=ADMIN_TIMEOUT_S)[name], f"create topic {name}")
    except _TopicExists:
        _check_partitions(topic_id(admin, name), name, partitions)
        _ensure_config(admin, name, config)
        return False
    # A broker answers before it knows the topic itself; whoever asked must be able to use it now.
    retrying(
        lambda: topic_id(admin, name), lambda _: None, Event(), 0.5, first_wait_s=0.02, give_up_after_s=ADMIN_TIMEOUT_S
    )
    return True


def topic_id(admin: AdminClient, topic: str, timeout_s: float = ADMIN_TIMEOUT_S) -> TopicIdentity:
    """The topic's id and number of partitions. Raises `UnknownTopic` when there is none."""
    described = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_s)
    description = _done(described[topic], f"describe topic {topic}")
    # librdkafka spells the id in standard base64, Kafka's own tools in the URL-safe alphabet.
    spelled = str(description.topic_id).rstrip("=").translate(str.maketrans("+/", "-_"))
    return TopicIdentity(spelled, len(description.partitions))


def held_offsets(admin: AdminClient, topic: str, partitions: int) -> dict[int, tuple[int, int]]:
    """For each partition the first offset that Kafka holds, and its end (the next record's offset)."""
    lows, highs = (
        admin.list_offsets(
            {TopicPartition(topic, partition): spec for partition in range(partitions)}, request_timeout=ADMIN_TIMEOUT_S
        )
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
    )
    what = f"read the offsets of {topic}"
    held = {each.partition: _done(future, what).offset for each, future in lows.items()}
    return {each.partition: (held[each.partition], _done(future, what).offset) for each, future in highs.items()}


def topic_config(admin: AdminClient, topic: str) -> Mapping[str, str | None]:
    """The topic's configuration in force, the brokers' defaults included. Raises `UnknownTopic` when there is none."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    described: dict[ConfigResource, Future[dict[str, Any]]] = admin.describe_configs(
        [resource], request_timeout=ADMIN_TIMEOUT_S
    )
    found = _done(described[resource], f"read configuration of topic {topic}")
    return {key: entry.value for key, entry in found.items()}


def partition_for(key: bytes, partitions: int) -> int:
    """The partition that Java's default partitioner gives a keyed record. librdkafka's own default (CRC32) differs."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 (seed 0x9747b28c), unsigned; Java shows the same bits as a signed int."""
    length = len(data)
    h = 0x9747B28C ^ length
    whole = length & ~3
    for offset in range(0, whole, 4):
        k = int.from_bytes(data[offset : offset + 4], "little") * 0x5BD1E995 & 0xFFFFFFFF
        k ^= k >> 24
        h = (h * 0x5BD1E995 & 0xFFFFFFFF) ^ (k * 0x5BD1E995 & 0xFFFFFFFF)
    if whole < length:
        h = (h ^ int.from_bytes(data[whole:], "little")) * 0x5BD1E995 & 0xFFFFFFFF
    h = (h ^ (h >> 13)) * 0x5BD1E995 & 0xFFFFFFFF
    return h ^ (h >> 15)


class _TopicExists(Exception):
    pass


def _done(future: "Future[T]", what: str) -> T:
    """The future's result, its failure as one of the platform's errors."""
    try:
        return future.result(timeout=ADMIN_TIMEOUT_S + 5)
    except KafkaException as error:
        code = error.args[0].code() if error.args and isinstance(error.args[0], KafkaError) else None
        if code == KafkaError.TOPIC_ALREADY_EXISTS:
            raise _TopicExists from None
        if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            raise UnknownTopic(f"{what}: it does not exist") from None
        raise map_kafka_error(error, what) from error
    except TimeoutError as error:
        raise Transient(f"{what}: no answer within {ADMIN_TIMEOUT_S:.0f} s") from error


def _check_partitions(identity: TopicIdentity, name: str, partitions: int) -> None:
    if identity.partitions != partitions:
        raise Fatal(
            f"topic {name} has {identity.partitions} partitions, not {partitions}: set the number back, "
            "or delete the topic and resync what was read from it"
        )


def _ensure_config(admin: AdminClient, name: str, config: Mapping[str, str]) -> None:
    current = topic_config(admin, name)
    different = [
        ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        for key, value in config.items()
        if current.get(key) != value
    ]
    if different:
        change = ConfigResource(ResourceType.TOPIC, name, incremental_configs=different)
        altered = admin.incremental_alter_configs([change], request_timeout=ADMIN_TIMEOUT_S)
        _done(altered[change], f"change configuration of topic {name}")


def _sanitised(topic: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in topic)
