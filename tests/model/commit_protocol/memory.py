"""What a writer remembers, and what it sees of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from commit_protocol.store import NOBODY, Entry, File, Put, Range, Store, Table, table_at
from commit_protocol.stream import Row


class Phase(IntEnum):
    """Where a process is. COMMITTING is `_waiting_out`: between two attempts, a living member of the group."""

    DOWN = 0
    POLLING = 1
    COMMITTING = 2
    PUTTING = 3


class Position(NamedTuple):
    """`BatchProcessor._Position`, and `fetch`: the offset that Kafka gives next."""

    committed: int
    next: int
    fetch: int


class Batch(NamedTuple):
    """`RecordBatch` and `EncodedBatch` in one."""

    ranges: tuple[Range, ...]
    records: tuple[Row, ...]
    base_schema: frozenset[int]
    must_commit: bool = False


class Change(NamedTuple):
    """A commit that is not a batch, prepared at `read_version`: a `FileRewrite`, or a `RowDeletion` (`sweeps`).

    `inputs`: the files as they were (rewrite), or with the rows to delete marked (sweep). `forgotten`: the writer has
    reloaded since, and no longer knows which files were moved (`MovedFiles.since`).
    """

    read_version: int
    inputs: tuple[File, ...]
    sweeps: bool = False
    forgotten: bool = False


class Writer(NamedTuple):
    """The memory of a process; all of it is lost with the process. The last eight are `DeltaWriter`'s.

    `unindexed`: data files of `snapshot` whose keys the index has not read; `follows`: whether the writer believes that
    there are none (`_index_follows`).
    """

    phase: Phase = Phase.DOWN
    positions: tuple[Position | None, ...] = ()
    open: tuple[Row, ...] = ()
    batch: Batch | None = None
    change: Change | None = None
    put: Put | None = None
    snapshot: Table | None = None
    must_look: bool = False
    unanswered: frozenset[int] = frozenset()
    landed: frozenset[int] = frozenset()
    old: bool = False
    unindexed: frozenset[str] = frozenset()
    follows: bool = True

    def at(self, partition: int, position: Position | None) -> Writer:
        """With another position in the partition."""
        return self._replace(positions=(*self.positions[:partition], position, *self.positions[partition + 1 :]))


class Scene(NamedTuple):
    """What a step of one process can see and change: the store, and its own memory."""

    store: Store
    me: Writer
    number: int

    def but(self, me: Writer) -> Scene:
        return Scene(self.store, me, self.number)

    @property
    def table(self) -> Table:
        """The table as it is now."""
        return table_at(self.store.log, len(self.me.positions))

    @property
    def view(self) -> Table:
        """The table as the writer knows it."""
        assert self.me.snapshot is not None
        return self.me.snapshot

    @property
    def batch_id(self) -> int:
        """The commit id of the batch that the writer has in hand."""
        return 2 * self.number + 1

    @property
    def change_id(self) -> int:
        """The commit id of the rewrite or sweep that the writer has in hand."""
        return 2 * self.number + 2

    def disown(self, commit_id: int) -> Scene:
        """The writer asks for this commit no more: what is named by it need not be told apart."""
        return Scene(_disown(self.store, commit_id), self.me, self.number)


Step = tuple[str, Scene]


def _disown(store: Store, commit_id: int) -> Store:
    return _renamed(store, {commit_id: NOBODY})


_OTHERS: Final = {1: 3, 2: 4, 3: 1, 4: 2}
"""Commit ids when the first and the second writer change places."""


def renumbered(writer: Writer) -> Writer:
    """The memory of the first writer as the second one's, and the other way round."""
    return writer._replace(
        put=writer.put and Put(writer.put.version, _renamed_entry(writer.put.entry, _OTHERS)),
        unanswered=frozenset(_OTHERS[each] for each in writer.unanswered),
        landed=frozenset(_OTHERS[each] for each in writer.landed),
    )


def renumbered_store(store: Store) -> Store:
    """The store when the first and the second writer have changed places."""
    return _renamed(store, _OTHERS)


def _renamed(store: Store, names: Mapping[int, int]) -> Store:
    late = {Put(put.version, _renamed_entry(put.entry, names)) for put in store.in_flight}
    log = tuple(_renamed_entry(entry, names) for entry in store.log)
    return store._replace(log=log, in_flight=tuple(sorted(late, key=repr)))


def _renamed_entry(entry: Entry, names: Mapping[int, int]) -> Entry:
    name = names.get(entry.commit_id, entry.commit_id)
    return entry if name == entry.commit_id else entry._replace(commit_id=name)
