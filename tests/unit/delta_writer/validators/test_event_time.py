"""The source's time goes back: told by partition, beyond a bound, for what was streamed."""

from dataclasses import replace

import pytest

from delta_writer.transformers.change_batch import ChangeEvents
from delta_writer.validators.event_time import MAX_SETBACK_MS, EventTimes

pytestmark = pytest.mark.unit

NOON = 1_700_000_000_000


def events(*each: tuple[int, int, str]) -> ChangeEvents:
    """Partition, time after noon in ms, op."""
    partitions, times, ops = ([event[i] for event in each] for i in range(3))
    offsets = list(range(len(each)))
    return ChangeEvents(["1"] * len(each), [None] * len(each), [NOON + t for t in times], partitions, offsets, ops, {})


def test_small_steps_back_are_usual():
    assert EventTimes().setbacks(events((0, 0, "c"), (0, -MAX_SETBACK_MS, "u"), (0, 5, "u"))) == {}


def test_a_step_back_is_told_for_its_partition_with_the_widest_one():
    back = MAX_SETBACK_MS + 1
    times = EventTimes()
    assert times.setbacks(events((0, 0, "c"), (1, -back, "c"), (0, -back, "u"), (0, -back - 5, "u"))) == {0: back + 5}
    assert times.setbacks(events((1, 0, "c"))) == {}
    assert times.setbacks(events((1, -back, "d"))) == {1: back}


def test_snapshot_reads_and_re_reads_have_the_time_of_the_reading():
    times = EventTimes()
    assert times.setbacks(events((0, 3_600_000, "r"), (0, 3_700_000, "x"), (0, 0, "c"))) == {}


def test_an_event_that_is_sent_again_for_a_history_has_the_time_of_then():
    replayed = replace(events((0, 3_600_000, "u"), (0, 0, "u")), history_only=frozenset([1]))
    assert EventTimes().setbacks(replayed) == {}


def test_an_empty_batch_is_nothing():
    assert EventTimes().setbacks(events()) == {}
