"""The topic `cdc.dead-letters`: its configuration, and reading the letters that stand in it.

A letter stands from its record on until a newer one of the same key: itself again, or the null that says that it is
done with. So the topic is read twice: once to see which records stand (its keys are kept, not its values), and once to
give them out, one at a time. Reading needs no consumer group and sees committed transactions only.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from time import monotonic
from typing import Any, Final, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc_shared.dead_letters.letter import ALL_LETTERS, Letter, LetterFilter, NoLetter, Place, StoredLetter
from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.errors import map_kafka_error
from cdc_shared.kafka.topics import DEAD_LETTERS_TOPIC, ensure_topic
from cdc_shared.logging.structured_logger import get_logger

DAY_MS: Final = 24 * 3600 * 1000
RETENTION_DAYS: Final = 30
MAX_RECORD_BYTES: Final = 2 * 1024 * 1024
"""Above `MAX_INLINE_BYTES` of the writer: a sealed record and its headers fit."""
READ_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.05
"""Short: a poll waits for that long at the end of the topic, where fewer records are left than it asks for."""
RECORDS_A_POLL: Final = 100

Progress = Callable[[int], None]
"""Called now and then with how many letters were dealt with so far."""

log = get_logger(__name__)


class LetterReader(Protocol):
    """What is used of `confluent_kafka.Consumer`."""

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int] | None: ...
    def assign(self, partitions: list[TopicPartition]) -> None: ...
    def consume(self, num_messages: int, timeout: float) -> list[Message]: ...
    def close(self) -> None: ...


def dead_letters_config(retention_days: int = RETENTION_DAYS) -> dict[str, str]:
    """The topic's configuration. A letter that was done with is off the disks about two days later."""
    return {
        "cleanup.policy": "compact,delete",
        "retention.ms": str(retention_days * DAY_MS),
        # Only closed segments are cleaned.
        "segment.ms": str(DAY_MS),
        "max.compaction.lag.ms": str(DAY_MS),
        "max.message.bytes": str(MAX_RECORD_BYTES),
    }


def ensure_dead_letters_topic(admin: AdminClient, retention_days: int = RETENTION_DAYS) -> None:
    """Make the topic, or bring the one that exists to this configuration. Raises what `ensure_topic` does."""
    ensure_topic(admin, DEAD_LETTERS_TOPIC, 1, dead_letters_config(retention_days))


class LetterTopic:
    """The letters that stand. A topic that does not exist yet has none."""

    def __init__(self, open_reader: Callable[[], LetterReader]) -> None:
        self._open_reader = open_reader

    @classmethod
    def on(cls, bootstrap_servers: str) -> "LetterTopic":
        """The letters of this Kafka."""
        return cls(lambda: _consumer(bootstrap_servers))

    def letters(self, which: LetterFilter = ALL_LETTERS, after: int = -1) -> Iterator[StoredLetter]:
        """The letters that fit, oldest first, as they stood at the call; those behind offset `after` of the topic.

        Raises `Transient` when Kafka does not answer, `Fatal` when it refuses.
        """
        with closing(self._open_reader()) as reader:
            standing = self._standing(reader, which, after)
            if not standing:
                return
            offsets = standing.values()  # ascending
            for record in self._records(reader, min(offsets), max(offsets) + 1):
                if standing.get(_key(record)) == record.offset() and (stored := _stored(record)) is not None:
                    yield stored

    def letter(self, place: Place) -> StoredLetter:
        """One letter. Raises `NoLetter`, and what `letters` does."""
        found = None
        with closing(self._open_reader()) as reader:
            for record in self._records(reader, 0, None):
                if _key(record) == str(place).encode():
                    found = _stored(record)
        if found is None:
            raise NoLetter(f"there is no dead letter {place}: it was replayed, discarded or has expired, or never was")
        return found

    def _standing(self, reader: LetterReader, which: LetterFilter, after: int) -> dict[bytes, int]:
        """The offset of the record of each letter that fits, by the record's key, in the offsets' order."""
        standing: dict[bytes, int] = {}
        foreign = 0
        for record in self._records(reader, 0, None):
            standing.pop(_key(record), None)
            stored = _stored(record)
            foreign += stored is None and record.value() is not None
            if stored is not None and stored.offset > after and which.fits(stored.letter, stored.written_ms):
                standing[_key(record)] = stored.offset
        if foreign:
            log.warning("records that are no dead letters are left out", topic=DEAD_LETTERS_TOPIC, records=foreign)
        return standing

    def _records(self, reader: LetterReader, start: int, end: int | None) -> Iterator[Message]:
        """The records from `start` to before `end`; None is the end as it is now."""
        what = f"read {DEAD_LETTERS_TOPIC}"
        partition = TopicPartition(DEAD_LETTERS_TOPIC, 0)
        try:
            low, high = reader.get_watermark_offsets(partition, READ_TIMEOUT_S) or (0, 0)
            end = high if end is None else min(end, high)
            if max(start, low) >= end:
                return
            reader.assign([TopicPartition(DEAD_LETTERS_TOPIC, 0, max(start, low))])
            deadline_s = monotonic() + READ_TIMEOUT_S
            while True:
                batch = reader.consume(RECORDS_A_POLL, POLL_S)
                if batch:
                    deadline_s = monotonic() + READ_TIMEOUT_S
                elif monotonic() > deadline_s:
                    raise Transient(f"{what}: no answer within {READ_TIMEOUT_S:.0f} s")
                for record in batch:
                    error = record.error()
                    offset: int = record.offset()  # type: ignore[assignment]  # of a record that was consumed
                    if error is None and offset < end:
                        yield record
                    elif error is not None and error.code() != KafkaError._PARTITION_EOF:
                        mapped = map_kafka_error(error, what)
                        if isinstance(mapped, Fatal):  # librdkafka reconnects by itself
                            raise mapped
                        continue
                    # The last record may have been a transaction's marker, which only the partition's end tells of.
                    if error is not None or offset >= end - 1:
                        return
        except KafkaException as error:
            if _is_missing(error):
                return
            raise map_kafka_error(error, what) from error


def _is_missing(error: KafkaException) -> bool:
    detail: Any = error.args[0] if error.args else None
    return isinstance(detail, KafkaError) and detail.code() in (
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    )


def _key(record: Message) -> bytes:
    return record.key() or b""


def _stored(record: Message) -> StoredLetter | None:
    """The letter of a record; None for a null value, and for what is no letter or lies under another one's key."""
    value = record.value()
    headers: Any = record.headers() or []
    if value is None:
        return None
    try:
        letter = Letter.of_headers(headers)
    except NoLetter:
        return None
    if _key(record) != str(letter.place).encode():
        return None
    offset: int = record.offset()  # type: ignore[assignment]
    return StoredLetter(letter, offset, record.timestamp()[1], value)


def _consumer(bootstrap_servers: str) -> LetterReader:
    consumer: Any = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "cdc.dead-letter-reader",  # librdkafka asks for one; nothing is committed under it
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "queued.max.messages.kbytes": 32 * 1024,
            # Retention and compaction may remove the offset that was to be read next.
            "auto.offset.reset": "earliest",
        }
    )
    return consumer  # type: ignore[no-any-return]
