"""When to try again what fails: exponential, jittered, capped, and not forgotten by one short success."""

from __future__ import annotations

import random
from typing import Final

FIRST_WAIT_S: Final = 1.0
MAX_WAIT_S: Final = 60.0
MAX_OUTAGE_WAIT_S: Final = 8.0
"""For what is away: asking costs it little, and once it is back everybody waits for the next attempt."""
STEADY_S: Final = 60.0
"""What has gone well for so long is well: the next failure is a first one again."""
_MAX_DOUBLINGS: Final = 30


class BackOff:
    """One thing that is tried again. Times are seconds of whichever monotonic clock the caller reads."""

    def __init__(self, rng: random.Random, first_s: float = FIRST_WAIT_S, max_s: float = MAX_WAIT_S) -> None:
        self._rng = rng
        self._first_s = first_s
        self._max_s = max_s
        self._well_since: float | None = None
        self.failures = 0
        """In a row."""
        self.not_before = float("-inf")
        """When it may be tried next."""

    def failed(self, now: float, *, is_outage: bool = False) -> float:
        """Note a failure; return when it may be tried next: after c/2 to c seconds, c doubling up to the maximum."""
        ceiling_s = min(
            MAX_OUTAGE_WAIT_S if is_outage else self._max_s, self._first_s * 2.0 ** min(self.failures, _MAX_DOUBLINGS)
        )
        self.failures += 1
        self._well_since = None
        self.not_before = now + self._rng.uniform(ceiling_s / 2, ceiling_s)
        return self.not_before

    def went_well(self, now: float) -> None:
        """Note that it is well now. What fails again soon goes on where it was: it flaps."""
        if self._well_since is None:
            self._well_since = now
        if now - self._well_since >= STEADY_S:
            self.reset()

    def reset(self) -> None:
        """Forget every failure: somebody has changed what it may have failed of."""
        self.failures = 0
        self.not_before = float("-inf")

    def is_due(self, now: float) -> bool:
        return now >= self.not_before
