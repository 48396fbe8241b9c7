"""Collects records per topic into batches that close on rows, bytes or time, whichever comes first.

It also remembers how far each partition is committed: a batch that changes no row is not worth a commit of its own, so
its range simply becomes part of the next one, and is committed alone only after `IDLE_COMMIT_S`. What is known of the
source's time rides with the next batch that reaches far enough (`watermark.claims`); a quiet topic makes one for it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Message

from cdc_shared.delta.offsets import OffsetRange
from cdc_shared.models.common import BatchSpec
from delta_writer.consumer.event_consumer import PartitionEnd
from delta_writer.watermark.claims import Claims

IDLE_COMMIT_S: Final = 60.0
MAX_ALONE_AT_ONCE: Final = 8
"""Commits without records that are made in one go: those of a thousand quiet tables must not hold up a busy one."""


@dataclass(slots=True)
class RecordBatch:
    """Records of one topic, as parallel lists in the order of arrival (offset order within a partition).

    Attributes:
        ranges: the offsets that the batch covers for each partition, from where the table stands.
        size_bytes: keys and values as consumed.
        opened_at: the clock's reading when the first record came, in seconds.
        headers: of the first record: the trace that the batch goes on with.
        must_commit: its offsets are to be committed even when no row changes.
        watermarks: partition → source time in ms: with these ranges, everything strictly before it is in.
    """

    topic: str
    opened_at: float
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    partitions: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    ranges: dict[int, OffsetRange] = field(default_factory=dict)
    headers: list[tuple[str, bytes | None]] | None = None
    size_bytes: int = 0
    must_commit: bool = False
    watermarks: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(slots=True)
class _Position:
    committed: int
    """The table stands here: where the next range begins."""
    next: int
    """The next offset to take from Kafka."""


class BatchProcessor:
    """The open batch of each topic. `clock` is monotonic, in seconds. Batches of one topic are taken one at a time."""

    def __init__(self, limits: BatchSpec, clock: Callable[[], float], claims: Claims | None = None) -> None:
        """`claims` is what the batches' watermarks come from; somebody else fills it."""
        self._limits = limits
        self._clock = clock
        self._claims = Claims() if claims is None else claims
        self._open: dict[str, RecordBatch] = {}
        self._positions: dict[str, dict[int, _Position]] = {}
        self._idle_since: dict[str, float] = {}

    def start_at(self, topic: str, partition: int, offset: int) -> None:
        """The table stands at `offset`: the partition was assigned, or is read again from there."""
        self._positions.setdefault(topic, {})[partition] = _Position(offset, offset)
        self._claims.forget(topic, partition)

    def discard(self, topic: str) -> dict[int, int]:
        """Drop what is uncommitted of a topic; return, for each partition, the offset where it must be read again."""
        self._open.pop(topic, None)
        self._idle_since.pop(topic, None)
        positions = self._positions.get(topic, {})
        for position in positions.values():
            position.next = position.committed
        return {partition: position.committed for partition, position in positions.items()}

    def forget(self, topic: str, partition: int) -> dict[int, int]:
        """The partition was taken away. Returns what `discard` does when an open batch had to be dropped with it."""
        self._positions.get(topic, {}).pop(partition, None)
        return self.discard(topic) if topic in self._open else {}

    def add(self, messages: Iterable[Message | PartitionEnd]) -> None:
        """Add what was consumed, in order. What is of a partition that was taken away meanwhile is dropped."""
        for message in messages:
            if isinstance(message, PartitionEnd):
                self._reach(message)
                continue
            # The stubs allow None for messages that were made, not consumed.
            topic: str = message.topic()  # type: ignore[assignment]
            partition: int = message.partition()  # type: ignore[assignment]
            offset: int = message.offset()  # type: ignore[assignment]
            position = self._positions.get(topic, {}).get(partition)
            if position is None or offset < position.next:
                continue
            batch = self._open.get(topic)
            if batch is None:
                headers: list[tuple[str, bytes | None]] | None = message.headers()  # type: ignore[assignment]
                batch = self._open[topic] = RecordBatch(topic, self._clock(), headers=headers)
            key, value = message.key(), message.value()
            batch.keys.append(key)
            batch.values.append(value)
            batch.partitions.append(partition)
            batch.offsets.append(offset)
            batch.size_bytes += (len(key) if key else 0) + (len(value) if value else 0)
            position.next = offset + 1

    def due(self) -> list[RecordBatch]:
        """Take out the batches that a limit has closed, and make one of each range that has waited long enough.

        Of the latter `MAX_ALONE_AT_ONCE` at most; the others come with the next calls, those that waited longest first.
        """
        now, limits = self._clock(), self._limits
        closed = [
            batch.topic
            for batch in self._open.values()
            if len(batch) >= limits.max_rows
            or batch.size_bytes >= limits.max_bytes
            or now - batch.opened_at >= limits.max_seconds
        ]
        waited = [topic for topic, since in self._idle_since.items() if now - since >= IDLE_COMMIT_S]
        risen = [topic for topic in self._claims.topics() if self._risen(topic)]
        alone = [topic for topic in dict.fromkeys(waited + risen) if topic not in self._open]
        return [self._take(topic) for topic in closed + alone[:MAX_ALONE_AT_ONCE]]

    def take_all(self) -> list[RecordBatch]:
        """Take out every batch and every uncommitted range, for a clean stop: all are to be committed."""
        batches = [self._take(topic) for topic in list(self._open | self._idle_since)]
        for batch in batches:
            batch.must_commit = True
        return batches

    def committed(self, batch: RecordBatch) -> None:
        """The table holds the batch: the next range begins at its end."""
        self._idle_since.pop(batch.topic, None)
        self._claims.settle(batch.topic, batch.watermarks)
        for partition, part in batch.ranges.items():
            position = self._positions.get(batch.topic, {}).get(partition)
            if position is not None:
                position.committed = part.end
                # A partition lost and given back while the batch was being committed is read from before it again.
                position.next = max(position.next, part.end)

    def not_committed(self, batch: RecordBatch) -> None:
        """The batch changed no row: its range is part of the topic's next batch."""
        if batch.must_commit:  # it could not be committed, so it waits another while
            self._idle_since[batch.topic] = self._clock()
            self._claims.settle(batch.topic, batch.watermarks)
        self._idle_since.setdefault(batch.topic, self._clock())

    def next_offsets(self) -> dict[tuple[str, int], int]:
        """Return how far the table stands in each partition."""
        return {
            (topic, partition): position.committed
            for topic, positions in self._positions.items()
            for partition, position in positions.items()
        }

    def _reach(self, end: PartitionEnd) -> None:
        """What lies before the partition's end and was not consumed (transaction markers) changes nothing."""
        position = self._positions.get(end.topic, {}).get(end.partition)
        if position is not None and end.offset > position.next:
            position.next = end.offset
            self._idle_since.setdefault(end.topic, self._clock())

    def _watermarks(self, topic: str) -> dict[int, int]:
        """Return, for each partition that has a newer watermark than its table, what it may be."""
        reached = {
            partition: self._claims.reached(topic, partition, position.next)
            for partition, position in self._positions.get(topic, {}).items()
        }
        return {partition: time_ms for partition, time_ms in reached.items() if time_ms is not None}

    def _risen(self, topic: str) -> bool:
        """Whether the watermark of every partition that is read here can rise: the table's is their minimum."""
        return len(self._watermarks(topic)) == len(self._positions.get(topic, {})) > 0

    def _take(self, topic: str) -> RecordBatch:
        batch = self._open.pop(topic, None) or RecordBatch(topic, self._clock())
        positions = self._positions.get(topic, {})
        batch.watermarks = self._watermarks(topic)
        batch.ranges = {
            partition: OffsetRange(position.committed, position.next)
            for partition, position in positions.items()
            if position.next > position.committed or partition in batch.watermarks
        }
        idle_since = self._idle_since.get(topic)
        batch.must_commit = (
            not len(batch)
            or (idle_since is not None and self._clock() - idle_since >= IDLE_COMMIT_S)
            or (len(batch.watermarks) == len(positions))
        )
        return batch
