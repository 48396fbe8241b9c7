"""Transient failures are retried, spaced and interruptible; nothing else is."""

import random
import threading
from collections.abc import Callable

import pytest

from cdc_shared.errors import Fatal, InvalidEvent, Transient
from cdc_shared.retry import RetryAttempt, RetryInterrupted, retrying

pytestmark = pytest.mark.unit


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now_s += seconds


def failing(times: int, error: Exception | None = None) -> Callable[[], str]:
    left = [times]

    def operation() -> str:
        if left[0] > 0:
            left[0] -= 1
            raise error or Transient(f"{left[0]} to go")
        return "done"

    return operation


def test_success_at_once_neither_waits_nor_reports() -> None:
    clock, attempts = Clock(), list[RetryAttempt]()
    assert retrying(failing(0), attempts.append, threading.Event(), sleep=clock.sleep, clock=clock) == "done"
    assert (attempts, clock.sleeps) == ([], [])


def test_waits_grow_exponentially_with_jitter_up_to_the_cap() -> None:
    clock, attempts = Clock(), list[RetryAttempt]()
    result = retrying(
        failing(12), attempts.append, threading.Event(), 5.0, first_wait_s=0.1, sleep=clock.sleep, clock=clock,
        rng=random.Random(1),
    )  # fmt: skip
    assert result == "done"
    ceilings = [min(5.0, 0.1 * 2**n) for n in range(12)]
    assert all(c / 2 <= s <= c for s, c in zip(clock.sleeps, ceilings, strict=True))
    assert len({round(s / c, 6) for s, c in zip(clock.sleeps, ceilings, strict=True)}) > 6, "no jitter"
    assert [a.number for a in attempts] == list(range(1, 13))
    assert [a.wait_s for a in attempts] == clock.sleeps
    assert attempts[3].elapsed_s == pytest.approx(sum(clock.sleeps[:3]))
    assert str(attempts[0].error) == "11 to go"


@pytest.mark.parametrize("error", [Fatal("stop"), InvalidEvent("bad"), ValueError("bug"), KeyboardInterrupt()])
def test_everything_else_leaves_at_once(error: BaseException) -> None:
    def operation() -> None:
        raise error

    attempts: list[RetryAttempt] = []
    with pytest.raises(type(error)):
        retrying(operation, attempts.append, threading.Event(), sleep=lambda _: pytest.fail("slept"))
    assert attempts == []


def test_the_stop_event_ends_a_long_wait() -> None:
    stop = threading.Event()
    waiting = threading.Event()
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            retrying(failing(1000), lambda _: waiting.set(), stop, 3600.0, first_wait_s=3600.0)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert waiting.wait(10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    (error,) = outcome
    assert isinstance(error, RetryInterrupted)
    assert isinstance(error.__cause__, Transient)
    assert "to go" in str(error)


def test_an_operation_is_tried_once_even_when_already_stopped() -> None:
    stop = threading.Event()
    stop.set()
    assert retrying(failing(0), lambda _: None, stop) == "done"
    with pytest.raises(RetryInterrupted):
        retrying(failing(1), lambda _: None, stop)


def test_giving_up_raises_the_last_error() -> None:
    clock = Clock()
    with pytest.raises(Transient, match="to go") as caught:
        retrying(
            failing(10_000),
            lambda _: None,
            threading.Event(),
            1.0,
            give_up_after_s=10.0,
            sleep=clock.sleep,
            clock=clock,
        )
    assert not isinstance(caught.value, RetryInterrupted)
    assert 10.0 <= clock.now_s - 100.0 <= 11.0


def test_days_of_retries_stay_at_the_cap() -> None:
    clock = Clock()
    retrying(failing(5000), lambda _: None, threading.Event(), 30.0, sleep=clock.sleep, clock=clock)
    assert max(clock.sleeps) <= 30.0
