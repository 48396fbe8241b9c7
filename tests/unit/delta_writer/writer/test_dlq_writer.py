"""Rejected records on their way to the dead-letter topic: sealed, described, acknowledged; large ones in the lake."""

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from letters import KEYS

from cdc_shared.dead_letters.lake_records import get_from_lake
from cdc_shared.dead_letters.letter import Letter, Place
from cdc_shared.dead_letters.rejection import ReasonCode, Rejection
from cdc_shared.dead_letters.sealed_record import RawRecord, unseal
from cdc_shared.documents import Replay
from cdc_shared.errors import Fatal, Transient
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.tracing.otel_config import configure_tracing
from delta_writer.consumer.event_handler import DeadLetter
from delta_writer.writer.dlq_writer import (
    MAX_INLINE_BYTES,
    MAX_MESSAGE_CHARACTERS,
    DeadLetterWriter,
    LetterStore,
)
from delta_writer.writer.flood_limit import FloodLimit, TooManyDeadLetters

pytestmark = pytest.mark.unit

SECRET = b"Ursula-4711"
STORES = ObjectStoreSettings()


class FakeProducer:
    """Answers on `flush`: with `refused`, or not at all when `silent`. `full` raises instead of taking a record."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.refused: KafkaError | None = None
        self.full: Exception | None = None
        self.silent = False

    def produce(self, topic: str, **record: Any) -> None:
        if self.full is not None:
            raise self.full
        self.sent.append({"topic": topic, **record})

    def poll(self, timeout: float) -> None:
        pass

    def flush(self, timeout: float) -> int:
        if self.silent:
            return len(self.sent)
        for record in self.sent:
            record["on_delivery"](self.refused, None)
        return 0

    def letter(self, number: int = 0) -> Letter:
        return Letter.of_headers([(name, str(value).encode()) for name, value in self.sent[number]["headers"]])


@pytest.fixture
def producer() -> FakeProducer:
    return FakeProducer()


def writer(producer: FakeProducer, directory: Path, max_a_minute: int = 1000) -> DeadLetterWriter:
    return DeadLetterWriter(
        producer,  # type: ignore[arg-type]
        "p",
        KEYS.current("p"),
        LetterStore(str(directory), "p", STORES),
        FloodLimit(lambda: max_a_minute),
        configure_tracing("test", None),
        lambda: 12.5,
    )


def rejected(offset: int = 7, **changes: Any) -> DeadLetter:
    rejection = Rejection(ReasonCode.VALIDATION_FAILED, "amount is below 0", rule="amount")
    values = {"key": b"k" + SECRET, "value": SECRET, "rejection": rejection, "collection": "things", **changes}
    return DeadLetter(topic="p.db.things", partition=1, offset=offset, **values)


def test_a_letter_says_what_is_known_and_shows_nothing_of_the_record(producer: FakeProducer, tmp_path: Path) -> None:
    writer(producer, tmp_path).write([rejected()])
    (record,) = producer.sent
    assert (record["topic"], record["key"]) == ("cdc.dead-letters", b"p.db.things:1:7")
    letter = producer.letter()
    assert letter == Letter(
        pipeline="p",
        place=Place("p.db.things", 1, 7),
        collection="things",
        code="validation_failed",
        message="amount is below 0",
        rule="amount",
        attempt=1,
        first_seen_ms=12_500,
        size_bytes=2 * len(SECRET) + 1,
        key_id=KEYS.current("p").id,
    )
    assert SECRET not in repr(record).encode()
    assert unseal(record["value"], letter, KEYS) == RawRecord(b"k" + SECRET, SECRET)


def test_a_letter_that_was_tried_before_says_so(producer: FakeProducer, tmp_path: Path) -> None:
    writer(producer, tmp_path).write([rejected(replay=Replay(3, 99))])
    assert (producer.letter().attempt, producer.letter().first_seen_ms) == (3, 99)


def test_a_record_without_key_or_value_is_no_tombstone(producer: FakeProducer, tmp_path: Path) -> None:
    writer(producer, tmp_path).write([rejected(key=None, value=None, collection=None)])
    assert producer.sent[0]["value"]
    assert unseal(producer.sent[0]["value"], producer.letter(), KEYS) == RawRecord(None, None)
    assert producer.letter().collection is None


def test_what_is_too_large_for_the_topic_lies_in_the_lake(producer: FakeProducer, tmp_path: Path) -> None:
    fits, large = b"x" * (MAX_INLINE_BYTES - 100), SECRET * (MAX_INLINE_BYTES // len(SECRET) + 1)
    writer(producer, tmp_path).write([rejected(1, value=fits), rejected(2, value=large)])
    assert producer.letter(0).lake_url is None
    letter = producer.letter(1)
    assert producer.sent[1]["value"] == b"", "a pointer, and not null, which would say that the letter is done with"
    assert letter.lake_url == f"{tmp_path}/p/_dead_letters/p.db.things/1/2"
    sealed = get_from_lake(letter, STORES)
    assert SECRET not in sealed
    assert unseal(sealed, letter, KEYS).value == large


def test_a_long_message_is_cut(producer: FakeProducer, tmp_path: Path) -> None:
    writer(producer, tmp_path).write([rejected(rejection=Rejection(ReasonCode.MALFORMED_EVENT, "x" * 10_000))])
    assert len(producer.letter().message) == MAX_MESSAGE_CHARACTERS


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"refused": KafkaError(KafkaError._MSG_TIMED_OUT)}, Transient, "_MSG_TIMED_OUT"),
        ({"refused": KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)}, Fatal, "raise max.message.bytes"),
        ({"silent": True}, Transient, "no acknowledgement within 30 s"),
        ({"full": BufferError("queue full")}, Transient, "queue full"),
        ({"full": KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))}, Fatal, "grant this client"),
    ],
)
def test_what_is_not_acknowledged_is_not_written(
    producer: FakeProducer, tmp_path: Path, change: dict[str, Any], error: type[Exception], says: str
) -> None:
    vars(producer).update(change)
    with pytest.raises(error) as caught:
        writer(producer, tmp_path).write([rejected()])
    assert says in str(caught.value)


def test_no_letters_ask_nothing_of_kafka(producer: FakeProducer, tmp_path: Path) -> None:
    producer.silent = True
    writer(producer, tmp_path).write([])


def test_a_flood_writes_nothing(producer: FakeProducer, tmp_path: Path) -> None:
    with pytest.raises(TooManyDeadLetters):
        writer(producer, tmp_path, max_a_minute=2).write([rejected(n) for n in range(3)])
    assert producer.sent == []


def test_a_store_that_is_away_when_old_letters_are_cleaned_up_harms_nobody() -> None:
    store = LetterStore("s3://bucket@x", "p", STORES)
    store.expire()
