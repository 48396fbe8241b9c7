"""A change topic recorded in a file, and a group of consumers of it whose partitions a test hands out by a file.

What `EventConsumer` promises the pipeline, these keep, in as many processes as a test likes and without a broker: so a
process can be killed and started again in a few milliseconds. Members learn of a new assignment inside `poll`, each at
its own time: a partition may have two owners for a while, as when a zombie wakes up.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from delta_writer.consumer.event_consumer import OnAssigned, OnRevoked

MAX_RECORDS_A_POLL = 15
EMPTY_POLL_S = 0.01
TOPIC_ID = "recorded"


class RecordedRecord(msgspec.Struct, array_like=True, frozen=True):
    """One record with its place."""

    at_partition: int
    at_offset: int
    key_bytes: bytes | None
    value_bytes: bytes | None


class RecordedMessage:
    """A record as confluent_kafka gives it."""

    def __init__(self, topic: str, record: RecordedRecord) -> None:
        self._topic = topic
        self._record = record

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._record.at_partition

    def offset(self) -> int:
        return self._record.at_offset

    def key(self) -> bytes | None:
        return self._record.key_bytes

    def value(self) -> bytes | None:
        return self._record.value_bytes

    def headers(self) -> None:
        return None


class _Recording(msgspec.Struct):
    ends: list[int]
    records: list[list[RecordedRecord]]


@dataclass(frozen=True, slots=True)
class RecordedTopic:
    """The files of a topic in `directory`: its records, and who reads which partitions."""

    name: str
    directory: Path

    def record(self, ends: Sequence[int], records: Sequence[Sequence[RecordedRecord]]) -> None:
        """Write each partition's records and its end (offsets may have gaps, the last ones too)."""
        recording = _Recording(list(ends), [list(each) for each in records])
        self._records_file.write_bytes(msgspec.msgpack.encode(recording))

    def read(self) -> _Recording:
        """What was recorded."""
        return msgspec.msgpack.decode(self._records_file.read_bytes(), type=_Recording)

    def assign(self, owners: Mapping[str, Sequence[int]]) -> None:
        """Hand the partitions out: member → partitions."""
        partial_file = self._owners_file.with_suffix(".partial")
        partial_file.write_text(json.dumps({member: sorted(partitions) for member, partitions in owners.items()}))
        partial_file.replace(self._owners_file)

    def assignment(self, member: str) -> frozenset[int]:
        """The partitions that a member shall read."""
        return frozenset(json.loads(self._owners_file.read_text()).get(member, ()))

    @property
    def _records_file(self) -> Path:
        return self.directory / "topic.msgpack"

    @property
    def _owners_file(self) -> Path:
        return self.directory / "owners.json"


class RecordedConsumer:
    """See `delta_writer.consumer.event_consumer.EventConsumer`. `when_drained`: called when nothing is left to read,
    or `at_most` so many records have been read."""

    def __init__(
        self,
        topic: RecordedTopic,
        member: str,
        rng: random.Random,
        when_drained: Callable[[], None],
        on_assigned: OnAssigned,
        on_revoked: OnRevoked,
        *,
        at_most: int | None = None,
    ) -> None:
        self._topic = topic
        self._member = member
        self._rng = rng
        self._when_drained = when_drained
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._recording = topic.read()
        self._left = sys.maxsize if at_most is None else at_most
        self._positions: dict[int, int] = {}

    def poll(self, timeout_s: float) -> list[RecordedMessage]:
        self._rebalance()
        messages: list[RecordedMessage] = []
        partitions = list(self._positions)
        self._rng.shuffle(partitions)
        for partition in partitions:
            most = min(self._left - len(messages), self._rng.randint(1, MAX_RECORDS_A_POLL))
            messages += self._fetch(partition, most)
            if self._rng.random() < 0.5 and messages:
                break
        self._left -= len(messages)
        if not messages:
            self._when_drained()
            time.sleep(min(timeout_s, EMPTY_POLL_S))
        return messages

    def keep_alive(self, seconds: float) -> None:
        self._rebalance()
        time.sleep(seconds)

    def assigned(self) -> list[tuple[str, int]]:
        return [(self._topic.name, partition) for partition in self._positions]

    def seek(self, topic: str, partition: int, offset: int) -> None:
        assert partition in self._positions, f"seek of {topic}[{partition}], which {self._member} does not read"
        self._positions[partition] = offset

    def held(self, topic: str, partition: int) -> tuple[int, int]:
        return 0, self._recording.ends[partition]

    def lag(self, topic: str, partition: int, offset: int) -> int:
        return self._recording.ends[partition] - offset

    def hint_offsets(self, offsets: Mapping[tuple[str, int], int]) -> None:
        pass

    def close(self) -> None:
        self._revoke(set(self._positions))

    def _fetch(self, partition: int, most: int) -> list[RecordedMessage]:
        found: list[RecordedMessage] = []
        records = self._recording.records[partition]
        # Offsets have gaps, so a record's place is at or before its offset.
        start = min(self._positions[partition], len(records))
        while start > 0 and records[start - 1].at_offset >= self._positions[partition]:
            start -= 1
        for record in records[start : start + most]:
            found.append(RecordedMessage(self._topic.name, record))
            self._positions[partition] = record.at_offset + 1
        return found

    def _rebalance(self) -> None:
        mine = self._topic.assignment(self._member)
        if mine == self._positions.keys():
            return
        self._revoke(self._positions.keys() - mine)
        for partition in sorted(mine - self._positions.keys()):
            held = partial(self.held, self._topic.name, partition)
            self._positions[partition] = self._on_assigned(self._topic.name, partition, held)

    def _revoke(self, partitions: set[int]) -> None:
        if not partitions:
            return
        self._on_revoked([(self._topic.name, partition) for partition in sorted(partitions)])
        for partition in partitions:
            del self._positions[partition]
