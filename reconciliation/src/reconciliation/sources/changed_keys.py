"""Which documents changed between two points of a collection's change topic: the keys of the events in between.

Keys alone are looked at. Whatever has a key counts: changes, snapshot reads, re-read requests, tombstones, records of
transactions that were aborted, and those of another collection whose name Debezium spells the same.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc_shared.errors import CdcError, Transient
from cdc_shared.kafka.errors import kafka_errors, map_kafka_error
from cdc_shared.kafka.partition_ends import written_ends
from cdc_shared.kafka.topics import TopicIdentity, UnknownTopic, change_topic, held_offsets, topic_id
from cdc_shared.models.collection import Collection
from reconciliation.reconciler.result import TopicPositions

POLL_S: Final = 0.2
READ_TIMEOUT_S: Final = 30.0
RECORDS_A_POLL: Final = 5_000


class PositionsGone(CdcError):
    """Kafka does not have every event of the range: retention has dropped some, or the topic was made again."""


class TooManyKeys(CdcError):
    """More documents changed than the caller has room for."""


class _Key(msgspec.Struct, gc=False):
    id: str


_decode = msgspec.json.Decoder(_Key).decode


class ChangedKeys:
    """Reads one collection's change topic. Blocks up to `READ_TIMEOUT_S` for an answer; not thread-safe."""

    def __init__(self, bootstrap_servers: str, pipeline: str, collection: Collection) -> None:
        self.topic = change_topic(pipeline, collection.database, collection.name)
        # Not at librdkafka's own level, 6: it would tell people that it closed an admin client's queue.
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 5})
        config: dict[str, Any] = {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "cdc.changed-keys",  # librdkafka asks for one; nothing is committed under it
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            # An event that is not committed yet, or never will be, is one too many and does no harm.
            "isolation.level": "read_uncommitted",
            "fetch.queue.backoff.ms": 5,
        }
        self._consumer = Consumer(config)

    def ends(self) -> TopicPositions:
        """Return how far each partition is written, records of open transactions included.

        Raises `UnknownTopic` (a `Transient`) when there is no topic, `Transient` and `Fatal` for Kafka's errors.
        """
        identity = topic_id(self._admin, self.topic)
        ends = written_ends(self._admin, [(self.topic, partition) for partition in range(identity.partitions)])
        if len(ends) != identity.partitions or topic_id(self._admin, self.topic) != identity:
            raise Transient(f"topic {self.topic} was made again while its ends were read")
        return TopicPositions(identity.id, {partition: end for (_, partition), end in ends.items()})

    def keys_between(self, start: TopicPositions, end: Mapping[int, int], max_keys: int | None = None) -> set[str]:
        """Return the key texts of all events from `start` up to, not including, `end`, by partition.

        Raises:
            PositionsGone: Kafka does not have all of them any more.
            TooManyKeys: there are more than `max_keys`.
            Transient, Fatal: Kafka's errors.
        """
        ranges = {p: (start.offsets.get(p, 0), to) for p, to in end.items() if to > start.offsets.get(p, 0)}
        self._check_held(start, ranges)
        keys: set[str] = set()
        if ranges:
            for message in self._messages(ranges):
                key = key_text_of(message.key())
                if key is not None:
                    keys.add(key)
                    if max_keys is not None and len(keys) > max_keys:
                        raise TooManyKeys(f"more than {max_keys:,} documents changed")
            self._check_held(start, ranges)
        return keys

    def close(self) -> None:
        """Give the consumer back."""
        self._consumer.close()

    def _check_held(self, start: TopicPositions, ranges: Mapping[int, tuple[int, int]]) -> None:
        """Asked before and after reading: what was dropped in between was perhaps not read."""
        try:
            identity = topic_id(self._admin, self.topic)
            held = held_offsets(self._admin, self.topic, identity.partitions)
        except UnknownTopic:
            identity, held = TopicIdentity("", 0), {}
        if identity.id != start.topic_id:
            raise PositionsGone(f"topic {self.topic} was made again since")
        for partition, (begin, end) in ranges.items():
            low, high = held.get(partition, (0, 0))
            if begin < low:
                raise PositionsGone(
                    f"Kafka's retention has dropped {self.topic}[{partition}] before offset {low:,}, and what was "
                    f"verified last ends at {begin:,}"
                )
            if end > high:
                raise PositionsGone(
                    f"{self.topic}[{partition}] ends at {high:,}, before offset {end:,}: it lost records"
                )

    def _messages(self, ranges: Mapping[int, tuple[int, int]]) -> Iterable[Message]:
        """Yield every record of the ranges."""
        what = f"read the events of {self.topic}"
        left = {partition: end for partition, (_, end) in ranges.items()}
        with kafka_errors(what):
            self._consumer.assign([TopicPartition(self.topic, p, begin) for p, (begin, _) in ranges.items()])
            try:
                silent_s = 0.0
                while left:
                    messages = self._consumer.consume(RECORDS_A_POLL, POLL_S)
                    silent_s = 0.0 if messages else silent_s + POLL_S
                    if silent_s >= READ_TIMEOUT_S:
                        raise Transient(f"{what}: no answer within {READ_TIMEOUT_S:.0f} s")
                    for message in messages:
                        yield from self._within(message, left, what)
            finally:
                self._consumer.unassign()

    def _within(self, message: Message, left: dict[int, int], what: str) -> Iterable[Message]:
        """Yield the record if it is asked for; a partition that is read to its end is taken out of `left`."""
        partition, offset = int(message.partition() or 0), int(message.offset() or 0)
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            if error.code() in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET):
                raise PositionsGone(f"{what}: {error.str()}")
            raise map_kafka_error(KafkaException(error), what)
        end = left.get(partition)
        if end is None:
            return
        if error is None and offset < end:
            yield message
        # The last record may have been a transaction's marker, which only the partition's end tells of.
        if offset >= (end - 1 if error is None else end):
            del left[partition]


def key_text_of(key: bytes | str | None) -> str | None:
    """The text of the `_id` in a record's key; None for a record that is no document's."""
    try:
        return _decode(key).id if key is not None else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
