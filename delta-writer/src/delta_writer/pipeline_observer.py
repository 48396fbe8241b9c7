"""What a pipeline shows of itself: its state, its metrics, its log lines."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from cdc_shared.documents import REREAD
from cdc_shared.errors import Fatal, ResyncNeeded, shown
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.metrics.prometheus_metrics import BatchStage, PipelineState, RereadOutcome, WriterMetrics
from cdc_shared.models.data_quality import OnFailure
from cdc_shared.retry import RetryAttempt
from delta_writer.consumer.event_handler import DeadLetter
from delta_writer.metrics.data_quality_metrics import DataQualityMetrics
from delta_writer.pipeline_status import PipelineStatus
from delta_writer.reporting.progress import PipelineProgress
from delta_writer.snapshots.collection_watch import Finding
from delta_writer.transformers.bson_to_delta import DecodedEvents
from delta_writer.transformers.change_batch import ChangeEvents, EncodedBatch
from delta_writer.validators.event_time import EventTimes
from delta_writer.writer.batch_processor import RecordBatch
from delta_writer.writer.delta_writer import CommitResult
from delta_writer.writer.flood_limit import TooManyDeadLetters
from delta_writer.writer.sink import Sink
from delta_writer.writer.tables import Table

SETBACK_WARNING_EVERY_S: Final = 60.0
_REJECTED: Final[dict[OnFailure, str]] = {
    "dlq": "record sent to the dead-letter topic",
    "skip": "record skipped",
    "fail": "record stops the pipeline",
}

log = get_logger(__name__)


class PipelineObserver:
    """Called from the pipeline's thread; `status` may be read from any. `clock` is the wall clock in seconds."""

    def __init__(
        self,
        pipeline: str,
        metrics: WriterMetrics,
        data_quality: DataQualityMetrics,
        on_status: Callable[[str, PipelineStatus], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_status` is called, in whatever thread, after the state or the findings have changed."""
        self.progress = PipelineProgress(pipeline, clock)
        self._pipeline = pipeline
        self._metrics = metrics
        self._data_quality = data_quality
        self._on_status = on_status
        self._clock = clock
        self._lock = threading.Lock()
        self._status = PipelineStatus(PipelineState.STARTING, since_ms=self._now_ms())
        self._event_times: dict[str, EventTimes] = {}
        self._next_setback_warning = 0.0
        self._findings: dict[str, tuple[str, ...]] = {}
        metrics.set_pipeline_state(pipeline, PipelineState.STARTING)

    @property
    def status(self) -> PipelineStatus:
        """The state now."""
        with self._lock:
            return self._status

    def running(self) -> None:
        """The pipeline reads and writes."""
        self._become(PipelineStatus(PipelineState.RUNNING))

    def stopped(self) -> None:
        """The pipeline ended because it was asked to."""
        self._become(PipelineStatus(PipelineState.STOPPED))

    def failed(self, error: BaseException) -> None:
        """The pipeline ended by itself; somebody must act."""
        state, reason = _state_after(error), shown(error)
        event = "pipeline paused" if state is PipelineState.PAUSED else "pipeline stopped"
        log.error(event, pipeline=self._pipeline, reason=reason, exc_info=not isinstance(error, Fatal))
        self.progress.failed(reason)
        self._become(PipelineStatus(state, reason))

    def collections_changed(self, findings: Collection[Finding]) -> None:
        """The source's collections are no longer those that the tables were filled from, or are again (none)."""
        self._metrics.collections_changed.remove_by_labels({"pipeline": self._pipeline})
        for each in findings:
            self._metrics.collections_changed.labels(self._pipeline, each.collection, each.change).set(1)
        self.found("collections", [each.text for each in findings])

    def found(self, about: str, texts: Sequence[str]) -> None:
        """The status tells of this as long as it holds, beside what is told of other things; of nothing, when empty."""
        with self._lock:
            self._findings[about] = tuple(texts)
            told = tuple(sorted({text for each in self._findings.values() for text in each}))
            if told == self._status.findings:
                return
            self._status = replace(self._status, findings=told)
        self._on_status(self._pipeline, self.status)

    def retried(self, operation: str) -> Callable[[RetryAttempt], None]:
        """Return what to call before each further attempt of the operation."""

        def note(attempt: RetryAttempt) -> None:
            self._metrics.retries.labels(self._pipeline, operation).inc()
            self.progress.retried(str(attempt.error))
            log.warning(
                "waiting to try again",
                pipeline=self._pipeline,
                operation=operation,
                attempt=attempt.number,
                wait_s=round(attempt.wait_s, 2),
                reason=str(attempt.error),
            )
            self._become(PipelineStatus(PipelineState.RETRYING, str(attempt.error)))

        return note

    def waiting(self, reason: str) -> None:
        """The pipeline goes on only once something outside has happened. Called again and again it is logged once."""
        now = self.status
        if (now.state, now.reason) != (PipelineState.RETRYING, reason):
            log.warning("batch dropped; it is read again", pipeline=self._pipeline, reason=reason)
        self._become(PipelineStatus(PipelineState.RETRYING, reason))

    def paused(self, partitions: Iterable[tuple[str, int]], *, paused: bool) -> None:
        """The partitions are not read while something is tried again, or are read again."""
        for topic, partition in partitions:
            self._metrics.consumer_paused.labels(self._pipeline, topic, partition).set(paused)

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Times the decoding of one batch."""
        started = time.perf_counter()
        yield
        self._stage(BatchStage.DECODE, time.perf_counter() - started)

    def dead_lettered(self, letters: Sequence[DeadLetter]) -> None:
        """The letters are acknowledged by the dead-letter topic."""
        for letter in letters:
            self._metrics.dead_letters.labels(self._pipeline, letter.topic, letter.rejection.code).inc()
            self.rejected(letter, "dlq")

    def rejected(self, letter: DeadLetter, policy: OnFailure) -> None:
        """The record is not applied; `policy` says what becomes of it."""
        self._metrics.events_invalid.labels(self._pipeline, letter.topic, letter.rejection.code).inc()
        self._data_quality.rejected(self._pipeline, letter.topic, letter.rejection, policy)
        self.progress.rejected(letter.topic, letter.rejection.message, dead_lettered=policy == "dlq")
        log.warning(
            _REJECTED[policy],
            pipeline=self._pipeline,
            topic=letter.topic,
            partition=letter.partition,
            offset=letter.offset,
            code=letter.rejection.code,
            reason=letter.rejection.message,
        )

    def filtered(self, topic: str, documents: Mapping[str, int]) -> None:
        """So many documents did not match each of these filters."""
        for rule, count in documents.items():
            self._data_quality.filtered.labels(self._pipeline, topic, rule).inc(count)

    def _data_in(self, table: Table, documents: DecodedEvents) -> None:
        labels, topic = self._table_labels(table), table.writer.topic.name
        self._data_quality.conflicted(labels, documents.decoded.stats.conflicts)
        self._data_quality.transformed(labels, documents.changed_values)
        setbacks = self._event_times.setdefault(topic, EventTimes()).setbacks(documents.events)
        if setbacks:
            self._data_quality.set_back(self._pipeline, topic, list(setbacks))
            self._warn_of_setback(topic, setbacks)

    def _warn_of_setback(self, topic: str, setbacks: Mapping[int, int]) -> None:
        if self._clock() < self._next_setback_warning:
            return
        self._next_setback_warning = self._clock() + SETBACK_WARNING_EVERY_S
        log.warning(
            "the source's time went back; events are applied in the order of their offsets all the same",
            pipeline=self._pipeline,
            topic=topic,
            seconds={partition: round(ms / 1000) for partition, ms in setbacks.items()},
        )

    def encoded(self, table: Table, sink: Sink, batch: EncodedBatch, documents: DecodedEvents) -> None:
        """The batch, made of these documents, is in one of the collection's tables."""
        if sink is table.current:  # else it will be, or was
            self._data_in(table, documents)
            self.progress.rescued(table.writer.topic.name, batch.rescued_values)
        labels = self._labels(table, sink)
        self._metrics.rescued_values.labels(*labels).inc(batch.rescued_values)
        self._metrics.walked_rows.labels(*labels).inc(batch.walked_rows)
        if batch.schema.typed() != batch.base_schema:
            self._metrics.schema_changes.labels(*labels, "create" if not batch.base_schema.fields else "widen").inc()

    def committed(
        self,
        table: Table,
        batch: RecordBatch,
        events: ChangeEvents,
        results: Mapping[str, CommitResult],
        seconds: float,
    ) -> None:
        """The batch is in the collection's tables; `results` says by name which of them it was written to now."""
        for sink in table.sinks:
            if sink.name in results:
                self._written(table, sink, batch, results[sink.name], seconds)
        if table.current.name in results:  # else it was read again for the history alone
            self._applied(table, events)
        self.running()

    def _written(self, table: Table, sink: Sink, batch: RecordBatch, result: CommitResult, seconds: float) -> None:
        metrics, labels = self._metrics, self._labels(table, sink)
        if len(batch):
            metrics.batch_rows.labels(*labels).observe(len(batch))
        metrics.commit_seconds.labels(*labels).observe(result.seconds.get("commit", 0.0))
        metrics.commit_conflicts.labels(*labels).inc(result.conflicts)
        metrics.table_files.labels(*labels, "data").set(len(sink.writer.snapshot.files))
        for stage, spent in result.seconds.items():
            self._stage(BatchStage(stage), spent)
        # A quiet table's offsets and watermark alone are news every few seconds, and interest nobody.
        (log.info if len(batch) else log.debug)(
            "batch committed",
            pipeline=self._pipeline,
            collection=f"{table.collection.database}.{sink.name}",
            version=result.version,
            records=len(batch),
            rows_written=result.rows_written,
            rows_removed=result.rows_removed,
            files_swapped=result.files_swapped,
            seconds=round(seconds, 3),
        )

    def _applied(self, table: Table, events: ChangeEvents) -> None:
        metrics, labels = self._metrics, self._table_labels(table)
        for op, count in Counter(events.ops).items():
            metrics.events.labels(*labels, op).inc(count)
        for outcome, count in _reread_outcomes(events).items():
            metrics.rereads.labels(*labels, outcome).inc(count)
        if len(events):
            self.progress.committed(table.writer.topic.name, len(events), events.source_ts_ms[-1])
            now = self._clock()
            metrics.end_to_end_lag.labels(*labels).set(max(0.0, now - events.source_ts_ms[-1] / 1000))
            metrics.end_to_end_latency.labels(*labels).observe(max(0.0, now - min(events.source_ts_ms) / 1000))

    def watermark(self, table: Table, time_ms: int | None) -> None:
        """The table's watermark is this; None: it has none, or its topic is no longer read here."""
        labels = self._table_labels(table)
        for gauge in (self._metrics.table_watermark, self._metrics.table_watermark_age):
            gauge.remove(*labels)
        if time_ms is not None:
            self._metrics.table_watermark.labels(*labels).set(time_ms / 1000)
            # Reckoned when it is asked for: it must grow when the pipeline stands still.
            self._metrics.table_watermark_age.labels(*labels).set_function(lambda: self._clock() - time_ms / 1000)

    def lagging(self, stands: Mapping[tuple[str, int], int], lags: Mapping[tuple[str, int], int]) -> None:
        """The pipeline's loop came round. In each partition the table stands there, so many offsets from the end."""
        self.progress.came_round(stands, lags)
        for (topic, partition), lag in lags.items():
            self._metrics.consumer_lag_events.labels(self._pipeline, topic, partition).set(lag)

    def _become(self, status: PipelineStatus) -> None:
        with self._lock:
            changed_state = status.state is not self._status.state
            since_ms = self._now_ms() if changed_state else self._status.since_ms
            self._status = replace(status, findings=self._status.findings, since_ms=since_ms)
        if changed_state:
            self._metrics.set_pipeline_state(self._pipeline, status.state)
            self._on_status(self._pipeline, status)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _stage(self, stage: BatchStage, seconds: float) -> None:
        self._metrics.batch_seconds.labels(self._pipeline, stage).observe(seconds)

    def _labels(self, table: Table, sink: Sink) -> tuple[str, str, str]:
        return self._pipeline, table.collection.database, sink.name

    def _table_labels(self, table: Table) -> tuple[str, str, str]:
        return self._pipeline, table.collection.database, table.collection.name


def _state_after(error: BaseException) -> PipelineState:
    match error:
        case ResyncNeeded():
            return PipelineState.RESYNC_NEEDED
        case TooManyDeadLetters():
            return PipelineState.PAUSED
        case _:
            return PipelineState.FAILED


def _reread_outcomes(events: ChangeEvents) -> Counter[RereadOutcome]:
    return Counter(
        RereadOutcome.DELETED if document is None else RereadOutcome.UPSERTED
        for op, document in zip(events.ops, events.documents, strict=True)
        if op == REREAD
    )
