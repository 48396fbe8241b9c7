"""A run's control is asked in a thread of its own."""

from __future__ import annotations

import threading

import pytest
from waiting import wait_until

from reconciliation.reconciler.progress import Cancelled
from reconciliation.workers.control_watch import ControlWatch

pytestmark = pytest.mark.unit

TIMEOUT_S = 10.0


class Switch:
    """A control that a test sets."""

    def __init__(self) -> None:
        self.going = threading.Event()
        self.going.set()
        self.error: Exception | None = None

    def check(self) -> None:
        self.going.wait(TIMEOUT_S)
        if self.error is not None:
            raise self.error


def test_a_run_that_is_held_is_silent_until_it_goes_on() -> None:
    switch = Switch()
    beats: list[int] = []
    with ControlWatch(switch, lambda: beats.append(1)) as watch:
        assert beats
        assert not watch.held
        switch.going.clear()
        wait_until(lambda: watch.held, TIMEOUT_S, "the run is held")
        before = len(beats)
        watch.check()
        switch.going.set()
        wait_until(lambda: not watch.held and len(beats) > before, TIMEOUT_S, "the run goes on")


def test_what_the_control_raises_is_raised_in_the_runs_thread() -> None:
    switch = Switch()
    with ControlWatch(switch) as watch:
        watch.check()
        switch.error = Cancelled("enough")

        def cancelled() -> bool:
            try:
                watch.check()
            except Cancelled:
                return True
            return False

        wait_until(cancelled, TIMEOUT_S, "the end is seen")


def test_a_run_that_has_been_cancelled_does_not_begin() -> None:
    switch = Switch()
    switch.error = Cancelled("enough")
    with pytest.raises(Cancelled), ControlWatch(switch):
        pytest.fail("it began")
