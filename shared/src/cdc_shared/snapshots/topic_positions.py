"""Where a snapshot attempt lies in a change topic: from which offset of each partition on, and how far at most.

Everything is asked as of all records, committed or not: a record of the attempt may lie before its transaction's marker
while the notification that followed it can be read already (the markers of one transaction are written partition by
partition).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.errors import Transient
from cdc_shared.kafka.errors import kafka_errors
from cdc_shared.kafka.topics import topic_config, topic_id

TIMEOUT_S: Final = 15.0
# An attempt's first record came 0.3 to 1.7 s after its STARTED, the last of a killed attempt at least 10 s before it.
# What is looked for lies in between; this leaves room for a clock that is set back meanwhile.
CLOCK_MARGIN_MS: Final = 2_000


@dataclass(frozen=True, slots=True)
class AttemptBounds:
    """Bounds of one attempt, by partition.

    Attributes:
        first: no record of the attempt lies before this offset; None when Kafka no longer tells.
        end: every record of the attempt lies before this offset.
    """

    first: Mapping[int, int | None]
    end: Mapping[int, int]

    def before(self, base: int) -> dict[int, int]:
        """Return by row partition, counted from `base`, the offset before which rows are obsolete; 0 for untold."""
        return {base + partition: first or 0 for partition, first in self.first.items()}


class TopicPositions:
    """Asks Kafka. Blocks up to `TIMEOUT_S` a question; not thread-safe. Every method raises `Transient` or `Fatal`."""

    def __init__(self, bootstrap_servers: str) -> None:
        config: dict[str, Any] = {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "cdc.topic-positions",  # librdkafka asks for one; nothing is committed under it
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers})
        self._everything = Consumer(config | {"isolation.level": "read_uncommitted"})
        self._committed = Consumer(config | {"isolation.level": "read_committed", "enable.partition.eof": True})

    def bounds(self, topic: ChangeTopic, started_ms: int) -> AttemptBounds:
        """Return the bounds of the attempt that began at `started_ms`, which must have completed."""
        # With the brokers' clocks in the records, the worker's clock finds nothing in them.
        comparable = topic_config(self._admin, topic.name).get("message.timestamp.type") == "CreateTime"
        firsts: dict[int, int | None] = {}
        ends: dict[int, int] = {}
        for partition in range(topic.partitions):
            low, end = self._held(topic.name, partition)
            found = self._first_since(topic.name, partition, started_ms - CLOCK_MARGIN_MS)
            first = end if found is None else found
            # What retention has dropped may have been the attempt's beginning.
            told = comparable and (low == 0 or first > low)
            firsts[partition] = first if told else None
            ends[partition] = end
        self._check_same(topic)
        return AttemptBounds(firsts, ends)

    def _held(self, topic: str, partition: int) -> tuple[int, int]:
        """Return the first offset that Kafka holds of a partition, and its end, uncommitted records included."""
        with kafka_errors(f"reading the offsets of {topic}[{partition}]"):
            low, high = self._everything.get_watermark_offsets(TopicPartition(topic, partition), TIMEOUT_S)
        return low, high

    def has_change(self, topic: ChangeTopic, partition: int, start: int, end: int) -> bool:
        """Tell whether a committed record in [start, end) could change a row: anything but markers and tombstones."""
        has = start < end and self._holds_value(topic.name, partition, start, end)
        self._check_same(topic)
        return has

    def _holds_value(self, topic: str, partition: int, start: int, end: int) -> bool:
        what = f"reading {topic}[{partition}]"
        with kafka_errors(what):
            self._committed.assign([TopicPartition(topic, partition, start)])
            try:
                while True:
                    message = self._committed.poll(TIMEOUT_S)
                    if message is None:
                        raise Transient(f"{what}: no answer within {TIMEOUT_S:.0f} s")
                    at = int(message.offset() or 0)
                    if (error := message.error()) is not None:
                        if error.code() == KafkaError._PARTITION_EOF:
                            # An open transaction ends the readable part early: its records may come yet.
                            return at < end
                        raise Transient(f"{what}: {error.str()}")
                    if at >= end:
                        return False
                    if message.value() is not None:
                        return True
            finally:
                self._committed.unassign()

    def close(self) -> None:
        """Give the consumers back."""
        self._everything.close()
        self._committed.close()

    def _check_same(self, topic: ChangeTopic) -> None:
        """Raise `Transient` when the answers were of another topic of that name."""
        if topic_id(self._admin, topic.name) != (topic.topic_id, topic.partitions):
            raise Transient(f"topic {topic.name} is no longer the one that the table is filled from")

    def _first_since(self, topic: str, partition: int, time_ms: int) -> int | None:
        with kafka_errors(f"looking for a time in {topic}[{partition}]"):
            (found,) = self._everything.offsets_for_times([TopicPartition(topic, partition, time_ms)], TIMEOUT_S)
            if found.error is not None:
                raise Transient(f"looking for a time in {topic}[{partition}]: {found.error.str()}")
        return int(found.offset) if found.offset >= 0 else None
