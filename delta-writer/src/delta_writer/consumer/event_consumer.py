"""Kafka's side of a pipeline: group membership, positions, and messages. Where to read is the table's to say."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from cdc_shared.delta.offsets import resync_remedy
from cdc_shared.errors import ResyncNeeded
from cdc_shared.kafka.consumer_groups import writer_group
from cdc_shared.kafka.errors import kafka_errors, map_kafka_error
from cdc_shared.kafka.topics import sentinel_topic

MAX_POLL_INTERVAL_MS: Final = 300_000
METADATA_REFRESH_MS: Final = 5_000
MAX_HEARTBEAT_MS: Final = 3_000
FETCH_BACKOFF_MS: Final = 5  # the default of 1 s halves throughput whenever the local queue fills up
MAX_MESSAGES_A_POLL: Final = 10_000
WATERMARK_TIMEOUT_S: Final = 15.0

HeldOffsets = Callable[[], tuple[int, int]]
"""Asks Kafka for the first offset that it holds of a partition, and for its end, as they are now."""
OnAssigned = Callable[[str, int, HeldOffsets], int]
"""(topic, partition, what Kafka holds of it) → the offset to read next."""
OnRevoked = Callable[[list[tuple[str, int]]], None]


class PartitionEnd(NamedTuple):
    """Everything of the partition before `offset` was consumed, or is nothing to consume: transaction markers, and
    what transactions that were aborted wrote. What an open transaction writes lies at `offset` or behind it.
    """

    topic: str
    partition: int
    offset: int


def consumer_config(
    bootstrap_servers: str, pipeline: str, session_timeout_s: float, instance_id: str | None
) -> dict[str, Any]:
    """Return librdkafka's settings for the consumer group of one pipeline.

    With an `instance_id` the member is static: a writer of the same id takes over its partitions at once, and Kafka
    shuts the one before out (docs/adr/0006-static-membership.md).
    """
    session_timeout_ms = int(session_timeout_s * 1000)
    return {
        "bootstrap.servers": bootstrap_servers,
        "group.id": writer_group(pipeline),
        "enable.auto.commit": False,
        "auto.offset.reset": "error",  # an offset that Kafka no longer has is never skipped in silence
        "isolation.level": "read_committed",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": session_timeout_ms,
        "heartbeat.interval.ms": min(MAX_HEARTBEAT_MS, session_timeout_ms // 3),
        "max.poll.interval.ms": MAX_POLL_INTERVAL_MS,
        "topic.metadata.refresh.interval.ms": METADATA_REFRESH_MS,
        "fetch.queue.backoff.ms": FETCH_BACKOFF_MS,
        "enable.partition.eof": True,
        # The subscription would take it for a collection's. Debezium's topics have no other dot before the collection.
        "topic.blacklist": f"^{re.escape(sentinel_topic(pipeline, 'database')).replace('database', '[^.]+')}$",
        **({} if instance_id is None else {"group.instance.id": instance_id}),
    }


def topic_pattern(pipeline: str) -> str:
    """Return the pattern of a pipeline's change topics, `<pipeline>.<database>.<collection>`, now and later."""
    return f"^{re.escape(pipeline)}\\..+"


class EventConsumer:
    """A member of a pipeline's group. Not thread-safe; callbacks run inside `poll`, `keep_alive` and `close`.

    Every method that talks to Kafka raises `Transient` when it is away, `ResyncNeeded` when an offset is gone, and
    whatever the callbacks raise.
    """

    def __init__(
        self, config: Mapping[str, Any], pipeline: str, on_assigned: OnAssigned, on_revoked: OnRevoked
    ) -> None:
        self._consumer = Consumer(dict(config))
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._pipeline = pipeline
        self._may_be_remembered = "group.instance.id" in config
        self._rejoin_is_due = False
        self._moved: dict[tuple[str, int], int] = {}
        self._subscribe()

    def poll(self, timeout_s: float) -> list[Message | PartitionEnd]:
        """Return what has come, waiting up to `timeout_s` for the first: messages, and ends of partitions reached.

        A partition's messages and ends are in order. An end is told when it is reached, and again after a pause.
        """
        with kafka_errors("reading change topics"):
            if self._rejoin_is_due:
                self._rejoin()
            self._moved.clear()
            messages = self._consumer.consume(MAX_MESSAGES_A_POLL, timeout_s)
        if self._moved:
            messages = self._without_moved(messages)
        if any(message.error() is not None for message in messages):
            return [each for message in messages if (each := _read(message)) is not None]
        return list(messages)

    def keep_alive(self, seconds: float) -> None:
        """Wait without reading: the partitions are paused, but the group sees a living member."""
        with kafka_errors("keeping the group membership"):
            self._consumer.pause(self._consumer.assignment())
            try:
                message = self._consumer.poll(seconds)
                if message is not None and isinstance(_read(message), Message):  # fetched before the pause
                    self.seek(str(message.topic()), int(message.partition() or 0), int(message.offset() or 0))
            finally:
                self._consumer.resume(self._consumer.assignment())

    def assigned(self) -> list[tuple[str, int]]:
        """Return the partitions that this member reads, as (topic, partition)."""
        return [(each.topic, each.partition) for each in self._consumer.assignment()]

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Read the partition from `offset` next."""
        with kafka_errors(f"seeking {topic}[{partition}]"):
            self._consumer.seek(TopicPartition(topic, partition, offset))
        self._moved[topic, partition] = offset

    def held(self, topic: str, partition: int) -> tuple[int, int]:
        """Return the first offset that Kafka holds of a partition, and its end."""
        with kafka_errors(f"reading the offsets of {topic}[{partition}]"):
            low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), WATERMARK_TIMEOUT_S)
        return low, high

    def lag(self, topic: str, partition: int, offset: int) -> int:
        """Return how many offsets lie between `offset` and the partition's end as last seen with a fetch."""
        held = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        return 0 if held is None else max(0, held[1] - offset)

    def hint_offsets(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Tell Kafka how far the table is: a hint for people and lag tools, never read by the writer."""
        positions = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        with suppress(KafkaException):
            self._consumer.commit(offsets=positions, asynchronous=True)

    def close(self) -> None:
        """Leave the group, so that others take over at once."""
        self._consumer.close()

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            [topic_pattern(self._pipeline)], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def _rejoin(self) -> None:
        """Have the group's partitions given out anew.

        To a member that comes back under its own name Kafka gives the partitions that it had, and nobody then notices
        the topics that were made meanwhile (KIP-814, which librdkafka does not have).
        """
        self._rejoin_is_due = False
        self._consumer.unsubscribe()
        self._subscribe()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rejoin_is_due, self._may_be_remembered = self._may_be_remembered, False
        positions = []
        for each in partitions:
            start = self._on_assigned(each.topic, each.partition, partial(self.held, each.topic, each.partition))
            positions.append(TopicPartition(each.topic, each.partition, start))
            self._moved[each.topic, each.partition] = start
        consumer.incremental_assign(positions)

    def _without_moved(self, messages: list[Message]) -> list[Message]:
        """Drop what came, in the call that the position was moved in, of partitions that were; read them once more.

        It may have been taken before the move. librdkafka purges that itself, unless the call's room was used up.
        """
        stale = {where for message in messages if (where := (message.topic(), message.partition())) in self._moved}
        for topic, partition in stale:
            self.seek(str(topic), int(partition or 0), self._moved[str(topic), int(partition or 0)])
        return [message for message in messages if (message.topic(), message.partition()) not in stale]

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._on_revoked([(each.topic, each.partition) for each in partitions])
        consumer.incremental_unassign(partitions)


# librdkafka goes on by itself after these. A topic is unknown before its first event, and after somebody deleted it;
# when it comes back, its id tells that it is another one.
_NOTICES: Final = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)


def _read(message: Message) -> Message | PartitionEnd | None:
    """Tell a record, the end of a partition, and an error that librdkafka recovers from by itself (None) apart.

    Raises:
        ResyncNeeded: the next offset is no longer in Kafka.
        Transient, Fatal: anything else that Kafka reports.
    """
    error = message.error()
    if error is None:
        return message
    code = error.code()
    if code == KafkaError._PARTITION_EOF:
        return PartitionEnd(str(message.topic()), int(message.partition() or 0), int(message.offset() or 0))
    where = f"{message.topic()}[{message.partition()}]"
    if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        raise ResyncNeeded(
            f"resync needed: the next offset of {where} is no longer in Kafka ({error.str()}); "
            f"{resync_remedy(str(message.topic()))}"
        )
    if code in _NOTICES:
        return None
    raise map_kafka_error(error, f"reading {where}")
