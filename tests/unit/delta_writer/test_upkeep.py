"""Turns of the chores beside the stream."""

from unittest.mock import Mock

import pytest

from cdc_shared.errors import Fatal, Transient
from delta_writer.upkeep import MAX_WAIT_S, Upkeep

pytestmark = pytest.mark.unit


class Chore:
    def __init__(self, name, *errors):
        self.name = name
        self.turns = 0
        self.closed = False
        self._errors = iter(errors)

    def turn(self, tables, assigned):
        self.turns += 1
        if error := next(self._errors, None):
            raise error

    def close(self):
        self.closed = True


def test_a_chore_that_fails_waits_and_the_others_go_on():
    now = 0.0
    failing, other = Chore("failing", Transient("away"), Transient("away")), Chore("other")
    upkeep = Upkeep([failing, other], lambda: now)
    upkeep.turn({}, [])
    upkeep.turn({}, [])
    assert (failing.turns, other.turns) == (1, 2)
    for _ in range(2):
        now += MAX_WAIT_S
        upkeep.turn({}, [])
    assert (failing.turns, other.turns) == (3, 4)
    upkeep.turn({}, [])
    assert failing.turns == 4
    upkeep.close()
    assert failing.closed
    assert other.closed


def test_a_fatal_error_ends_the_pipeline():
    with pytest.raises(Fatal):
        Upkeep([Chore("broken", Fatal("a foreign commit"))]).turn({}, [])


def test_a_chore_that_cannot_be_closed_keeps_no_other_open():
    broken, other = Chore("broken"), Chore("other")
    broken.close = Mock(side_effect=Fatal("no"))
    with pytest.raises(Fatal):
        Upkeep([broken, other]).close()
    assert other.closed
