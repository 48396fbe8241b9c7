"""A dead letter: what its headers say. Nothing of it needs a key to be read, and nothing of it is a document's content.

A record of the topic `cdc.dead-letters` has the key `<topic>:<partition>:<offset>` of the record that was rejected, so
a letter that was written twice is one letter; a null value says that it is done with. Its value is the rejected
record, sealed (`sealed_record`), or empty when that lies in the lake (`cdc.lake`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

from cdc_shared.errors import Fatal

Headers = list[tuple[str, str | bytes | None]]

PIPELINE: Final = "cdc.pipeline"
TOPIC: Final = "cdc.topic"
PARTITION: Final = "cdc.partition"
OFFSET: Final = "cdc.offset"
COLLECTION: Final = "cdc.collection"
CODE: Final = "cdc.code"
MESSAGE: Final = "cdc.message"
RULE: Final = "cdc.rule"
ATTEMPT: Final = "cdc.attempt"
FIRST_SEEN_MS: Final = "cdc.first-seen-ms"
SIZE_BYTES: Final = "cdc.size-bytes"
KEY_ID: Final = "cdc.key-id"
LAKE: Final = "cdc.lake"


class NoLetter(Fatal):
    """There is no such dead letter, or what there is is none."""


class Place(NamedTuple):
    """Where a rejected record lies in Kafka; a letter's name, written `topic:partition:offset`."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `str`. Raises `NoLetter`."""
        topic, partition, offset = (["", "", *text.rsplit(":", 2)])[-3:]
        if not topic or not partition.isdecimal() or not offset.isdecimal():
            raise NoLetter(f"{text!r} names no dead letter: write topic:partition:offset, as `list` shows it")
        return cls(topic, int(partition), int(offset))


@dataclass(frozen=True, slots=True)
class Letter:
    """What is known of a rejected record without looking into it.

    Attributes:
        pipeline: whose writer rejected it.
        place: where the record lies, or lay.
        collection: the collection's name in MongoDB; None when the writer did not know it.
        code: a `ReasonCode`'s value, for programs.
        message: why, for people.
        rule: the validation rule that it failed, if it was one.
        attempt: 1, and one more for each replay that was rejected again.
        first_seen_ms: when the first attempt was rejected, ms since 1970.
        size_bytes: of the record's key and value.
        key_id: of the data key that it is encrypted with (`security.data_key`).
        lake_url: the object that holds it, when it was too large for the topic.
    """

    pipeline: str
    place: Place
    collection: str | None
    code: str
    message: str
    rule: str | None
    attempt: int
    first_seen_ms: int
    size_bytes: int
    key_id: str
    lake_url: str | None = None

    def headers(self) -> Headers:
        """The headers of its record."""
        values: dict[str, object] = {
            PIPELINE: self.pipeline,
            TOPIC: self.place.topic,
            PARTITION: self.place.partition,
            OFFSET: self.place.offset,
            COLLECTION: self.collection,
            CODE: self.code,
            MESSAGE: self.message,
            RULE: self.rule,
            ATTEMPT: self.attempt,
            FIRST_SEEN_MS: self.first_seen_ms,
            SIZE_BYTES: self.size_bytes,
            KEY_ID: self.key_id,
            LAKE: self.lake_url,
        }
        return [(name, str(value)) for name, value in values.items() if value is not None]

    @classmethod
    def of_headers(cls, headers: Iterable[tuple[str, bytes | None]]) -> Self:
        """The letter that a record's headers tell of. Raises `NoLetter` when they tell of none."""
        texts = {name: value.decode("utf-8", "replace") for name, value in headers if value is not None}
        try:
            return cls(
                pipeline=texts[PIPELINE],
                place=Place(texts[TOPIC], int(texts[PARTITION]), int(texts[OFFSET])),
                collection=texts.get(COLLECTION),
                code=texts[CODE],
                message=texts[MESSAGE],
                rule=texts.get(RULE),
                attempt=int(texts[ATTEMPT]),
                first_seen_ms=int(texts[FIRST_SEEN_MS]),
                size_bytes=int(texts[SIZE_BYTES]),
                key_id=texts[KEY_ID],
                lake_url=texts.get(LAKE),
            )
        except (KeyError, ValueError):
            raise NoLetter("a record of the dead-letter topic without the headers of a dead letter") from None


@dataclass(frozen=True, slots=True)
class ListedLetter:
    """A letter of the topic: it lies there at `offset`, since `written_ms` (ms since 1970)."""

    letter: Letter
    offset: int
    written_ms: int


@dataclass(frozen=True, slots=True)
class StoredLetter(ListedLetter):
    """With the value of its record."""

    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters are meant: those that all given parts fit.

    `collection` is the name in MongoDB. `since_ms` (included) and `until_ms` (not included) are of the time when the
    letter was written, ms since 1970. `places`: some letters by name.
    """

    pipeline: str | None = None
    collection: str | None = None
    topic: str | None = None
    code: str | None = None
    rule: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    places: frozenset[Place] | None = None

    def fits(self, letter: Letter, written_ms: int) -> bool:
        """Whether the letter is one of those that are meant."""
        return (
            self.pipeline in (None, letter.pipeline)
            and (self.places is None or letter.place in self.places)
            and self.topic in (None, letter.place.topic)
            and self.code in (None, letter.code)
            and self.rule in (None, letter.rule)
            and (self.collection is None or self._is_of_collection(letter, self.collection))
            and (self.since_ms is None or written_ms >= self.since_ms)
            and (self.until_ms is None or written_ms < self.until_ms)
        )

    @staticmethod
    def _is_of_collection(letter: Letter, collection: str) -> bool:
        if letter.collection is not None:
            return letter.collection == collection
        # `<pipeline>.<database>.<collection>`: neither of the first two has a dot.
        return letter.place.topic.split(".", 2)[2:] == [collection]


ALL_LETTERS: Final = LetterFilter()
