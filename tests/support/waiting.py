"""Waiting for a condition with a deadline, in place of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

POLL_S = 0.1

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], timeout_s: float, what: str, poll_s: float = POLL_S) -> T:
    """Ask `condition` again and again until it holds (is truthy); return its value.

    Raises AssertionError that names `what` and the last value seen when `timeout_s` has passed.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what}: not within {timeout_s:g} s; last seen {value!r}")
        time.sleep(poll_s)
