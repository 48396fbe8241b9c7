"""Kafka for unit tests: topics of one partition in memory, and a consumer that keeps `EventConsumer`'s promises.

`tests/contract/test_event_consumer.py` holds this fake and the real consumer to the same promises.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from cdc_shared.kafka.topics import TopicIdentity
from delta_writer.consumer.event_consumer import OnAssigned, OnRevoked, PartitionEnd

TOPIC = "p.db.things"
SOURCE = {"ts_ms": 1_700_000_000_000, "db": "db", "collection": "things"}


class FakeRecord:
    """A consumed message of partition 0."""

    def __init__(self, topic: str, offset: int, key: bytes | None, value: bytes | None) -> None:
        self._topic, self._offset, self._key, self._value = topic, offset, key, value

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes]]:
        return [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]


class FakeKafka:
    """The topics. `when_drained` is called whenever a consumer finds nothing more to read."""

    def __init__(self, when_drained: Callable[[], None]) -> None:
        self.when_drained = when_drained
        self.topics: dict[str, list[FakeRecord]] = {}
        self.ids: dict[str, str] = {}
        self.low = 0
        self.records_a_poll = 1_000_000

    def send(
        self,
        key: str,
        op: str,
        document: Mapping[str, Any] | None,
        *,
        topic: str = TOPIC,
        source: Mapping[str, Any] = SOURCE,
    ) -> None:
        """Append a change event."""
        after = None if document is None else json.dumps(document)
        value = {"op": op, "after": after, "source": source}
        self.send_raw(json.dumps({"id": key}).encode(), json.dumps(value).encode(), topic)

    def send_raw(self, key: bytes | None, value: bytes | None, topic: str = TOPIC) -> None:
        """Append a record as it is."""
        records = self.topics.setdefault(topic, [])
        self.ids.setdefault(topic, f"id-{topic}")
        records.append(FakeRecord(topic, len(records), key, value))

    def describe(self, topic: str) -> TopicIdentity:
        """What `topics.topic_id` says of the topic."""
        return TopicIdentity(self.ids[topic], 1)

    def open(self, on_assigned: OnAssigned, on_revoked: OnRevoked) -> FakeConsumer:
        """A member that is assigned every topic at once."""
        return FakeConsumer(self, on_assigned)


class FakeConsumer:
    """See `delta_writer.consumer.event_consumer.EventConsumer`."""

    def __init__(self, kafka: FakeKafka, on_assigned: OnAssigned) -> None:
        self._kafka = kafka
        self._positions = {topic: on_assigned(topic, 0, partial(self.held, topic, 0)) for topic in kafka.topics}

    def poll(self, timeout_s: float) -> list[FakeRecord | PartitionEnd]:
        for topic, records in self._kafka.topics.items():
            position = self._positions[topic]
            if rest := records[position : position + self._kafka.records_a_poll]:
                self._positions[topic] += len(rest)
                at_end = self._positions[topic] == len(records)
                return [*rest, PartitionEnd(topic, 0, len(records))] if at_end else [*rest]
        self._kafka.when_drained()
        return []

    def keep_alive(self, seconds: float) -> None:
        time.sleep(seconds)

    def assigned(self) -> list[tuple[str, int]]:
        return [(topic, 0) for topic in self._positions]

    def seek(self, topic: str, partition: int, offset: int) -> None:
        self._positions[topic] = offset

    def held(self, topic: str, partition: int) -> tuple[int, int]:
        return self._kafka.low, len(self._kafka.topics[topic])

    def lag(self, topic: str, partition: int, offset: int) -> int:
        return len(self._kafka.topics[topic]) - offset

    def hint_offsets(self, offsets: Mapping[tuple[str, int], int]) -> None:
        pass

    def close(self) -> None:
        pass
