"""Retry of what is `Transient`: exponential, jittered, capped, and interruptible.

Only `cdc_shared.errors.Transient` is retried; every other exception leaves at once. There is no limit on attempts
unless the caller sets one: a pipeline waits for its store or broker as long as it is away, with its partition paused,
and drops nothing.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception_type

from cdc_shared.errors import Transient

T = TypeVar("T")

FIRST_WAIT_S = 0.1
MAX_WAIT_S = 30.0


class RetryInterrupted(Transient):
    """The stop event was set while an operation was failing; its last error is the cause. It has not succeeded."""


@dataclass(frozen=True, slots=True)
class RetryAttempt:
    """One failed attempt that will be tried again: what callers log and count."""

    error: Transient
    number: int
    """1 for the first failed attempt."""
    wait_s: float
    """The pause before the next attempt."""
    elapsed_s: float
    """Since the first attempt began."""


def retrying(
    operation: Callable[[], T],
    on_retry: Callable[[RetryAttempt], None],
    stop_event: threading.Event,
    max_wait_s: float = MAX_WAIT_S,
    *,
    first_wait_s: float = FIRST_WAIT_S,
    give_up_after_s: float | None = None,
    sleep: Callable[[float], object] | None = None,
    clock: Callable[[], float] = time.monotonic,
    rng: random.Random | None = None,
) -> T:
    """Call `operation` until it returns; its result.

    The pause after attempt n is uniform in [c/2, c] with c = min(max_wait_s, first_wait_s * 2**(n-1)), so that many
    callers spread and none hammers. `on_retry` is called before each pause. The default `sleep` ends as soon as
    `stop_event` is set.

    Raises `RetryInterrupted` when `stop_event` is set after a failed attempt, the last `Transient` when
    `give_up_after_s` has passed since the first attempt began, and whatever else `operation` raises. An operation is
    always tried once.
    """
    jitter = rng or random.Random()  # nosec B311 # spreads retries, guards nothing
    started_s = clock()

    def wait(state: RetryCallState) -> float:
        # The exponent is bounded so that days of retries do not compute an integer of thousands of digits.
        ceiling_s = min(max_wait_s, first_wait_s * 2.0 ** min(state.attempt_number - 1, 30))
        return jitter.uniform(ceiling_s / 2, ceiling_s)

    def stop(_: RetryCallState) -> bool:
        return stop_event.is_set() or (give_up_after_s is not None and clock() - started_s >= give_up_after_s)

    def before_sleep(state: RetryCallState) -> None:
        on_retry(RetryAttempt(_error_of(state), state.attempt_number, state.upcoming_sleep, clock() - started_s))

    def pause(seconds: float) -> None:
        (sleep or stop_event.wait)(seconds)

    retry = Retrying(
        retry=retry_if_exception_type(Transient),
        wait=wait,
        stop=stop,
        before_sleep=before_sleep,
        sleep=pause,
    )
    try:
        return retry(operation)
    except RetryError as exhausted:
        error = exhausted.last_attempt.exception()
        if not isinstance(error, Transient):  # tenacity stops only on what it would have retried
            raise
        if stop_event.is_set():
            raise RetryInterrupted(f"stopped while retrying: {error}") from error
        raise error from None


def _error_of(state: RetryCallState) -> Transient:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, Transient):
        raise TypeError(f"retried on {error!r}, which is not Transient")
    return error
