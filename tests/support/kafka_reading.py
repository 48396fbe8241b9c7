"""Reading a topic from a test."""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

READ_TIMEOUT_S = 20.0


def end_offset(bootstrap_servers: str, topic: str) -> int:
    """The offset that the next record of partition 0 gets."""
    consumer = _consumer(bootstrap_servers)
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, 0), READ_TIMEOUT_S)[1])
    finally:
        consumer.close()


def records_since(bootstrap_servers: str, topic: str, offset: int, partition: int = 0) -> list[Message]:
    """Every committed record of the partition from `offset` up to the end as it is now."""
    consumer = _consumer(bootstrap_servers)
    try:
        end = int(consumer.get_watermark_offsets(TopicPartition(topic, partition), READ_TIMEOUT_S)[1])
        consumer.assign([TopicPartition(topic, partition, offset)])
        deadline = time.monotonic() + READ_TIMEOUT_S
        records: list[Message] = []
        at_end = offset >= end
        while not at_end:
            assert time.monotonic() < deadline, f"{topic} was not read up to {end} in time"
            for message in consumer.consume(500, 0.1):
                # The last offsets may be transactions' markers, which only the partition's end tells of.
                at_end |= _is_end(message) or (message.offset() or 0) >= end - 1
                if message.error() is None and (message.offset() or 0) < end:
                    records.append(message)
        return records
    finally:
        consumer.close()


def headers_of(message: Message) -> dict[str, bytes | None]:
    """A consumed record's headers; its values are bytes, whatever the stubs allow for one that is to be produced."""
    headers: list[Any] = list(message.headers() or [])
    return dict(headers)


def _consumer(bootstrap_servers: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "cdc-tests",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )


def _is_end(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF
