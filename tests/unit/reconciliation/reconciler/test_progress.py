"""Progress tells what is done, how fast, and how long it will still take; resumed work does not count as speed."""

from __future__ import annotations

import pytest

from reconciliation.reconciler.progress import Phase, PhaseClock, RunProgress

pytestmark = pytest.mark.unit


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_percent_and_time_left() -> None:
    progress = RunProgress(Phase.SCANNING_SOURCE, done=250, total=1_000, per_s=50.0)
    assert progress.percent == 25.0
    assert progress.seconds_left == 15.0


@pytest.mark.parametrize("total", [None, 0])
def test_nothing_is_claimed_of_what_is_not_known(total: int | None) -> None:
    progress = RunProgress(Phase.SETTLING, done=3, total=total)
    assert progress.percent == (None if total is None else 100.0)
    assert progress.seconds_left is None


def test_it_is_shown_once_a_second_and_at_each_change_of_phase() -> None:
    time, shown = Time(), list[RunProgress]()
    clock = PhaseClock(shown.append, time)
    clock.begin(Phase.SCANNING_TABLE, total=100)
    for _ in range(20):
        time.now += 0.25
        clock.advance(5)
    assert [each.done for each in shown] == [0, 20, 40, 60, 80, 100]
    clock.begin(Phase.COMPARING)
    assert shown[-2].phase is Phase.SCANNING_TABLE
    assert shown[-2].done == 100
    assert shown[-1] == RunProgress(Phase.COMPARING)
    clock.end()
    assert clock.past == [(Phase.SCANNING_TABLE, 0.0, 5.0), (Phase.COMPARING, 5.0, 0.0)]


def test_what_an_earlier_process_did_is_done_but_no_speed() -> None:
    time, shown = Time(), list[RunProgress]()
    clock = PhaseClock(shown.append, time)
    clock.begin(Phase.SCANNING_SOURCE, total=1_000, done=500)
    time.now += 10
    clock.advance(100)
    assert shown[-1].done == 600
    assert shown[-1].per_s == pytest.approx(10.0)
    assert shown[-1].seconds_left == pytest.approx(40.0)


def test_what_is_under_way_counts_and_is_not_counted_twice() -> None:
    time, shown = Time(), list[RunProgress]()
    clock = PhaseClock(shown.append, time)
    clock.begin(Phase.SCANNING_SOURCE, total=1_000, done=100)
    for under_way in (50, 200, 0):  # in between its worker died: the task begins again
        time.now += 1
        clock.under_way(under_way)
    assert [each.done for each in shown] == [100, 150, 300, 300]
    assert shown[2].per_s == pytest.approx(100.0)
    clock.under_way(0)
    clock.advance(400)
    time.now += 1
    clock.under_way(30)
    assert shown[-1].done == 530
    clock.begin(Phase.COMPARING)
    assert shown[-1].done == 0


def test_what_holds_it_back_is_told_at_once_and_once() -> None:
    shown = list[RunProgress]()
    clock = PhaseClock(shown.append, Time())
    clock.begin(Phase.SCANNING_SOURCE, total=10)
    clock.throttled("the source answers slowly")
    clock.throttled("the source answers slowly")
    assert [each.throttled_by for each in shown] == [None, "the source answers slowly"]
    clock.throttled(None)
    assert shown[-1].throttled_by is None
