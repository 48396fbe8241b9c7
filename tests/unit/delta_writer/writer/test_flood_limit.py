"""So many dead letters a minute and no more; a record that comes again is no other one."""

from collections.abc import Iterable

import pytest

from cdc_shared.dead_letters.rejection import ReasonCode, Rejection
from cdc_shared.errors import Fatal
from delta_writer.consumer.event_handler import DeadLetter
from delta_writer.writer.flood_limit import WINDOW_S, FloodLimit, TooManyDeadLetters

pytestmark = pytest.mark.unit


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def letters(offsets: Iterable[int], partition: int = 0, rule: str | None = None) -> list[DeadLetter]:
    rejection = Rejection(ReasonCode.VALIDATION_FAILED, "amount is below 0", rule=rule)
    return [DeadLetter("p.db.things", partition, offset, None, None, rejection) for offset in offsets]


def test_up_to_the_limit_letters_are_admitted() -> None:
    limit = FloodLimit(lambda: 10, Clock())
    limit.admit(letters(range(4)))
    limit.admit(letters(range(6), partition=1))
    with pytest.raises(TooManyDeadLetters):
        limit.admit(letters([4]))


def test_the_minute_moves_on() -> None:
    clock = Clock()
    limit = FloodLimit(lambda: 10, clock)
    limit.admit(letters(range(6)))
    clock.now += WINDOW_S / 2
    limit.admit(letters(range(6, 10)))
    with pytest.raises(TooManyDeadLetters):
        limit.admit(letters([10]))
    clock.now += WINDOW_S / 2
    limit.admit(letters(range(10, 16)))
    with pytest.raises(TooManyDeadLetters):
        limit.admit(letters([16]))


def test_a_batch_that_is_read_again_counts_once() -> None:
    limit = FloodLimit(lambda: 10, Clock())
    for _ in range(5):
        limit.admit(letters(range(8)))
    limit.admit(letters(range(10)))
    with pytest.raises(TooManyDeadLetters):
        limit.admit(letters(range(11)))


def test_records_count_in_whatever_order_they_come() -> None:
    """Of one batch, bad records are written before bad documents, which may lie before them."""
    limit = FloodLimit(lambda: 10, Clock())
    limit.admit(letters([1000]))
    limit.admit(letters(range(9)))
    with pytest.raises(TooManyDeadLetters):
        limit.admit(letters([9]))


def test_what_was_not_admitted_was_not_counted() -> None:
    allowed = 3
    limit = FloodLimit(lambda: allowed, Clock())
    with pytest.raises(TooManyDeadLetters):
        limit.admit(letters(range(5)))
    allowed = 5
    limit.admit(letters(range(5)))


def test_letters_that_are_written_already_stop_nothing_when_the_limit_is_lowered() -> None:
    allowed = 5
    limit = FloodLimit(lambda: allowed, Clock())
    limit.admit(letters(range(5)))
    allowed = 1
    limit.admit(letters(range(5)))


def test_the_reason_names_the_rule_the_first_record_and_the_remedy() -> None:
    limit = FloodLimit(lambda: 5, Clock())
    with pytest.raises(Fatal) as caught:
        limit.admit([*letters(range(2)), *letters(range(2, 7), rule="amount")])
    assert str(caught.value) == (
        "7 records would be dead letters within a minute, more than the 5 of "
        "quality.dirty_data.max_dead_letters_per_minute: amount (5), validation_failed (2); the first is "
        "p.db.things:0:0: amount is below 0. Nothing is lost. Correct the rules or the source, or raise the limit, and "
        "publish the pipeline again: it goes on from there"
    )
