"""What lies in Kafka, and what a table must hold that stands at given offsets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Event(NamedTuple):
    """One change of a key: an upsert, or a delete. `column` is the number of the field that its document has."""

    key: str
    upsert: bool = True
    column: int = 0


Row = tuple[int, int]
"""A row is named by the event that wrote it: partition and offset."""


@dataclass(frozen=True)
class Stream:
    """The events of each partition, and the snapshot attempt among them, if there is one.

    Attributes:
        partitions: events by partition and offset; a key's events all lie in one partition.
        in_table: up to where the table holds each partition already, at first.
        snapshot_starts, snapshot_ends: where the attempt's first record lies in each partition, and where its last
            one ends. Rows from before it that it did not send are ghosts.
    """

    partitions: tuple[tuple[Event, ...], ...]
    in_table: tuple[int, ...] = ()
    snapshot_starts: tuple[int, ...] = ()
    snapshot_ends: tuple[int, ...] = ()

    def event(self, row: Row) -> Event:
        return self.partitions[row[0]][row[1]]

    @cached_property
    def ends(self) -> tuple[int, ...]:
        return tuple(map(len, self.partitions))

    @cached_property
    def sent(self) -> frozenset[str]:
        """The keys that the snapshot sends."""
        spans = zip(self.partitions, self.snapshot_starts, self.snapshot_ends, strict=False)
        return frozenset(event.key for events, start, end in spans for event in events[start:end])

    def rows_at(self, offsets: tuple[int, ...], *, swept: bool = False) -> frozenset[Row]:
        """The last event of each key decides (I6); a sweep removes what the snapshot did not send (I9)."""
        last: dict[str, Row] = {}
        for partition, events in enumerate(self.partitions):
            for offset, event in enumerate(events[: offsets[partition]]):
                last[event.key] = (partition, offset)
        rows = (row for row in last.values() if self.event(row).upsert)
        return frozenset(row for row in rows if not (swept and self._is_ghost(row)))

    def _is_ghost(self, row: Row) -> bool:
        return row[1] < self.snapshot_starts[row[0]] and self.event(row).key not in self.sent


TWO_PARTITIONS = Stream(
    (
        (Event("a"), Event("a")),
        (Event("b", column=1),),
    )
)
"""An insert and an update in one partition, an insert in the other; each partition brings a column of its own."""

THREE_KEYS = Stream(((Event("a"), Event("b")), (Event("c"),)))
"""A record that is passed over is missed."""

ONE_PARTITION = Stream(((Event("a"), Event("a")),))
"""The least for two writers that both believe that it is theirs."""

ONE_EACH = Stream(((Event("a"),), (Event("b", column=1),)))
"""The least for a rebalance."""

SHARED_FILE = Stream(
    (
        (Event("a"), Event("a")),
        (Event("b"), Event("b", upsert=False)),
    ),
    in_table=(1, 1),
)
"""The rows of two partitions lie in one file; one is updated, one deleted."""

CHANGES = Stream(((Event("a"), Event("b"), Event("a"), Event("b", upsert=False)),), in_table=(2,))
"""Two rows lie in one file; one is updated, then the other deleted."""

ONE_CHANGE = Stream(((Event("a"), Event("b"), Event("a")),), in_table=(2,))
"""Two rows lie in one file; one is updated."""

SHORT_SNAPSHOT = Stream(
    ((Event("ghost"), Event("a"), Event("a")),), in_table=(2,), snapshot_starts=(2,), snapshot_ends=(3,)
)
"""Two rows of an earlier time, of which the snapshot sends one."""

WITH_SNAPSHOT = Stream(
    ((Event("ghost"), Event("a"), Event("a"), Event("ghost")),),
    in_table=(2,),
    snapshot_starts=(2,),
    snapshot_ends=(3,),
)
"""The same, and the ghost is inserted anew later."""
