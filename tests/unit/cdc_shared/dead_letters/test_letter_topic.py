"""Which letters stand: the last word on each, however the topic was compacted, and whatever else lies in it."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from letters import MemoryReader, MemoryTopic, letter

from cdc_shared.dead_letters.letter import ALL_LETTERS, LetterFilter, NoLetter, Place
from cdc_shared.dead_letters.letter_topic import LetterTopic, dead_letters_config
from cdc_shared.errors import Fatal

pytestmark = pytest.mark.unit


@pytest.fixture
def topic() -> MemoryTopic:
    return MemoryTopic()


def places(topic: MemoryTopic, which: LetterFilter = ALL_LETTERS, after: int = -1) -> list[int]:
    found = [each.letter.place.offset for each in LetterTopic(topic.open).letters(which, after)]
    assert topic.open_readers == 0
    return found


def test_letters_come_oldest_first(topic: MemoryTopic) -> None:
    for offset in (5, 3, 9):
        topic.write(letter(offset))
    assert places(topic) == [5, 3, 9]
    assert places(topic, after=0) == [3, 9]


def test_what_was_done_with_does_not_stand(topic: MemoryTopic) -> None:
    for offset in range(3):
        topic.write(letter(offset))
    topic.append(str(letter(1).place).encode(), None)
    topic.add_marker()
    assert places(topic) == [0, 2]


def test_a_letter_written_twice_is_one_letter_and_the_last_word_counts(topic: MemoryTopic) -> None:
    topic.write(letter(0))
    topic.write(letter(1))
    topic.write(letter(0, message="again"))
    found = list(LetterTopic(topic.open).letters())
    assert [(each.letter.place.offset, each.letter.message) for each in found] == [(1, "not JSON"), (0, "again")]


def test_a_letter_that_no_longer_fits_does_not_stand_for_what_it_was(topic: MemoryTopic) -> None:
    topic.write(letter(0, code="malformed_event"))
    topic.write(letter(0, code="validation_failed"))
    assert places(topic, LetterFilter(code="malformed_event")) == []


def test_compaction_leaves_gaps(topic: MemoryTopic) -> None:
    for offset in range(10):
        topic.write(letter(offset))
    del topic.records[2:5]
    topic.low = 1
    assert places(topic) == [1, 5, 6, 7, 8, 9]


def test_other_records_are_left_out(topic: MemoryTopic) -> None:
    topic.append(b"something", b"else")
    topic.append(None, b"", [("cdc.pipeline", b"p")])
    topic.write(letter(0))
    swapped = [(name, str(value).encode()) for name, value in letter(1).headers()]
    topic.append(b"p.db.things:0:2", b"under another letter's key", swapped)
    assert places(topic) == [0]


def test_time_is_that_of_the_record(topic: MemoryTopic) -> None:
    topic.write(letter(0), at_ms=100)
    topic.write(letter(1), at_ms=200)
    assert places(topic, LetterFilter(since_ms=150)) == [1]
    assert [each.written_ms for each in LetterTopic(topic.open).letters()] == [100, 200]


def test_one_letter_is_found_or_missed_by_name(topic: MemoryTopic) -> None:
    for offset in range(3):
        topic.write(letter(offset))
    topic.append(str(letter(1).place).encode(), None)
    assert LetterTopic(topic.open).letter(letter(2).place).letter == letter(2)
    for missing in (letter(1).place, Place("p.db.things", 0, 77)):
        with pytest.raises(NoLetter, match=f"there is no dead letter {missing}"):
            LetterTopic(topic.open).letter(missing)


def test_values_are_given_out_one_by_one(topic: MemoryTopic) -> None:
    """Those who look at the first letters of very many do not pay for the rest of them twice."""
    for offset in range(2_000):
        topic.write(letter(offset))
    letters = LetterTopic(topic.open).letters()
    next(letters)
    assert topic.read < 2_000 + 500


class Failing(MemoryReader):
    def __init__(self, code: int) -> None:
        super().__init__(MemoryTopic())
        self._code = code

    def get_watermark_offsets(self, partition: Any, timeout: float) -> tuple[int, int]:
        raise KafkaException(KafkaError(self._code))


def test_a_topic_that_is_not_there_yet_has_no_letters() -> None:
    assert list(LetterTopic(lambda: Failing(KafkaError._UNKNOWN_PARTITION)).letters()) == []


def test_what_kafka_refuses_is_told() -> None:
    with pytest.raises(Fatal, match="grant this client's user access to the topic"):
        list(LetterTopic(lambda: Failing(KafkaError.TOPIC_AUTHORIZATION_FAILED)).letters())


def test_the_topic_keeps_letters_for_a_time_and_forgets_those_that_were_done_with() -> None:
    config = dead_letters_config(2)
    assert config["cleanup.policy"] == "compact,delete"
    assert config["retention.ms"] == str(2 * 24 * 3600 * 1000)
