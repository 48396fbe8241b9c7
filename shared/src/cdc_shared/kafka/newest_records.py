"""The newest records of a topic, for people who want to see some."""

from collections.abc import Sequence
from contextlib import closing
from time import monotonic
from typing import Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.errors import map_kafka_error
from cdc_shared.kafka.topics import held_offsets, topic_id

READ_TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.1
RECORDS_A_POLL: Final = 500
MARKERS_AND_TOMBSTONES: Final = 3
"""So many offsets are looked at for each record that is wanted: not every one holds a record with a value."""


class Record(NamedTuple):
    """One record with its place."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes


def newest_records(bootstrap_servers: str, topic: str, wanted: int) -> Sequence[Record]:
    """Return about `wanted` of the newest records with a value, newest first of each partition, all partitions alike.

    Fewer when there are fewer within the last few offsets. Raises `UnknownTopic`, `Transient`, `Fatal`.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 5})
    partitions = topic_id(admin, topic).partitions
    each = -(-wanted // partitions) * MARKERS_AND_TOMBSTONES
    held = held_offsets(admin, topic, partitions)
    starts = {p: max(low, high - each) for p, (low, high) in held.items() if high > low}
    if not starts:
        return []
    with closing(_consumer(bootstrap_servers)) as consumer:
        found = _read(consumer, topic, starts)
    newest: list[Record] = []
    for partition in starts:
        newest += [record for record in reversed(found) if record.partition == partition][: -(-wanted // partitions)]
    return newest[:wanted]


def _consumer(bootstrap_servers: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "cdc.newest-records",  # librdkafka asks for one; nothing is committed under it
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 100,
        }
    )


def _read(consumer: Consumer, topic: str, starts: dict[int, int]) -> list[Record]:
    """What the partitions hold from their starts to their ends."""
    consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in starts.items()])
    reading, found = set(starts), list[Record]()
    deadline_s = monotonic() + READ_TIMEOUT_S
    while reading:
        for message in consumer.consume(RECORDS_A_POLL, POLL_S):
            error = message.error()
            if error is None:
                found += _record(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                reading.discard(message.partition() or 0)
            elif isinstance(mapped := map_kafka_error(error, f"read {topic}"), Fatal):
                raise mapped
        if reading and monotonic() > deadline_s:
            raise Transient(f"read {topic}: not at its end within {READ_TIMEOUT_S:.0f} s")
    return found


def _record(message: Message) -> list[Record]:
    value = message.value()
    if value is None:
        return []
    return [Record(message.topic() or "", message.partition() or 0, message.offset() or 0, message.key(), value)]
