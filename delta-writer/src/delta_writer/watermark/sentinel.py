"""Source time by a sentinel: a document in the source whose change comes through the stream like every other.

A change stream is ordered by the source's cluster time. So when the sentinel's change is seen, committed, in its topic,
everything that happened before it in the source has been sent. Which time that is, the sentinel says itself: it carries
the operation time of an answer that came *before* it was written. Its event's own `ts_ms` would not do: that is the
server's wall clock, which may run ahead of the cluster time and does not order events.
"""

import json
import time
import uuid
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from confluent_kafka import OFFSET_END, Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc_shared.errors import CdcError, Fatal, Transient
from cdc_shared.kafka.errors import kafka_errors, map_kafka_error
from cdc_shared.kafka.topics import UnknownTopic, sentinel_topic, topic_id
from cdc_shared.models.common import SENTINEL_COLLECTION, PipelineSpec
from cdc_shared.source.mongodb_source import MongodbSource, operation_time_ms

MAX_MESSAGES_A_POLL: Final = 500
TAKE_OVER_FACTOR: Final = 1.5
"""A writer leaves it to another one as long as that one's come in time."""
TOPIC_RETRY_S: Final = 1.0
_FIELD: Final = "source_time"  # the time in seconds, a space, and who wrote it


class Sentinel(NamedTuple):
    """Everything in the source strictly before `time_ms` came before this in the stream."""

    time_ms: int
    writer: str


class SentinelTopicTaken(Fatal):
    """Another collection's changes come in the sentinel's topic, which no table is made of: they would be lost."""


class SentinelSource:
    """Writes the pipeline's sentinel every `interval_s` and watches for it in its topic. Not thread-safe.

    Several writers of one pipeline share the document: whoever's came last goes on, the others step in when it stops.
    """

    def __init__(
        self,
        spec: PipelineSpec,
        source: MongodbSource,
        admin: AdminClient,
        bootstrap_servers: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is connected before the first `next`. `clock` is monotonic, in seconds."""
        self._pipeline, self._database = spec.name, spec.source.database
        self._interval_s = spec.watermark.interval_s
        self._source = source
        self._admin = admin
        self._bootstrap_servers = bootstrap_servers
        self._clock = clock
        self._topic = sentinel_topic(spec.name, spec.source.database)
        self._consumer: Consumer | None = None
        self._topic_looked_for_at = -TOPIC_RETRY_S
        self._due_at = clock()
        self._name = uuid.uuid4().hex

    def next(self, timeout_s: float) -> int | None:
        """Wait for a sentinel; return the time, in ms, strictly before which the connector has sent everything.

        None when none came. Raises `Transient` while the source or Kafka is away, `Fatal` with the remedy when the
        source refuses; whatever sentinels another writer has written are seen all the same.
        """
        trouble: CdcError | None = None
        if self._clock() >= self._due_at:
            self._due_at = self._clock() + self._interval_s
            try:
                self._write()
            except Transient as error:
                trouble = error
            except Fatal as error:
                trouble = Fatal(f"{error}; where the source may not be written, set watermark.source: resume_token")
        try:
            seen_ms = self._see(timeout_s)
        except Transient as error:
            raise trouble or error from None
        if seen_ms is None and trouble is not None:
            raise trouble
        return seen_ms

    def close(self) -> None:
        """Give the consumer back; the source belongs to somebody else."""
        if self._consumer is not None:
            self._consumer.close()

    def _write(self) -> None:
        """Touch the document, then set in it the source's time of that: it lies before the second write."""
        with self._source.asking(
            f"write the watermark's sentinel to {self._database}.{SENTINEL_COLLECTION}"
        ) as session:
            collection = self._source.database(self._database)[SENTINEL_COLLECTION]
            which = {"_id": self._pipeline}
            collection.update_one(which, {"$inc": {"written": 1}}, upsert=True, session=session)
            told = f"{operation_time_ms(session) // 1000} {self._name}"
            collection.update_one(which, {"$set": {_FIELD: told}}, session=session)

    def _see(self, timeout_s: float) -> int | None:
        """Return the newest time that a sentinel in the topic tells of, waiting up to `timeout_s` for the first."""
        consumer = self._watching()
        if consumer is None:
            raise UnknownTopic(
                f"no change of {self._database}.{SENTINEL_COLLECTION} has come yet: the connector still takes its "
                "snapshot, or does not capture that collection (render its configuration anew)"
            )
        with kafka_errors(f"reading {self._topic}"):
            messages = consumer.consume(MAX_MESSAGES_A_POLL, timeout_s)
        sentinels = [seen for message in messages if (seen := self._read(message)) is not None]
        if not sentinels:
            return None
        time_ms, writer = sentinels[-1]
        self._due_at = self._clock() + self._interval_s * (1 if writer == self._name else TAKE_OVER_FACTOR)
        return time_ms

    def _watching(self) -> Consumer | None:
        """Return the consumer, at the topic's end; None while there is no topic."""
        if self._consumer is None and self._clock() - self._topic_looked_for_at >= TOPIC_RETRY_S:
            self._topic_looked_for_at = self._clock()
            try:
                identity = topic_id(self._admin, self._topic)
            except UnknownTopic:
                return None
            self._consumer = Consumer(_consumer_config(self._bootstrap_servers))
            self._consumer.assign([TopicPartition(self._topic, p, OFFSET_END) for p in range(identity.partitions)])
        return self._consumer

    def _read(self, message: Message) -> Sentinel | None:
        """Return what a sentinel's change says; None for every other record."""
        if (error := message.error()) is not None:
            self._note(error)
            return None
        value = message.value()
        return None if value is None else read_sentinel(value)

    def _note(self, error: KafkaError) -> None:
        mapped = map_kafka_error(error, f"reading {self._topic}")
        if not isinstance(mapped, Transient):  # librdkafka reconnects by itself
            raise mapped


def read_sentinel(value: bytes) -> Sentinel | None:
    """Return what a change of the sentinel set; None when the record is no such change.

    What an update set is read from its description: the document beside it was looked up later and may be newer. What
    a snapshot read is no change, and says nothing of the stream.

    Raises:
        SentinelTopicTaken: it is a change of another collection.
    """
    try:
        event = json.loads(value)
        op, collection = event["op"], event["source"]["collection"]
        update = event["updateDescription"] or {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if collection != SENTINEL_COLLECTION:
        raise SentinelTopicTaken(
            f"the collection {collection} has, once Kafka's rules for topic names are applied, the name of the "
            f"platform's own {SENTINEL_COLLECTION}: rename it, or exclude it from the pipeline"
        )
    try:
        told = json.loads(update["updatedFields"])[_FIELD] if op == "u" else ""
        time_s, writer = told.split(" ")
        return Sentinel(int(time_s) * 1000, writer)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _consumer_config(bootstrap_servers: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": bootstrap_servers,
        "group.id": "cdc.sentinel-reader",  # librdkafka asks for one; nothing is committed under it
        "enable.auto.commit": False,
        "isolation.level": "read_committed",  # of a transaction that may still be aborted, nothing follows
        "auto.offset.reset": "latest",  # an old sentinel is worth nothing
    }
