"""What a letter's headers say, and which letters a filter means."""

from dataclasses import replace

import pytest

from cdc_shared.dead_letters.letter import Letter, LetterFilter, NoLetter, Place
from cdc_shared.dead_letters.rejection import ReasonCode

pytestmark = pytest.mark.unit

LETTER = Letter(
    pipeline="shop",
    place=Place("shop.db.order_items", 1, 7),
    collection="order items",
    code=ReasonCode.VALIDATION_FAILED.value,
    message="größer als erlaubt",
    rule="amount",
    attempt=2,
    first_seen_ms=1_700_000_000_000,
    size_bytes=12,
    key_id="0a1b",
    lake_url="s3://b/delta/shop/_dead_letters/shop.db.order_items/1/7",
)
PLAIN = replace(LETTER, collection=None, rule=None, lake_url=None)


def as_consumed(letter: Letter) -> list[tuple[str, bytes | None]]:
    return [(name, str(value).encode()) for name, value in letter.headers()]


@pytest.mark.parametrize("letter", [LETTER, PLAIN])
def test_a_letter_is_read_back_from_its_headers(letter: Letter) -> None:
    assert Letter.of_headers([("traceparent", b"00-1"), *as_consumed(letter)]) == letter


@pytest.mark.parametrize("missing", ["cdc.pipeline", "cdc.topic", "cdc.partition", "cdc.attempt", "cdc.key-id"])
def test_other_records_are_no_letters(missing: str) -> None:
    with pytest.raises(NoLetter):
        Letter.of_headers([each for each in as_consumed(PLAIN) if each[0] != missing])
    with pytest.raises(NoLetter):
        Letter.of_headers([*as_consumed(PLAIN), ("cdc.offset", b"seven")])


def test_a_place_is_written_as_the_records_key() -> None:
    assert str(LETTER.place) == "shop.db.order_items:1:7"
    assert Place.parse(str(LETTER.place)) == LETTER.place


@pytest.mark.parametrize("text", ["", "topic", "topic:1", ":1:2", "topic:a:2", "topic:1:-2", "1:2"])
def test_what_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(NoLetter, match="write topic:partition:offset"):
        Place.parse(text)


@pytest.mark.parametrize(
    "which",
    [
        LetterFilter(),
        LetterFilter(pipeline="shop", collection="order items", code="validation_failed", rule="amount"),
        LetterFilter(topic="shop.db.order_items", since_ms=100, until_ms=101),
    ],
)
def test_a_letter_that_all_parts_fit_is_meant(which: LetterFilter) -> None:
    assert which.fits(LETTER, 100)


@pytest.mark.parametrize(
    "which",
    [
        LetterFilter(pipeline="other"),
        LetterFilter(collection="order_items"),
        LetterFilter(topic="shop.db.orders"),
        LetterFilter(code="malformed_event"),
        LetterFilter(rule="name"),
        LetterFilter(since_ms=101),
        LetterFilter(until_ms=100),
        LetterFilter(pipeline="shop", rule="name"),
    ],
)
def test_a_letter_that_one_part_does_not_fit_is_not(which: LetterFilter) -> None:
    assert not which.fits(LETTER, 100)


def test_a_collection_that_the_writer_did_not_know_is_the_topics() -> None:
    unknown = replace(PLAIN, place=Place("shop.db.a.b", 0, 0))
    assert LetterFilter(collection="a.b").fits(unknown, 0)
    assert not LetterFilter(collection="b").fits(unknown, 0)
