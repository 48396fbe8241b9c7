"""Follows the snapshots of all pipelines, for those who show how far they are. Makes and changes nothing."""

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from cdc_shared.errors import CdcError, Transient
from cdc_shared.kafka.errors import kafka_errors, map_kafka_error
from cdc_shared.kafka.topics import change_topic, notification_topic
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.common import PipelineSpec
from cdc_shared.snapshots.notifications import NotificationKind, SnapshotAttempt, SnapshotHistory, decode_notification
from cdc_shared.snapshots.snapshot_progress import SnapshotProgress, SnapshotState, progress_of
from cdc_shared.snapshots.topic_positions import CLOCK_MARGIN_MS

REQUEST_TIMEOUT_S: Final = 10.0
READ_FOR_S: Final = 5.0
RECORDS_A_READ: Final = 1_000
READ_WAIT_S: Final = 0.1
RATE_WINDOW_S: Final = 60.0

CountDocuments = Callable[[PipelineSpec], Mapping[str, int]]
"""About how many documents each captured collection has (`collection_counts.count_documents`)."""

Partition = tuple[str, int]

log = get_logger(__name__)


@dataclass(slots=True)
class _Followed:
    """One pipeline, as far as its notifications have been read."""

    history: SnapshotHistory = field(default_factory=SnapshotHistory)
    started_ms: int = 0
    completed_ms: int | None = None
    attempt: SnapshotAttempt | None = None
    """What the rest is of."""
    totals: Mapping[str, int] | None = None
    firsts: dict[Partition, int] = field(default_factory=dict)
    """The offset of its first record."""
    samples: deque[tuple[float, int]] = field(default_factory=deque)
    """When it had sent how many records."""

    def begin(self, attempt: SnapshotAttempt) -> None:
        """Count for another attempt from now on."""
        self.attempt, self.totals = attempt, None
        self.firsts.clear()
        self.samples.clear()

    def take_in(self, message: Message) -> None:
        notification = decode_notification(message.value(), int(message.offset() or 0))
        if notification is None:
            return
        if notification.kind is NotificationKind.STARTED:
            self.started_ms, self.completed_ms = notification.at_ms, None
        elif notification.kind is NotificationKind.COMPLETED and self.history.open is not None:
            self.completed_ms = notification.at_ms
        self.history.add(notification)

    def rate(self, now_s: float, documents: int) -> float | None:
        """Documents a second over the last minute; None before the second look."""
        self.samples.append((now_s, documents))
        while now_s - self.samples[0][0] > RATE_WINDOW_S:
            self.samples.popleft()
        since_s, before = self.samples[0]
        return (documents - before) / (now_s - since_s) if now_s > since_s else None


class SnapshotFollower:
    """Looks at the snapshots of pipelines, of which it remembers what it has read. Not thread-safe."""

    def __init__(
        self, bootstrap_servers: str, count_documents: CountDocuments, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`count_documents` is asked once an attempt; while it raises a `CdcError` there are no totals."""
        self._count_documents = count_documents
        self._clock = clock
        # The clients' own log would say many times a second that Kafka is away; whoever looks is told.
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "cdc.snapshot-follower",  # librdkafka asks for one; nothing is committed under it
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        self._followed: dict[str, _Followed] = {}
        self._unread: set[str] = set()
        """Topics whose end has not been reached yet."""

    def look(
        self, specs: Collection[PipelineSpec], asked: Mapping[str, Collection[str]] | None = None
    ) -> dict[str, SnapshotProgress]:
        """Return how far the last snapshot of each pipeline is; those that never began one are missing.

        Args:
            specs: all pipelines; one that is missing is forgotten.
            asked: pipeline → the collections that a resync has asked for, where it is not of all.

        Blocks for seconds. Raises `Transient` or `Fatal`.
        """
        with kafka_errors("looking at snapshots"):
            partitions = self._topics()
            self._follow([spec.name for spec in specs], partitions)
            self._read()
        found = {}
        for spec in specs:
            followed = self._followed.get(spec.name)
            if followed is None or not followed.started_ms or notification_topic(spec.name) in self._unread:
                continue
            expected = (asked or {}).get(spec.name)
            found[spec.name] = self._progress(spec, followed, expected, partitions)
        return found

    def close(self) -> None:
        """Give the consumer back."""
        self._consumer.close()

    # -- notifications ------------------------------------------------------------------------------------------------

    def _topics(self) -> dict[str, int]:
        """Topic → its number of partitions, of all that there are."""
        found = self._admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
        return {name: len(each.partitions) for name, each in found.items()}

    def _follow(self, names: Collection[str], topics: Collection[str]) -> None:
        """Begin with those that are new, and forget those that are gone: made again, they begin anew."""
        there = {name for name in names if notification_topic(name) in topics}
        gone, new = self._followed.keys() - there, there - self._followed.keys()
        if gone:
            self._consumer.incremental_unassign([TopicPartition(notification_topic(name), 0) for name in gone])
            self._unread -= {notification_topic(name) for name in gone}
        if new:
            topics_from_start = [TopicPartition(notification_topic(name), 0, OFFSET_BEGINNING) for name in new]
            self._consumer.incremental_assign(topics_from_start)
            self._unread |= {each.topic for each in topics_from_start}
        self._followed = {name: self._followed.get(name) or _Followed() for name in there}

    def _read(self) -> None:
        """Take in what has come; of topics that are new everything, for as long as it may take."""
        by_topic = {notification_topic(name): followed for name, followed in self._followed.items()}
        deadline_s = self._clock() + READ_FOR_S
        while by_topic and self._clock() < deadline_s:
            messages = self._consumer.consume(RECORDS_A_READ, READ_WAIT_S)
            for message in messages:
                self._take_in(message, by_topic)
            if not messages and not self._unread:
                return

    def _take_in(self, message: Message, by_topic: Mapping[str, _Followed]) -> None:
        topic, error = str(message.topic()), message.error()
        if error is None:
            by_topic[topic].take_in(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            self._unread.discard(topic)
        elif not isinstance(mapped := map_kafka_error(error, f"read {topic}"), Transient):
            raise mapped  # librdkafka reconnects by itself after the others

    # -- counts -------------------------------------------------------------------------------------------------------

    def _progress(
        self,
        spec: PipelineSpec,
        followed: _Followed,
        expected: Collection[str] | None,
        partitions: Mapping[str, int],
    ) -> SnapshotProgress:
        attempt = followed.history.open
        if attempt is None:
            state = SnapshotState.ABANDONED if followed.completed_ms is None else SnapshotState.COMPLETED
            percent = None if followed.completed_ms is None else 100.0
            return SnapshotProgress(state, followed.started_ms, followed.completed_ms, percent=percent)
        if followed.attempt is not attempt:
            followed.begin(attempt)
        if followed.totals is None:
            followed.totals = self._totals(spec)
        database = spec.source.database
        names = {name.removeprefix(f"{database}.") for name in attempt.collections}
        topics = {name: change_topic(spec.name, database, name) for name in names}
        try:
            counted = self._sent(followed, attempt, {topic: partitions.get(topic, 0) for topic in topics.values()})
        except Transient as error:
            log.warning("the records of a snapshot cannot be counted", pipeline=spec.name, reason=str(error))
            return SnapshotProgress(SnapshotState.RUNNING, attempt.started_ms)
        sent = {name: counted[topic] for name, topic in topics.items()}
        rate = followed.rate(self._clock(), sum(sent.values()))
        return progress_of(attempt, database, sent, followed.totals, expected, rate)

    def _totals(self, spec: PipelineSpec) -> Mapping[str, int] | None:
        try:
            return self._count_documents(spec)
        except CdcError as error:
            log.warning("the documents of a snapshot cannot be counted", pipeline=spec.name, reason=str(error))
            return None

    def _sent(self, followed: _Followed, attempt: SnapshotAttempt, topics: Mapping[str, int]) -> dict[str, int]:
        """Topic → the records that came since the attempt began."""
        parts = [(topic, p) for topic, partitions in topics.items() for p in range(partitions)]
        missing = [each for each in parts if each not in followed.firsts]
        since = OffsetSpec.for_timestamp(attempt.started_ms - CLOCK_MARGIN_MS)
        followed.firsts |= {part: at for part, at in self._offsets(missing, since).items() if at >= 0}
        ends = self._offsets(parts, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        sent = dict.fromkeys(topics, 0)
        for part in parts:
            sent[part[0]] += max(0, ends[part] - followed.firsts.get(part, ends[part]))
        return sent

    def _offsets(self, parts: Collection[Partition], spec: OffsetSpec) -> dict[Partition, int]:
        if not parts:
            return {}
        asked = {TopicPartition(topic, partition): spec for topic, partition in parts}
        futures = self._admin.list_offsets(asked, request_timeout=REQUEST_TIMEOUT_S)
        with kafka_errors("reading the offsets of change topics"):
            return {
                (each.topic, each.partition): int(future.result(REQUEST_TIMEOUT_S + 5).offset)
                for each, future in futures.items()
            }
