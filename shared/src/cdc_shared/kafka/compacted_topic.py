"""Compacted topics of one partition, which serve as small stores: the last record of a key is its value."""

from collections.abc import Iterator
from time import monotonic
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc_shared.errors import Transient
from cdc_shared.kafka.errors import map_kafka_error
from cdc_shared.kafka.topics import COMPACTED, UnknownTopic, ensure_topic, topic_id
from cdc_shared.logging.redaction import redact_text

PUBLISH_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 30.0
CONTACT_TIMEOUT_S = 8.0
"""So long a broker may take to say whether it has a topic, the connection included."""
POLL_S = 0.5


def ensure_compacted(bootstrap_servers: str, topic: str, replication_factor: int = 1) -> None:
    """Make the topic, compacted, when it is missing; compact it when a broker made it by itself."""
    ensure_topic(AdminClient({"bootstrap.servers": bootstrap_servers}), topic, 1, COMPACTED, replication_factor)


def has_topic(bootstrap_servers: str, topic: str) -> bool:
    """Whether the topic exists; for those who only read, and so do not make it.

    Raises `Transient` that names the servers and their setting when Kafka does not answer, and what `topic_id` raises.
    """
    heard: list[str] = []
    config: dict[str, Any] = {
        "bootstrap.servers": bootstrap_servers,
        # What the client would log many times a second is told once, in the error.
        "log_level": 0,
        "error_cb": lambda error: heard.append(error.str()),
    }
    admin = AdminClient(config)
    try:
        topic_id(admin, topic, CONTACT_TIMEOUT_S)
    except UnknownTopic:
        return False
    except Transient as error:
        admin.poll(0)  # calls `error_cb`
        why = redact_text(heard[0]) if heard else str(error)
        raise Transient(
            f"Kafka does not answer at {bootstrap_servers} ({why}): start it, or correct KAFKA_BOOTSTRAP_SERVERS"
        ) from None
    return True


def publish_record(
    bootstrap_servers: str, topic: str, key: bytes, value: bytes | None, replication_factor: int = 1
) -> None:
    """Set a key's value, None to delete it, in a topic that is made when it is missing; returns once every in-sync
    replica has it. Raises `Transient` or `Fatal`."""
    ensure_compacted(bootstrap_servers, topic, replication_factor)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "message.timeout.ms": int(PUBLISH_TIMEOUT_S * 1000),
        }
    )
    send_record(producer, topic, key, value)


def send_record(producer: Producer, topic: str, key: bytes, value: bytes | None) -> None:
    """Send one record to partition 0 and wait for its acknowledgement. Raises `Transient` or `Fatal`."""
    what = f"publish {key.decode()} to {topic}"
    failures: list[KafkaError] = []
    acknowledged: list[Message] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append(error)
        else:
            acknowledged.append(message)

    try:
        producer.produce(topic, key=key, value=value, partition=0, on_delivery=delivered)
    except (KafkaException, BufferError) as error:
        if isinstance(error, BufferError):
            raise Transient(f"{what}: the producer's queue is full") from error
        raise map_kafka_error(error, what) from error
    producer.flush(PUBLISH_TIMEOUT_S + 5)
    if failures:
        raise map_kafka_error(failures[0], what)
    if not acknowledged:
        raise Transient(f"{what}: no acknowledgement within {PUBLISH_TIMEOUT_S:.0f} s")


def whole_topic_consumer(bootstrap_servers: str) -> Consumer:
    """Return a consumer without a group for a topic that is to be read from its start; it tells of the end."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "cdc.spec-reader",  # librdkafka asks for one; nothing is committed under it
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100,  # the end is told when a fetch comes back with nothing
            # Compaction may remove the offset that was to be read next; the whole topic is its own snapshot.
            "auto.offset.reset": "earliest",
        }
    )


def records(consumer: Consumer, topic: str) -> Iterator[Message]:
    """Yield every record that the topic holds now, by a `whole_topic_consumer`. Raises `Transient` or `Fatal`."""
    deadline_s = monotonic() + READ_TIMEOUT_S
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    while True:
        message = consumer.poll(POLL_S)
        error = None if message is None else message.error()
        if message is not None and error is None:
            yield message
        elif error is not None and error.code() == KafkaError._PARTITION_EOF:
            return
        elif error is not None and not isinstance(mapped := map_kafka_error(error, f"read {topic}"), Transient):
            raise mapped
        elif monotonic() > deadline_s:
            raise Transient(f"read {topic}: not at its end within {READ_TIMEOUT_S:.0f} s")
