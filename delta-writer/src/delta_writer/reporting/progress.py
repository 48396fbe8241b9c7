"""How a pipeline gets on: what its observer has seen, gathered for the reports of `cdc.status`."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from cdc_shared.kafka.status_topic import CollectionReport, ErrorReport, PartitionReport, WriterReport
from delta_writer.pipeline_status import PipelineStatus
from delta_writer.reporting.recent_rate import RecentRate


@dataclass(frozen=True, slots=True)
class TableProgress:
    """Where a collection's table stands, as the pipeline's own thread sees it."""

    topic: str
    database: str
    collection: str
    table_version: int
    schema_version: int
    table_bytes: int
    watermark_ms: int | None


@dataclass(slots=True)
class _Topic:
    """What is counted of a change topic."""

    applied: RecentRate
    refused: RecentRate
    table: TableProgress | None = None
    partitions: tuple[PartitionReport, ...] = ()
    event_ms: int | None = None
    commit_ms: int | None = None
    latency_ms: int | None = None
    events: int = 0
    rescued: int = 0
    rejected: int = 0
    dead_letters: int = 0
    last_rejection: str | None = None
    last_rejection_ms: int | None = None


@dataclass(slots=True)
class _Counts:
    retries: int = 0
    last_error: ErrorReport | None = None
    turn_ms: int | None = None
    topics: dict[str, _Topic] = field(default_factory=dict)


class PipelineProgress:
    """Written by the pipeline's thread, read by any. `clock` is the wall clock in seconds."""

    def __init__(self, pipeline: str, clock: Callable[[], float] = time.time) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._lock = threading.Lock()
        self._started_ms = self._now_ms()
        self._counts = _Counts()

    def committed(self, topic: str, events: int, newest_ms: int) -> None:
        """So many events are in the table; `newest_ms` is the source time of the last one."""
        with self._lock:
            now_ms, of_topic = self._now_ms(), self._topic(topic)
            of_topic.events += events
            of_topic.applied.add(events, now_ms / 1000)
            of_topic.commit_ms = now_ms
            of_topic.latency_ms = max(0, now_ms - newest_ms)
            of_topic.event_ms = max(newest_ms, of_topic.event_ms or 0)

    def rescued(self, topic: str, values: int) -> None:
        """So many values did not fit their column."""
        with self._lock:
            self._topic(topic).rescued += values

    def rejected(self, topic: str, why: str, *, dead_lettered: bool) -> None:
        """A record was not applied. `why` holds no value of a document."""
        with self._lock:
            now_ms, of_topic = self._now_ms(), self._topic(topic)
            of_topic.rejected += 1
            of_topic.refused.add(1, now_ms / 1000)
            of_topic.dead_letters += dead_lettered
            of_topic.last_rejection, of_topic.last_rejection_ms = why, now_ms

    def retried(self, why: str) -> None:
        """Something is tried again because what it needs was away."""
        with self._lock:
            self._counts.retries += 1
            self._counts.last_error = ErrorReport(text=why, at_ms=self._now_ms())

    def failed(self, why: str) -> None:
        """The pipeline has ended by itself."""
        with self._lock:
            self._counts.last_error = ErrorReport(text=why, at_ms=self._now_ms())

    def came_round(self, stands: Mapping[tuple[str, int], int], lags: Mapping[tuple[str, int], int]) -> None:
        """The pipeline's loop came round: of each partition read here, where its table stands and how far that is from
        the end."""
        read: dict[str, list[PartitionReport]] = {}
        for (topic, partition), offset in sorted(stands.items()):
            lag = lags.get((topic, partition), 0)
            read.setdefault(topic, []).append(PartitionReport(partition=partition, offset=offset, lag=lag))
        with self._lock:
            self._counts.turn_ms = self._now_ms()
            for topic, of_topic in self._counts.topics.items():
                of_topic.partitions = tuple(read.pop(topic, ()))
            for topic, partitions in read.items():
                self._topic(topic).partitions = tuple(partitions)

    def tables(self, tables: Iterable[TableProgress]) -> None:
        """The tables that are open now."""
        by_topic = {each.topic: each for each in tables}
        with self._lock:
            for topic in by_topic.keys() | self._counts.topics.keys():
                of_topic = self._topic(topic)
                of_topic.table = by_topic.get(topic, of_topic.table)

    def report(self, status: PipelineStatus, writer: str, rules_version: int) -> WriterReport:
        """What there is to say now."""
        with self._lock:
            now_ms, counts = self._now_ms(), self._counts
            collections = [
                _collection(topic, topic.table, now_ms) for topic in counts.topics.values() if topic.table is not None
            ]
            return WriterReport(
                pipeline=self._pipeline,
                writer=writer,
                state=status.state,
                reason=status.reason,
                findings=status.findings,
                at_ms=now_ms,
                since_ms=status.since_ms,
                started_ms=self._started_ms,
                turn_ms=counts.turn_ms,
                rules_version=rules_version,
                retries=counts.retries,
                last_error=counts.last_error,
                collections=tuple(sorted(collections, key=lambda each: (each.database, each.collection))),
            )

    def _topic(self, name: str) -> _Topic:
        now_s = self._clock()
        return self._counts.topics.setdefault(name, _Topic(RecentRate(now_s), RecentRate(now_s)))

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _collection(topic: _Topic, table: TableProgress, now_ms: int) -> CollectionReport:
    return CollectionReport(
        database=table.database,
        collection=table.collection,
        topic=table.topic,
        partitions=topic.partitions,
        # Of a topic that another writer reads now, what this one last saw is old.
        watermark_ms=table.watermark_ms if topic.partitions else None,
        event_ms=topic.event_ms,
        commit_ms=topic.commit_ms,
        latency_ms=topic.latency_ms,
        events=topic.events,
        events_per_s=round(topic.applied.per_s(now_ms / 1000), 1),
        rescued=topic.rescued,
        rejected=topic.rejected,
        rejected_per_s=round(topic.refused.per_s(now_ms / 1000), 2),
        dead_letters=topic.dead_letters,
        last_rejection=topic.last_rejection,
        last_rejection_ms=topic.last_rejection_ms,
        table_version=table.table_version,
        table_bytes=table.table_bytes,
        schema_version=table.schema_version,
    )
