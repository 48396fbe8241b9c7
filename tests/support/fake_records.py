"""A topic read from its start, in memory: what `poll` gives, record by record."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition


class FakeMessage:
    def __init__(self, key: bytes | None, value: bytes | None, error: KafkaError | None = None) -> None:
        self._key, self._value, self._error = key, value, error

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def error(self) -> KafkaError | None:
        return self._error

    def offset(self) -> int:
        return 42


class FakeConsumer(Consumer):
    def __init__(self, *messages: FakeMessage) -> None:
        self._messages = list(messages)
        self.assigned: list[TopicPartition] = []
        self.closed = False

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned = partitions

    def poll(self, timeout: float = -1) -> Any:
        return self._messages.pop(0) if self._messages else None

    def close(self) -> None:
        self.closed = True


def record(name: str, value: bytes | None) -> FakeMessage:
    return FakeMessage(name.encode(), value)


def at_end() -> FakeMessage:
    return FakeMessage(None, None, KafkaError(KafkaError._PARTITION_EOF))
