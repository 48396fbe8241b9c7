"""Feeds a pipeline's claims: a thread waits for a source time and reads how far the partitions are written after it."""

import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

from cdc_shared.delta.offsets import watermark_id
from cdc_shared.errors import CdcError, shown
from cdc_shared.kafka.topics import UnknownTopic, notification_topic
from cdc_shared.logging.structured_logger import get_logger
from delta_writer.watermark.claims import Claims
from delta_writer.watermark.sentinel import SentinelTopicTaken
from delta_writer.watermark.time_source import TimeSource
from delta_writer.writer.tables import Table

WAIT_S: Final = 0.2
WAIT_AFTER_ERROR_S: Final = 1.0
CLOSE_TIMEOUT_S: Final = 10.0
MAX_WAITING_LOOKS: Final = 16
"""No turn comes while the store is away; each look holds the ends of all partitions."""

Partition = tuple[str, int]
"""(topic, partition)."""
WrittenEnds = Callable[[Collection[Partition]], Mapping[Partition, int]]
"""Reads how far partitions are written; see `partition_ends.written_ends`."""
IsWhole = Callable[[str, Table, int], bool]
"""(topic, table, offset) → whether no snapshot is still to come into the table or to be swept, of those that the
notification topic tells of before the offset; see `Sweeper.snapshot_complete`."""
ShowWatermark = Callable[[Table, int | None], None]
"""Shows a table's watermark, in ms; None while it has none, or when this process no longer reads its topic."""

log = get_logger(__name__)


class _Told(NamedTuple):
    time_ms: int
    ends: Mapping[Partition, int]
    topic_ids: Mapping[Partition, str]


class _Shown(NamedTuple):
    table: Table
    watermark_ms: int | None


class WatermarkFeed:
    """A chore of the pipeline's (`upkeep.Chore`): its turns take over what its thread has found.

    Whatever keeps the thread from knowing the time keeps the watermark where it is, and nothing else: it is told in the
    log once, tried again, and seen in the watermark's age.
    """

    name = "watermark"

    def __init__(
        self,
        pipeline: str,
        source: TimeSource,
        written_ends: WrittenEnds,
        claims: Claims,
        is_whole: IsWhole,
        show: ShowWatermark,
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Tables get a claim at most every half `interval_s`, however often times come. `clock` is monotonic."""
        self._notifications: Partition = (notification_topic(pipeline), 0)
        self._source = source
        self._written_ends = written_ends
        self._claims = claims
        self._is_whole = is_whole
        self._show = show
        self._least_gap_s = interval_s / 2
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._topic_ids: Mapping[Partition, str] = {}
        self._told: queue.SimpleQueue[_Told | SentinelTopicTaken] = queue.SimpleQueue()
        self._shown: dict[str, _Shown] = {}
        self._looked_at = float("-inf")
        self._newest_ms = 0
        self._troubles: dict[type[Exception], str] = {}  # what was said last, so that two in turn are not said for ever

    def turn(self, tables: Mapping[str, Table], assigned: Collection[Partition]) -> None:
        """Take over what is new, and show the watermarks. Raises `Fatal` when going on would be wrong."""
        self._topic_ids = {each: tables[each[0]].writer.topic.topic_id for each in assigned if each[0] in tables}
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="watermark", daemon=True)
            self._thread.start()
        while not self._told.empty():
            told = self._told.get()
            if isinstance(told, SentinelTopicTaken):
                raise told
            self._take_over(told, tables)
        self._show_all(tables)

    def close(self) -> None:
        """Stop the thread; it is left behind when it waits for an answer that does not come."""
        self._stop.set()
        if self._thread is None:
            self._source.close()
        else:
            self._thread.join(CLOSE_TIMEOUT_S)

    # -- in the pipeline's thread -------------------------------------------------------------------------------------

    def _take_over(self, told: _Told, tables: Mapping[str, Table]) -> None:
        """Make claims of what was told, for partitions that are still those that were looked at."""
        notified_to = told.ends.get(self._notifications, 0)
        for (topic, partition), topic_id in told.topic_ids.items():
            table, end = tables.get(topic), told.ends.get((topic, partition))
            if table is None or end is None or self._topic_ids.get((topic, partition)) != topic_id:
                continue
            if self._is_whole(topic, table, notified_to):
                self._claims.add(topic, partition, end, told.time_ms)
            carried_ms = table.writer.snapshot.txns.get(watermark_id(table.writer.topic, partition), -1)
            self._claims.settle(topic, {partition: carried_ms})

    def _show_all(self, tables: Mapping[str, Table]) -> None:
        """Show what has changed: watermarks of tables that are read here, and the end of those that no longer are."""
        here = {topic: tables[topic] for topic, _ in self._topic_ids}
        for topic, last in list(self._shown.items()):
            if here.get(topic) is not last.table:
                self._show(last.table, None)
                del self._shown[topic]
        for topic, table in here.items():
            now = _Shown(table, table.writer.watermark_ms)
            if self._shown.get(topic) != now:
                self._show(*now)
                self._shown[topic] = now

    # -- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    self._look()
                except SentinelTopicTaken as error:
                    self._told.put(error)
                    return
                except Exception as error:  # the thread's loop: nothing may end it in silence
                    self._note(error)
                    self._stop.wait(WAIT_AFTER_ERROR_S)
        finally:
            self._source.close()

    def _look(self) -> None:
        """Wait for a time, then read how far the partitions are written: in this order."""
        time_ms = self._source.next(WAIT_S)
        if time_ms is None or self._clock() - self._looked_at < self._least_gap_s:
            return
        if self._told.qsize() >= MAX_WAITING_LOOKS:
            return
        if time_ms < self._newest_ms:
            log.warning(
                "the source's time went back; watermarks wait until it has passed them",
                before_ms=self._newest_ms,
                now_ms=time_ms,
            )
        topic_ids = self._topic_ids
        ends = self._written_ends([self._notifications, *topic_ids])
        self._told.put(_Told(time_ms, ends, topic_ids))
        self._looked_at, self._newest_ms = self._clock(), time_ms
        if self._troubles:
            self._troubles.clear()
            log.info("the watermarks go on")

    def _note(self, error: Exception) -> None:
        """Say once what keeps the watermarks from rising."""
        reason = shown(error)
        if reason != self._troubles.get(type(error)):
            self._troubles[type(error)] = reason
            expected = isinstance(error, CdcError)
            (log.info if isinstance(error, UnknownTopic) else log.warning)(
                "the watermarks stay where they are", reason=reason, exc_info=not expected
            )
