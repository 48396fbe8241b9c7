"""How far a run has come, and what people want of it meanwhile."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from cdc_shared.errors import CdcError

REPORT_EVERY_S: Final = 1.0


class Cancelled(CdcError):
    """Somebody cancelled the run. What it has found until then is no verdict."""


class Stopped(CdcError):
    """The service shuts down: the run goes on where it is when somebody takes it up again."""


class Control(Protocol):
    """Asked between pieces of work, from any thread."""

    def check(self) -> None:
        """Return when the work may go on: waits while the run is paused or held back.

        Raises `Cancelled` or `Stopped`.
        """


class Phase(StrEnum):
    """What a run is doing."""

    PREPARING = "preparing"
    SCANNING_TABLE = "scanning_table"
    SCANNING_SOURCE = "scanning_source"
    COMPARING = "comparing"
    SETTLING = "settling"
    """Differences wait for the writer to come as far, and are looked at again."""
    REPORTING = "reporting"


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Of one run, in its current phase.

    Attributes:
        done, total: documents, rows or keys; `total` None while it is not known.
        per_s: over the phase so far; what was done before a resumed run began is not counted.
        throttled_by: why it is slower than it could be, in plain words.
    """

    phase: Phase
    done: int = 0
    total: int | None = None
    per_s: float = 0.0
    throttled_by: str | None = None

    @property
    def percent(self) -> float | None:
        """Of the phase, 0–100; None while the total is not known."""
        if self.total is None:
            return None
        return 100.0 if self.total <= 0 else min(100.0, 100.0 * self.done / self.total)

    @property
    def seconds_left(self) -> float | None:
        """Of the phase, at the rate so far."""
        if self.total is None or self.per_s <= 0:
            return None
        return max(0.0, (self.total - self.done) / self.per_s)


OnProgress = Callable[[RunProgress], None]


class PhaseClock:
    """Counts one phase after another, reports at most once a second, and remembers when each was and for how long."""

    def __init__(self, report: OnProgress, clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._phase: Phase | None = None
        self._made = self._began = clock()
        self._reported = float("-inf")
        self._done = self._before = self._under_way = self._shown = 0
        self._total: int | None = None
        self._throttled_by: str | None = None
        self.past: list[tuple[Phase, float, float]] = []
        """The phases that are over: seconds after this clock was made, and how many seconds they took."""

    def begin(self, phase: Phase, total: int | None = None, done: int = 0) -> None:
        """A phase begins, of which `done` was done by an earlier process."""
        self.end()
        self._phase, self._total = phase, total
        self._done = self._before = self._shown = done
        self._under_way = 0
        self._throttled_by = None
        self._began = self._clock()
        self._show()

    def advance(self, more: int) -> None:
        """So much more is done."""
        self._done += more
        if self._clock() - self._reported >= REPORT_EVERY_S:
            self._show()

    def under_way(self, amount: int) -> None:
        """So much of what is not done yet has come: it replaces what was said before."""
        self._under_way = amount
        self.advance(0)

    def throttled(self, why: str | None) -> None:
        """What holds the phase back now; None when nothing does."""
        if why != self._throttled_by:
            self._throttled_by = why
            self._show()

    def end(self) -> None:
        """The phase at hand is over."""
        if self._phase is not None:
            self.past.append((self._phase, self._began - self._made, self._clock() - self._began))
            self._show()
            self._phase = None

    def _show(self) -> None:
        if self._phase is None:
            return
        now = self._clock()
        took = now - self._began
        # A task that begins again, for its worker died, takes nothing back.
        self._shown = max(self._shown, self._done + self._under_way)
        per_s = (self._shown - self._before) / took if took > 0 else 0.0
        self._reported = now
        self._report(RunProgress(self._phase, self._shown, self._total, per_s, self._throttled_by))
