"""The sweep: once a snapshot attempt is in the table, rows that it did not send are deleted.

A document that was deleted where the stream did not look (between two attempts, or in a gap of the source's log) leaves
a row that no event takes away. A completed attempt sent every document there was, so every row whose last event lies
before the attempt's first record is such a row. Why that is right, and how the first record is found:
docs/adr/0010-snapshot-sweep.md.
"""

import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Final

from pyroaring import BitMap

from cdc_shared.delta.actions import AddFile
from cdc_shared.delta.offsets import ChangeTopic, app_id, swept_id
from cdc_shared.delta.table_metadata import rows_identity
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.snapshots.notification_reader import NotificationReader
from cdc_shared.snapshots.notifications import SnapshotAttempt
from cdc_shared.snapshots.table_state import gap_before, is_swept
from cdc_shared.snapshots.topic_positions import AttemptBounds, TopicPositions
from cdc_shared.storage.object_store import store_errors
from delta_writer.background_thread import BackgroundThread
from delta_writer.snapshots.doomed_rows import SweepRule
from delta_writer.writer.copy_on_write_writer import CopyOnWriteWriter
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.delta_writer import CommitResult
from delta_writer.writer.file_changes import RowDeletion, RowsMoved
from delta_writer.writer.tables import Table

OPERATION: Final = "CDC SWEEP"
CHECK_S: Final = 0.5
MAX_FILES_A_COMMIT: Final = 200
"""Each has a vector to read, one after the other: it bounds how long the stream waits for a turn."""

log = get_logger(__name__)


@dataclass(slots=True)
class _Sweep:
    """One attempt on the way into one table."""

    attempt: SnapshotAttempt
    topic: ChangeTopic
    base: int
    rows_identity: str | None
    commit_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    bounds: AttemptBounds | None = None
    arrived: set[int] = field(default_factory=set)
    """Partitions of which the table holds every record of the attempt."""
    found: dict[str, BitMap] = field(default_factory=dict)
    """Files that were looked at; their rows to delete, none once they are deleted."""
    portion: RowDeletion | None = None
    """What is being deleted. Kept until that is known to have happened: its put may have succeeded unheard."""
    rows_removed: int = 0
    check_at: float = 0.0
    job: "Future[Callable[[], None]] | None" = None
    done: bool = False

    @property
    def key(self) -> tuple[int, ChangeTopic, int, str | None]:
        """What makes it another sweep when it changes."""
        return self.attempt.started_offset, self.topic, self.base, self.rows_identity


class Sweeper:
    """A chore of a pipeline: follows its snapshots and sweeps the tables whose partition 0 is assigned here.

    Kafka is asked and files are read in a thread of its own; the table's writer is used in `turn` only.
    """

    name = "sweep"

    def __init__(
        self,
        open_notifications: Callable[[], NotificationReader],
        open_positions: Callable[[], TopicPositions],
        on_swept: Callable[[Table, CommitResult], None],
        clock: Callable[[], float] = time.monotonic,
        executor: Executor | None = None,
    ) -> None:
        """`on_swept` hears of each commit; `clock` is monotonic, in seconds; `executor` takes the thread's place."""
        self._open_notifications = open_notifications
        self._open_positions = open_positions
        self._on_swept = on_swept
        self._clock = clock
        self._executor = executor or BackgroundThread("sweep")
        self._stop = threading.Event()
        self._notifications: NotificationReader | None = None
        self._opening: Future[NotificationReader] | None = None
        self._positions: TopicPositions | None = None
        self._sweeps: dict[str, _Sweep] = {}

    def turn(self, tables: Mapping[str, Table], assigned: Collection[tuple[str, int]]) -> None:
        """Go one step on. Raises `Transient` or `Fatal`."""
        notifications = self._reader()
        if notifications is None:
            return
        notifications.read()
        if not notifications.caught_up:
            return
        read_here = {topic for topic, _ in assigned}
        for topic, table in tables.items():
            if table.writer.version >= 0 and topic in read_here:
                sweep = self._current(topic, table, notifications)
                if sweep is not None and not sweep.done:
                    self._step(sweep, table, (topic, 0) in assigned)

    def snapshot_complete(self, topic: str, table: Table, notified_to: int = 0) -> bool:
        """Tell whether the table holds what snapshots sent, and no longer what they did not. Call it between turns.

        False while that is not known, also of what the notification topic holds before offset `notified_to`. A
        collection that no snapshot names was made after them: complete.
        """
        reader = self._notifications
        if reader is None or not reader.caught_up or reader.position < notified_to:
            return False
        if not reader.history.is_complete(
            _name(table), gap_before(table.writer.snapshot, table.writer.topic, reader.topic_id)
        ):
            return False
        sweep = self._current(topic, table, reader)
        return sweep is None or sweep.done

    def is_swept_since(self, topic: str, table: Table, notification: int) -> bool:
        """Tell whether a snapshot of the table's collection begun at that notification or later was swept."""
        reader = self._notifications
        if reader is None or reader.history.last_completed(_name(table), notification) is None:
            return False
        sweep = self._current(topic, table, reader)
        return sweep is not None and sweep.done

    def close(self) -> None:
        """Return at once; the thread leaves Kafka when what it does is done, or is cut off with the process."""
        self._stop.set()
        for job in [self._opening, *(sweep.job for sweep in self._sweeps.values())]:
            if job is not None:
                job.cancel()
        self._executor.submit(self._leave_kafka)
        self._executor.shutdown(wait=False)

    def _leave_kafka(self) -> None:
        opening = self._opening
        if opening is not None and not opening.cancelled() and opening.exception() is None:
            opening.result().close()
        if self._positions is not None:
            self._positions.close()

    # -- one attempt and one table ------------------------------------------------------------------------------------

    def _reader(self) -> NotificationReader | None:
        if self._notifications is None:
            if self._opening is None:
                self._opening = self._executor.submit(self._open_notifications)
            if not self._opening.done():
                return None
            opening = self._opening
            if opening.exception() is not None:
                self._opening = None
            self._notifications = opening.result()
        return self._notifications

    def _current(self, topic: str, table: Table, notifications: NotificationReader) -> _Sweep | None:
        since = gap_before(table.writer.snapshot, table.writer.topic, notifications.topic_id)
        attempt = notifications.history.last_completed(_name(table), since)
        if attempt is None:
            return None
        metadata = table.writer.snapshot.metadata
        # After a restore rows may live that were swept before.
        rows = None if metadata is None else rows_identity(metadata)
        current = _Sweep(attempt, table.writer.topic, table.writer.partition_base, rows)
        sweep = self._sweeps.get(topic)
        if sweep is None or sweep.key != current.key:
            sweep = self._sweeps[topic] = current
        return sweep

    def _step(self, sweep: _Sweep, table: Table, is_ours: bool) -> None:
        if sweep.job is not None:
            if not sweep.job.done():
                return
            job, sweep.job = sweep.job, None
            job.result()()
        if sweep.bounds is None:
            self._ask_bounds(sweep, table)
        elif is_swept(table.writer.snapshot, sweep.topic, sweep.bounds):
            sweep.done = True
        elif len(sweep.arrived) < table.writer.topic.partitions or not is_ours:
            self._check_arrival(sweep, table)
        elif (missing := self._not_looked_at(sweep, table)) and not isinstance(table.writer, CopyOnWriteWriter):
            self._look_for_rows(sweep, table, missing)
        else:
            self._commit(sweep, table)

    def _ask_bounds(self, sweep: _Sweep, table: Table) -> None:
        topic = table.writer.topic

        def ask() -> Callable[[], None]:
            bounds = self._kafka().bounds(topic, sweep.attempt.started_ms)

            def take() -> None:
                sweep.bounds = bounds
                _warn_of_untold(sweep, table)

            return take

        sweep.job = self._executor.submit(ask)

    def _check_arrival(self, sweep: _Sweep, table: Table) -> None:
        """Find out, now and then, whether the table holds the attempt; another writer may have to bring it there."""
        if self._clock() < sweep.check_at:
            return
        sweep.check_at = self._clock() + CHECK_S
        writer, bounds = table.writer, sweep.bounds
        assert bounds is not None  # nosec B101 # asked for before
        writer.refresh()
        stands = {p: writer.snapshot.txns.get(app_id(writer.topic, p), 0) for p in bounds.end}
        sweep.arrived |= {p for p, end in bounds.end.items() if stands[p] >= end}
        waiting = {p: stands[p] for p in bounds.end if p not in sweep.arrived}
        if not waiting:
            return
        topic, end = writer.topic, bounds.end

        def ask() -> Callable[[], None]:
            # What ends the partition may change no row: then the table's offset says so only much later.
            arrived = {p for p, at in waiting.items() if not self._kafka().has_change(topic, p, at, end[p])}

            def take() -> None:
                sweep.arrived |= arrived

            return take

        sweep.job = self._executor.submit(ask)

    def _rule(self, sweep: _Sweep) -> SweepRule:
        assert sweep.bounds is not None  # nosec B101 # asked for before
        return SweepRule(sweep.base, sweep.bounds.before(sweep.base))

    def _not_looked_at(self, sweep: _Sweep, table: Table) -> list[AddFile]:
        rule = self._rule(sweep)
        files = table.writer.snapshot.files
        return [file for path, file in files.items() if path not in sweep.found and rule.admits(file)]

    def _look_for_rows(self, sweep: _Sweep, table: Table, files: list[AddFile]) -> None:
        rule = self._rule(sweep)
        store, url = table.writer.location.store, table.writer.location.url

        def look() -> Callable[[], None]:
            found: dict[str, BitMap] = {}
            with store_errors(f"looking for rows to sweep in {url}"):
                for file in files:
                    if self._stop.is_set():
                        break
                    try:
                        found[file.path] = rule.rows_of(file, store)
                    except FileNotFoundError:  # rewritten and deleted meanwhile: it is no longer in the table
                        found[file.path] = BitMap()

            def take() -> None:
                sweep.found |= found

            return take

        sweep.job = self._executor.submit(look)

    def _commit(self, sweep: _Sweep, table: Table) -> None:
        writer, rule = table.writer, self._rule(sweep)
        txns = {swept_id(writer.topic, partition): first for partition, first in rule.before.items()}
        if isinstance(writer, DeletionVectorWriter):
            self._commit_portion(sweep, table, writer, txns)
        else:
            assert isinstance(writer, CopyOnWriteWriter)  # nosec B101 # there are two kinds
            result = writer.delete_where(rule.predicate(), txns, OPERATION, sweep.commit_id)
            self._committed(sweep, table, result, files_left=0)

    def _commit_portion(
        self, sweep: _Sweep, table: Table, writer: DeletionVectorWriter, txns: Mapping[str, int]
    ) -> None:
        """Delete the rows of some files; those of the last ones together with the mark that all are deleted."""
        if sweep.portion is None:
            files = writer.snapshot.files
            paths = [path for path, doomed in sweep.found.items() if doomed and path in files]
            rows = {path: sweep.found[path] for path in paths[:MAX_FILES_A_COMMIT]}
            is_last = len(rows) == len(paths)
            sweep.portion = RowDeletion(writer.version, rows, txns if is_last else {}, OPERATION, str(uuid.uuid4()))
        portion = sweep.portion
        try:
            result = writer.delete_rows(portion)
        except RowsMoved:
            sweep.portion = None
            return  # the rewritten files are looked at in the next turns
        sweep.portion = None
        sweep.found |= {path: BitMap() for path in portion.rows}
        files_left = 0 if portion.txns else sum(map(bool, sweep.found.values()))
        self._committed(sweep, table, result, files_left)

    def _committed(self, sweep: _Sweep, table: Table, result: CommitResult | None, files_left: int) -> None:
        if files_left == 0:
            sweep.done, sweep.found = True, {}
        if result is None:
            return
        sweep.rows_removed += result.rows_removed
        log.info(
            "snapshot swept" if sweep.done else "snapshot partly swept",
            collection=_name(table),
            version=result.version,
            rows_removed=sweep.rows_removed,
            files_left=files_left,
        )
        self._on_swept(table, result)

    def _kafka(self) -> TopicPositions:
        if self._positions is None:
            self._positions = self._open_positions()
        return self._positions


def _name(table: Table) -> str:
    return f"{table.collection.database}.{table.collection.name}"


def _warn_of_untold(sweep: _Sweep, table: Table) -> None:
    assert sweep.bounds is not None  # nosec B101 # just taken
    swept = table.writer.snapshot.txns
    topic = table.writer.topic
    untold = [
        p for p, first in sweep.bounds.first.items() if first is None and swept_id(topic, sweep.base + p) not in swept
    ]
    if untold:
        log.warning(
            "Kafka no longer tells which rows are from before the snapshot, so none is deleted: resync the collection "
            "if documents may have been deleted unseen before it",
            collection=_name(table),
            partitions=untold,
        )
