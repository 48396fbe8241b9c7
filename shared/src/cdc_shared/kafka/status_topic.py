"""What the writers report of their pipelines, through the compacted topic `cdc.status`.

Each writer has a record of its own for each pipeline that it runs: key `<pipeline>/<writer>`, value a `WriterReport` as
JSON, null once the pipeline is taken back. A writer sends a change of state at once, progress every few seconds while
there is any, and the same report again every `HEARTBEAT_S`: one that has said nothing for `SILENT_AFTER_S` is gone,
whatever its last report says. Records that nobody renews for a week are deleted.

A report of another release can be read: fields that are not known are left out, those that it lacks have their default.
Before there could be several writers, the key was the pipeline's name alone; such a report's `writer` is empty.
"""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc_shared.errors import CdcError, InvalidEvent, Transient, shown
from cdc_shared.kafka.compacted_topic import (
    PUBLISH_TIMEOUT_S,
    has_topic,
    records,
    send_record,
    whole_topic_consumer,
)
from cdc_shared.kafka.errors import map_kafka_error
from cdc_shared.kafka.topics import STATUS_TOPIC, UnknownTopic, ensure_topic
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.metrics.prometheus_metrics import PipelineState

HEARTBEAT_S: Final = 15.0
"""A writer says at least so often that it is there."""
SILENT_AFTER_S: Final = 50.0
"""Three heartbeats and a little: then a writer is taken for gone."""

STATUS_CONFIG: Final = {
    # Not compacted alone: a writer that is killed and never comes back would leave its reports for ever.
    "cleanup.policy": "compact,delete",
    "retention.ms": str(7 * 24 * 3600 * 1000),
    # Whoever opens it reads it whole, and what is in the newest segment is never compacted.
    "segment.bytes": str(8 * 1024 * 1024),
    "segment.ms": str(3600 * 1000),
    "min.cleanable.dirty.ratio": "0.1",
    "delete.retention.ms": str(3600 * 1000),
}

HANGS_AFTER_S: Final = 300.0
"""Longer than the largest batch takes to be written, by far."""
CONTACT_EVERY_S: Final = 5.0
"""How often a reader that hears nothing asks Kafka whether it is still there."""
CONTACT_TIMEOUT_S: Final = 5.0
POLL_S: Final = 0.2
CLOSE_TIMEOUT_S: Final = 1.0
AGAIN_AFTER_S: Final = 1.0

_SEPARATOR: Final = "/"

log = get_logger(__name__)


class PartitionReport(msgspec.Struct, frozen=True, kw_only=True):
    """Where a collection's table stands in one partition of its change topic."""

    partition: int
    offset: int
    """The next offset that the table needs: everything before it is committed, or changes nothing."""
    lag: int
    """Offsets from there to the partition's end as the writer last heard of it; transaction markers count."""


class CollectionReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one collection goes. Counts are of this writer, since it began the pipeline."""

    database: str
    collection: str
    topic: str
    partitions: tuple[PartitionReport, ...] = ()
    """Those that this writer reads now."""
    watermark_ms: int | None = None
    """Source time strictly before which everything is in the table; None while there is none."""
    event_ms: int | None = None
    """Source time of the newest event committed."""
    commit_ms: int | None = None
    """When events were last committed, by the writer's clock."""
    latency_ms: int | None = None
    """From source to commit, of the newest event of the last batch."""
    events: int = 0
    """Change events dealt with and committed: snapshots', re-reads, and those whose document was rejected included."""
    events_per_s: float = 0.0
    """Over the last minute."""
    rescued: int = 0
    """Values that did not fit their column."""
    rejected: int = 0
    """Records that were not applied, whatever became of them."""
    rejected_per_s: float = 0.0
    """Over the last minute."""
    dead_letters: int = 0
    """Of these, those in the dead-letter topic."""
    last_rejection: str | None = None
    """Why the last one was rejected. Holds no value of a document."""
    last_rejection_ms: int | None = None
    table_version: int = -1
    """Of the Delta table; -1 while there is none."""
    table_bytes: int | None = None
    """Of the table's data files that are in force; those that only older versions have are not counted."""
    schema_version: int = 0
    """Counts the changes of the table's schema; 0 while there is no table."""


class ErrorReport(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong last: what was waited out, or ended the pipeline. Holds no secret and no value of a document."""

    text: str
    at_ms: int


class WriterReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one writer is getting on with one pipeline. Times are Unix time in ms by the writer's clock."""

    pipeline: str
    state: PipelineState
    at_ms: int
    """When this was said."""
    writer: str = ""
    """WRITER_INSTANCE_ID, else the host and the port of its /health."""
    reason: str | None = None
    """Why it failed, or what it waits for."""
    findings: tuple[str, ...] = ()
    """What somebody should look at although the pipeline goes on."""
    since_ms: int | None = None
    """When it came into this state."""
    started_ms: int | None = None
    """When the writer began the pipeline."""
    turn_ms: int | None = None
    """When its loop last came round: long ago means that it hangs, whatever the state says."""
    rules_version: int = 0
    """Of the data-quality rules in force."""
    retries: int = 0
    """Attempts repeated since it began, because Kafka, the store or the source was away."""
    last_error: ErrorReport | None = None
    collections: tuple[CollectionReport, ...] = ()

    @property
    def hangs(self) -> bool:
        """Whether it says that it runs, and has not come round for so long that it does not."""
        stood_still_ms = 0 if self.turn_ms is None else self.at_ms - self.turn_ms
        return self.state is PipelineState.RUNNING and stood_still_ms > HANGS_AFTER_S * 1000


def ensure_status_topic(admin: AdminClient, replication_factor: int = 1) -> None:
    """Make the topic, or bring one that exists to `STATUS_CONFIG`. Raises what `ensure_topic` does."""
    ensure_topic(admin, STATUS_TOPIC, 1, STATUS_CONFIG, replication_factor)


def report_key(pipeline: str, writer: str) -> bytes:
    """The key of a writer's reports of a pipeline."""
    return f"{pipeline}{_SEPARATOR}{writer}".encode()


def key_of(message: Message) -> tuple[str, str]:
    """The pipeline and the writer that a record is about."""
    pipeline, _, writer = (message.key() or b"").decode(errors="replace").partition(_SEPARATOR)
    return pipeline, writer


def encode_report(report: WriterReport) -> bytes:
    """The report as a record's value."""
    return msgspec.json.encode(report)


def decode_report(value: bytes) -> WriterReport:
    """The inverse of `encode_report`. Raises `InvalidEvent` for what is no report."""
    try:
        return msgspec.json.decode(value, type=WriterReport)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidEvent(f"a record of {STATUS_TOPIC} is no report of a writer: {error}") from None


def forget_reports(bootstrap_servers: str, pipeline: str) -> None:
    """Delete what all writers have reported of a pipeline, once it is deleted and they have left it.

    Raises `Transient` or `Fatal`; calling it again does no harm.
    """
    ensure_status_topic(AdminClient({"bootstrap.servers": bootstrap_servers}))
    with closing(whole_topic_consumer(bootstrap_servers)) as consumer:
        last = {key_of(message): message for message in records(consumer, STATUS_TOPIC)}
    left = [message.key() for (name, _), message in last.items() if name == pipeline and message.value() is not None]
    if not left:
        return
    timeout_ms = int(PUBLISH_TIMEOUT_S * 1000)
    producer = Producer({"bootstrap.servers": bootstrap_servers, "message.timeout.ms": timeout_ms})
    for key in left:
        send_record(producer, STATUS_TOPIC, key or b"", None)


@dataclass(frozen=True, slots=True)
class Heard:
    """A writer's last report, as it looks now."""

    report: WriterReport
    age_s: float
    """Since it was sent."""
    is_silent: bool
    """Whether the writer is gone without saying so: it was killed, or is cut off. Never of one that said `stopped`."""


@dataclass(frozen=True, slots=True)
class _Kept:
    report: WriterReport
    heard_at: float


_Reports = dict[str, dict[str, _Kept]]


class StatusReader:
    """Follows `cdc.status` in a thread of its own from `start` to `close`. To be asked from any thread; never blocks.

    Without Kafka it keeps what it knows, says so in `trouble`, and takes no writer for silent: it is deaf itself.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        on_change: Callable[[str], None] = lambda _: None,
        *,
        open_consumer: Callable[[], Consumer] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_change` is called with the pipeline's name, in the reader's thread, for each report that comes, and for
        each pipeline that there were reports of at the start; it returns at once and raises nothing.

        The clocks are in seconds.
        """
        self._open_consumer = open_consumer or (lambda: _status_consumer(bootstrap_servers))
        self._on_change = on_change
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._kept: _Reports = {}
        self._found: _Reports | None = None
        """What was read so far of the topic as it was found; None once that is all read."""
        self._caught_up = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status-reader", daemon=True)
        self._trouble: str | None = None
        self._asked_at = float("-inf")
        self._in_touch_since = float("-inf")

    def start(self) -> Self:
        """Begin to read; returns at once."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop reading; what was read stays to be asked for. A thread that waits for an absent Kafka is left behind."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def caught_up(self) -> bool:
        """Whether everything that was in the topic at the start has been read."""
        return self._caught_up.is_set()

    def wait_caught_up(self, timeout_s: float) -> bool:
        """Wait until `caught_up`, at most for a while; whether it is."""
        return self._caught_up.wait(timeout_s)

    @property
    def trouble(self) -> str | None:
        """What keeps it from reading now; None while it is in touch with Kafka."""
        return self._trouble

    def pipelines(self) -> list[str]:
        """The pipelines that there are reports of."""
        with self._lock:
            return sorted(self._kept)

    def reports(self, pipeline: str) -> tuple[Heard, ...]:
        """The last report of each writer of a pipeline, the newest first; those of writers that are gone as well."""
        with self._lock:
            kept = list(self._kept.get(pipeline, {}).values())
        now, trouble, since = self._clock(), self._trouble, self._in_touch_since
        in_touch = trouble is None

        def heard(each: _Kept) -> Heard:
            silence_s = now - max(each.heard_at, since)
            is_silent = in_touch and silence_s > SILENT_AFTER_S and each.report.state is not PipelineState.STOPPED
            return Heard(each.report, max(0.0, now - each.heard_at), is_silent)

        return tuple(sorted(map(heard, kept), key=lambda each: each.age_s))

    # -- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with closing(self._open_consumer()) as consumer:
                    consumer.assign([TopicPartition(STATUS_TOPIC, 0, OFFSET_BEGINNING)])
                    self._found = {}
                    while not self._stop.is_set():
                        self._turn(consumer)
            except UnknownTopic:  # the first writer that runs here makes it
                self._found, self._trouble = {}, None
                self._take_over()
                self._stop.wait(AGAIN_AFTER_S)
            except Exception as error:  # the thread's loop: nothing may end it in silence
                self._lost(error)
                self._stop.wait(AGAIN_AFTER_S)

    def _turn(self, consumer: Consumer) -> None:
        message = consumer.poll(POLL_S)
        error = None if message is None else message.error()
        if message is not None and error is None:
            self._keep(message)
        elif error is not None and error.code() == KafkaError._PARTITION_EOF:
            self._take_over()
        elif error is not None:
            mapped = map_kafka_error(error, f"read {STATUS_TOPIC}")
            if not isinstance(mapped, Transient):
                raise mapped
            self._lost(mapped)  # librdkafka reconnects by itself
        if self._clock() - self._asked_at >= CONTACT_EVERY_S:
            self._ask(consumer)

    def _ask(self, consumer: Consumer) -> None:
        """Find out whether Kafka answers: a consumer that hears nothing cannot tell."""
        self._asked_at = self._clock()
        try:
            consumer.get_watermark_offsets(TopicPartition(STATUS_TOPIC, 0), CONTACT_TIMEOUT_S)
        except KafkaException as error:
            self._lost(map_kafka_error(error, f"read {STATUS_TOPIC}"))
            return
        if self._trouble is not None:
            log.info("reports of writers are read again")
            self._in_touch_since = self._clock()
            self._trouble = None

    def _keep(self, message: Message) -> None:
        pipeline, writer = key_of(message)
        value = message.value()
        try:
            report = decode_report(value) if value is not None else None
        except InvalidEvent as error:
            log.warning("report left out", pipeline=pipeline, writer=writer, reason=str(error))
            return
        if self._found is not None:
            _set(self._found, pipeline, writer, report, self._clock() - self._age_s(report))
            return
        with self._lock:
            _set(self._kept, pipeline, writer, report, self._clock())
        self._on_change(pipeline)

    def _take_over(self) -> None:
        """The end was reached: what was found is all that there is."""
        if self._found is None:
            return
        with self._lock:
            names = self._kept.keys() | self._found.keys()
            self._kept, self._found = self._found, None
        self._caught_up.set()
        for name in names:
            self._on_change(name)

    def _age_s(self, report: WriterReport | None) -> float:
        """How old a report is that was found, by the writer's clock; one that comes is new, whatever that says."""
        return 0.0 if report is None else max(0.0, self._wall_clock() - report.at_ms / 1000)

    def _lost(self, error: Exception) -> None:
        reason = shown(error)
        if self._trouble is None:
            log.warning("reports of writers cannot be read", reason=reason, exc_info=not isinstance(error, CdcError))
        self._trouble = reason


def _set(reports: _Reports, pipeline: str, writer: str, report: WriterReport | None, heard_at: float) -> None:
    of_pipeline = reports.setdefault(pipeline, {})
    if report is None:
        of_pipeline.pop(writer, None)
    else:
        of_pipeline[writer] = _Kept(report, heard_at)
    if not of_pipeline:
        del reports[pipeline]


def _status_consumer(bootstrap_servers: str) -> Consumer:
    """Raises `UnknownTopic` while no writer has made the topic, `Transient` without Kafka."""
    if not has_topic(bootstrap_servers, STATUS_TOPIC):
        raise UnknownTopic(f"{STATUS_TOPIC} does not exist: no writer has run here yet")
    return whole_topic_consumer(bootstrap_servers)
