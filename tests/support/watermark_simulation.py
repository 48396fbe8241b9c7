"""A source, a connector, Kafka and writers in one thread, to be interleaved at random around the real watermark code.

Real are `WatermarkFeed`, `Claims`, `BatchProcessor`, the fence and the watermark's arithmetic. The source writes
changes and sentinels at its own time, in whole seconds; the connector sends them in that order in transactions, whose
markers come to the partitions one by one, or are aborted and sent again; topics come to be with their first record.
Writers poll what is committed, crash, and take partitions from each other, knowing of it or not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any, Final

from cdc_shared.delta.offsets import ChangeTopic, Fenced, app_id, check_fence
from cdc_shared.delta.time_travel import table_watermark, watermark_id
from cdc_shared.models.common import BatchSpec
from delta_writer.consumer.event_consumer import PartitionEnd
from delta_writer.watermark.claims import Claims
from delta_writer.watermark.feed import Partition, WatermarkFeed
from delta_writer.writer.batch_processor import BatchProcessor, RecordBatch

SENTINEL: Final = "sentinel"
PIPELINE: Final = "p"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened in the source. `says_s` is what a sentinel tells of the time."""

    number: int
    time_s: int
    topic: str
    partition: int
    says_s: int = 0


@dataclass(slots=True)
class Transaction:
    """A transaction of the connector's: in each partition it is open until its marker has come there."""

    unmarked: set[Partition] = field(default_factory=set)
    committed: bool = True


@dataclass(slots=True)
class Log:
    """One partition: records and markers (None) with their transactions."""

    entries: list[tuple[Change | None, Transaction]] = field(default_factory=list)

    def stable_end(self, where: Partition) -> int:
        """The offset of the first record of a transaction that is open here, else the end."""
        return next((i for i, (_, each) in enumerate(self.entries) if where in each.unmarked), len(self.entries))

    def visible(self, offset: int) -> bool:
        change, transaction = self.entries[offset]
        return change is not None and transaction.committed


class Record:
    """What `BatchProcessor` reads of a message."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        self._at = topic, partition, offset

    def topic(self) -> str:
        return self._at[0]

    def partition(self) -> int:
        return self._at[1]

    def offset(self) -> int:
        return self._at[2]

    def headers(self) -> None:
        return None

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"v"


class SimulatedTable:
    """A table that only knows its `txn`s; in place of `Table` and of its writer."""

    def __init__(self, topic: str, partitions: int) -> None:
        self.topic = ChangeTopic(topic, f"id-{topic}", partitions)
        self.snapshot = SimpleNamespace(txns={})
        self.whole = False
        self.writer = self

    @property
    def watermark_ms(self) -> int | None:
        return table_watermark(self.snapshot.txns, self.topic.topic_id, self.topic.partitions)

    def stands_at(self, partition: int) -> int:
        at: int = self.snapshot.txns.get(app_id(self.topic, partition), 0)
        return at

    def commit(self, batch: RecordBatch) -> None:
        check_fence(self.snapshot.txns, self.topic, batch.ranges)
        for partition, part in batch.ranges.items():
            self.snapshot.txns[app_id(self.topic, partition)] = part.end
        for partition, time_ms in batch.watermarks.items():
            name = watermark_id(self.topic.topic_id, partition)
            self.snapshot.txns[name] = max(time_ms, self.snapshot.txns.get(name, -1))


class SimulatedWriter:
    """One process: reads its partitions and applies batches, as `Pipeline` does."""

    def __init__(self, world: World) -> None:
        self.world = world
        claims = Claims()
        self.batches = BatchProcessor(BatchSpec(max_rows=3), lambda: world.now, claims)
        self.positions: dict[Partition, int] = {}
        self.seen_sentinels = world.logs[SENTINEL, 0].stable_end((SENTINEL, 0)) if world.has_sentinel else 0
        self.feed = WatermarkFeed(
            PIPELINE,
            self,
            lambda partitions: world.ends(partitions),
            claims,
            lambda topic, table, notified_to: world.tables[topic].whole,
            lambda table, time_ms: None,
            interval_s=0,
            clock=lambda: world.now,
        )
        self.feed._thread = threading.Thread()  # its steps are taken here

    def next(self, timeout_s: float) -> int | None:
        """The feed's `TimeSource`: the next sentinel that is committed."""
        world = self.world
        if not world.has_sentinel:
            return None
        log, end = world.logs[SENTINEL, 0], world.sentinel_end()
        while self.seen_sentinels < end:
            offset = self.seen_sentinels
            self.seen_sentinels += 1
            change = log.entries[offset][0]
            if change is not None and world.is_sent(log, offset):
                return change.says_s * 1000
        return None

    def close(self) -> None:
        """Nothing is held."""

    def assign(self, where: Partition) -> None:
        self.positions[where] = self.world.tables[where[0]].stands_at(where[1])
        self.batches.start_at(*where, self.positions[where])

    def revoke(self, where: Partition) -> None:
        del self.positions[where]
        for partition, offset in self.batches.forget(*where).items():
            self.positions[where[0], partition] = offset

    def turn(self) -> None:
        """One round of the pipeline's loop."""
        self.batches.add(self._poll())
        for batch in self.batches.due():
            self._apply(batch)
        topics = {topic for topic, _ in self.positions}
        self.feed.turn({topic: self.world.tables[topic] for topic in topics}, list(self.positions))  # type: ignore[misc]

    def _poll(self) -> list[Any]:
        came: list[Any] = []
        for where, position in self.positions.items():
            log, room = self.world.logs[where], self.world.rng.randrange(5)
            end = log.stable_end(where)
            while position < end and room:
                if log.visible(position):
                    came.append(Record(*where, position))
                    room -= 1
                position += 1
            if position == end:
                came.append(PartitionEnd(*where, end))
            self.positions[where] = position
        return came

    def _apply(self, batch: RecordBatch) -> None:
        table, rng = self.world.tables[batch.topic], self.world.rng
        if not batch.must_commit and rng.random() < 0.3:
            self.batches.not_committed(batch)
            return
        try:
            table.commit(batch)
        except Fenced:
            for partition in self.batches.discard(batch.topic):
                self.assign((batch.topic, partition))
            return
        self.batches.committed(batch)
        self.world.check(table)


class World:
    """Everything, and the steps that may come next. A `flaw` is switched on to see that it is noticed."""

    def __init__(self, rng: Random, topics: Mapping[str, int], writers: int = 2, flaw: str = "") -> None:
        self.rng = rng
        self.flaw = flaw
        self.now = 0.0
        self.time_s = 1_000
        self.changes: list[Change] = []
        self.sent = 0
        self.open: tuple[Transaction, int] | None = None
        self.logs: dict[Partition, Log] = {}
        self.partitions = dict(topics)
        self.tables: dict[str, SimulatedTable] = {}
        self.writers = [SimulatedWriter(self) for _ in range(writers)]
        self.committed: dict[int, Partition] = {}

    @property
    def has_sentinel(self) -> bool:
        return (SENTINEL, 0) in self.logs

    # -- what may happen ----------------------------------------------------------------------------------------------

    def steps(self) -> list[Callable[[], None]]:
        """What may happen next, likelier things more often."""
        return [
            *[self.change] * 6,
            *[self.connector] * 8,
            *[self.marker] * 8,
            *[self.sentinel] * 2,
            *[self.tick] * 4,
            *[self.writer] * 8,
            *[self.look] * 4,
            self.crash,
            self.rebalance,
            self.zombie,
            self.connector_crash,
            self.sweep,
        ]

    def tick(self) -> None:
        self.now += self.rng.choice([0.5, 3, 70])
        self.time_s += self.rng.randrange(2)

    def change(self) -> None:
        topic = self.rng.choice(list(self.partitions))
        self._happen(topic, self.rng.randrange(self.partitions[topic]))

    def sentinel(self) -> None:
        says_s = self.time_s
        self.time_s += self.rng.randrange(2)
        self._happen(SENTINEL, 0, says_s)

    def connector(self) -> None:
        """Send the next change, in the open transaction or a new one; or end that one."""
        if self.open is not None and (self.rng.random() < 0.3 or self.sent == len(self.changes)):
            self.open = None
            return
        if self.sent == len(self.changes):
            return
        if self.open is None:
            self.open = Transaction(), self.sent
        transaction, change = self.open[0], self.changes[self.sent]
        where = change.topic, change.partition
        if where not in self.logs:
            self._make_topic(change.topic)
        self.logs[where].entries.append((change, transaction))
        transaction.unmarked.add(where)
        self.sent += 1

    def connector_crash(self) -> None:
        """The open transaction is aborted; what it sent is sent again."""
        if self.open is not None:
            transaction, self.sent = self.open
            transaction.committed, self.open = False, None

    def marker(self) -> None:
        """The marker of an ended transaction comes to one more partition."""
        pending = [
            (where, transaction)
            for where, log in self.logs.items()
            for _, transaction in log.entries
            if where in transaction.unmarked and (self.open is None or transaction is not self.open[0])
        ]
        if pending:
            where, transaction = self.rng.choice(pending)
            self.logs[where].entries.append((None, transaction))
            transaction.unmarked.discard(where)

    def writer(self) -> None:
        self.rng.choice(self.writers).turn()

    def look(self) -> None:
        self.rng.choice(self.writers).feed._look()

    def crash(self) -> None:
        number = self.rng.randrange(len(self.writers))
        had = list(self.writers[number].positions)
        self.writers[number] = SimulatedWriter(self)
        for where in had:
            self.writers[number].assign(where)

    def rebalance(self) -> None:
        """A partition goes to another writer, or to the same once more."""
        where = self._some_partition()
        if where is not None:
            for each in self.writers:
                if where in each.positions:
                    each.revoke(where)
            self.rng.choice(self.writers).assign(where)

    def zombie(self) -> None:
        """A writer is given a partition that another one still believes to have."""
        where = self._some_partition()
        if where is not None:
            self.rng.choice(self.writers).assign(where)

    def sweep(self) -> None:
        """A table's first snapshot is swept."""
        for table in self.tables.values():
            table.whole = table.whole or self.rng.random() < 0.3

    def settle(self) -> None:
        """Nothing more goes wrong: partitions have one owner, everything is sent, and the writers get their turns."""
        for where in self.logs:
            owners = [each for each in self.writers if where in each.positions]
            for zombie in owners[1:]:
                zombie.revoke(where)
            if where[0] != SENTINEL and not owners:
                self.writers[0].assign(where)
        for _ in range(3):
            for table in self.tables.values():  # also of a topic that came to be meanwhile
                table.whole = True
            self.time_s += 10
            self.sentinel()
            for _ in range(40):
                self._send_everything()
                self.now += 70
                for each in self.writers:
                    each.turn()
                    each.feed._look()

    def _send_everything(self) -> None:
        while self.sent < len(self.changes) or self.open is not None:
            self.connector()
        while any(where in each.unmarked for where, log in self.logs.items() for _, each in log.entries):
            self.marker()

    # -- what must hold -----------------------------------------------------------------------------------------------

    def check(self, table: SimulatedTable) -> None:
        """I12: whatever happened strictly before the table's watermark is in the table."""
        watermark_ms = table.watermark_ms
        if watermark_ms is None:
            return
        assert table.whole, f"{table.topic.name} has a watermark before its snapshot is swept"
        held = {
            change.number
            for partition in range(table.topic.partitions)
            for change, transaction in self.logs[table.topic.name, partition].entries[: table.stands_at(partition)]
            if change is not None and transaction.committed
        }
        lacking = [
            change
            for change in self.changes
            if change.topic == table.topic.name and change.time_s * 1000 < watermark_ms and change.number not in held
        ]
        assert not lacking, f"{table.topic.name} claims {watermark_ms} and lacks {lacking[0]}"

    # -- Kafka as the feed sees it ------------------------------------------------------------------------------------

    def ends(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """`written_ends`; while it asks, the world goes on."""
        ends = {}
        for where in partitions:
            if where in self.logs:
                log = self.logs[where]
                ends[where] = log.stable_end(where) if self.flaw == "stable ends" else len(log.entries)
            for _ in range(self.rng.randrange(3)):
                self.rng.choice([self.connector, self.marker, self.change])()
        return ends

    def sentinel_end(self) -> int:
        log = self.logs[SENTINEL, 0]
        return len(log.entries) if self.flaw == "uncommitted sentinel" else log.stable_end((SENTINEL, 0))

    def is_sent(self, log: Log, offset: int) -> bool:
        return self.flaw == "uncommitted sentinel" or log.visible(offset)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _happen(self, topic: str, partition: int, says_s: int = 0) -> None:
        if self.flaw == "time ahead" and topic == SENTINEL:
            says_s = self.time_s + 1
        self.changes.append(Change(len(self.changes), self.time_s, topic, partition, says_s))

    def _make_topic(self, topic: str) -> None:
        partitions = self.partitions.get(topic, 1)
        self.logs |= {(topic, partition): Log() for partition in range(partitions)}
        if topic != SENTINEL:
            self.tables[topic] = SimulatedTable(topic, partitions)
            for partition in range(partitions):
                self.rng.choice(self.writers).assign((topic, partition))

    def _some_partition(self) -> Partition | None:
        all_of_them = [where for where in self.logs if where[0] != SENTINEL]
        return self.rng.choice(all_of_them) if all_of_them else None
