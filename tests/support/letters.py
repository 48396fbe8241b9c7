"""Dead letters for unit tests: letters, records of their topic, and a topic in memory that is read and written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, TopicPartition

from cdc_shared.dead_letters.letter import Letter, Place
from cdc_shared.dead_letters.sealed_record import RawRecord, seal
from cdc_shared.dead_letters.sending import Outgoing
from cdc_shared.kafka.topics import DEAD_LETTERS_TOPIC
from cdc_shared.security.data_key import DataKeys

KEYS = DataKeys([bytes(range(32))])


def letter(offset: int = 7, *, keys: DataKeys = KEYS, **changes: Any) -> Letter:
    """A letter of pipeline `p` about record `offset` of its topic."""
    values: dict[str, Any] = {
        "pipeline": "p",
        "place": Place("p.db.things", 0, offset),
        "collection": "things",
        "code": "malformed_event",
        "message": "not JSON",
        "rule": None,
        "attempt": 1,
        "first_seen_ms": 5,
        "size_bytes": 2,
        "key_id": keys.current("p").id,
    }
    return Letter(**{**values, **changes})


class LetterRecord:
    """A consumed message of the dead-letter topic."""

    def __init__(
        self, offset: int, key: bytes | None, value: bytes | None, headers: list[Any] | None, at_ms: int = 0
    ) -> None:
        self._offset, self._key, self._value, self._headers, self._at_ms = offset, key, value, headers, at_ms

    def error(self) -> None:
        return None

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[Any] | None:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return 1, self._at_ms


class _End:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self) -> KafkaError:
        return KafkaError(KafkaError._PARTITION_EOF)

    def offset(self) -> int:
        return self._offset


class MemoryTopic:
    """The dead-letter topic. A record at an offset that is missing was compacted away, or is a transaction's marker."""

    def __init__(self) -> None:
        self.records: list[LetterRecord] = []
        self.end = 0
        self.low = 0
        self.read = 0
        """Records given out so far."""
        self.open_readers = 0

    def write(self, about: Letter, record: RawRecord | None = None, keys: DataKeys = KEYS, at_ms: int = 0) -> None:
        """A letter, with what it is about."""
        content = record or RawRecord(b"k", b"v")
        sealed = seal(content, keys.current(about.pipeline), about.pipeline, about.place)
        headers = [(name, str(value).encode()) for name, value in about.headers()]
        self.append(str(about.place).encode(), b"" if about.lake_url else sealed, headers, at_ms)

    def append(self, key: bytes | None, value: bytes | None, headers: list[Any] | None = None, at_ms: int = 0) -> None:
        """Any record."""
        self.records.append(LetterRecord(self.end, key, value, headers, at_ms))
        self.end += 1

    def add_marker(self) -> None:
        """The end of a transaction."""
        self.end += 1

    def open(self) -> MemoryReader:
        """A reader of all of it."""
        self.open_readers += 1
        return MemoryReader(self)


class MemoryReader:
    """See `letter_topic.LetterReader`."""

    def __init__(self, topic: MemoryTopic) -> None:
        self._topic = topic
        self._position = 0

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        return self._topic.low, self._topic.end

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._position = partitions[0].offset

    def consume(self, num_messages: int, timeout: float) -> list[Any]:
        rest = [each for each in self._topic.records if each.offset() >= self._position][:num_messages]
        self._topic.read += len(rest)
        if not rest:
            return [_End(self._topic.end)]
        self._position = rest[-1].offset() + 1
        return rest

    def close(self) -> None:
        self._topic.open_readers -= 1


class MemoryKafka:
    """Takes what is sent: marks go to the dead-letter topic, the rest to `sent`. `fails` is raised once instead."""

    def __init__(self, letters: MemoryTopic) -> None:
        self.letters = letters
        self.sent: list[Outgoing] = []
        self.sendings: list[int] = []
        self.fails: Exception | None = None

    def send(self, records: Sequence[Outgoing]) -> None:
        if self.fails is not None:
            failure, self.fails = self.fails, None
            raise failure
        self.sendings.append(len(records))
        for each in records:
            if each.topic == DEAD_LETTERS_TOPIC:
                assert each.value is None
                self.letters.append(each.key, None)
            else:
                self.sent.append(each)
