"""Looks at one part of the platform again and again, in the background, and knows how it was found last."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Generic, TypeVar

from cdc_shared.errors import CdcError, shown
from cdc_shared.logging.redaction import redact_text
from cdc_shared.logging.structured_logger import get_logger
from control_plane.models.monitoring import DependencyDetail, DependencyState

FORGOTTEN_AFTER_LOOKS: Final = 6
"""An answer that is older than so many intervals says nothing about how things are now."""

T = TypeVar("T")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Seen:
    state: DependencyState
    since: datetime
    checked_at: datetime
    checked_s: float
    duration_ms: float
    detail: str | None


class DependencyWatch(Generic[T]):
    """One part, and the last value that a look at it gave.

    A look that does not come back in time is told of as away and waited for: two are never under way.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[], Awaitable[T]],
        interval_s: float,
        timeout_s: float,
        *,
        required: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`look` returns what it finds and raises when the part is away. `clock` is monotonic, in seconds."""
        self.name = name
        self.value: T | None = None
        """Of the last look that succeeded."""
        self._look = look
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._required = required
        self._clock = clock
        self._seen: _Seen | None = None

    @property
    def detail(self) -> DependencyDetail:
        """How it was found last."""
        seen = self._seen
        if seen is None or self._clock() - seen.checked_s > self._oldest_s:
            return DependencyDetail(
                name=self.name,
                state=DependencyState.UNKNOWN,
                required=self._required,
                since=None,
                checked_at=seen.checked_at if seen else None,
                duration_ms=None,
                detail="not checked yet" if seen is None else "not checked for a while",
            )
        return DependencyDetail(
            name=self.name,
            state=seen.state,
            required=self._required,
            since=seen.since,
            checked_at=seen.checked_at,
            duration_ms=seen.duration_ms,
            detail=seen.detail,
        )

    @property
    def _oldest_s(self) -> float:
        return FORGOTTEN_AFTER_LOOKS * self._interval_s + self._timeout_s

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look_once()
            await asyncio.sleep(self._interval_s)

    async def look_once(self) -> None:
        """Look, and remember what was found. Raises nothing."""
        started_s = self._clock()
        looking = asyncio.ensure_future(self._look())
        try:
            done, _ = await asyncio.wait({looking}, timeout=self._timeout_s)
            if not done:
                self._note(started_s, f"no answer within {self._timeout_s:g} s")
                await asyncio.wait({looking})
        except asyncio.CancelledError:
            looking.cancel()
            raise
        error = looking.exception()
        if error is None:
            self.value = looking.result()
        self._note(started_s, None if error is None else _told(error))

    def _note(self, started_s: float, problem: str | None) -> None:
        state = DependencyState.OK if problem is None else DependencyState.AWAY
        before, now = self._seen, datetime.now(UTC)
        changed = before is None or before.state is not state
        if changed and (problem is not None or before is not None):
            (log.info if problem is None else log.warning)("dependency", name=self.name, state=state, reason=problem)
        self._seen = _Seen(
            state=state,
            since=now if before is None or changed else before.since,
            checked_at=now,
            checked_s=self._clock(),
            duration_ms=round((self._clock() - started_s) * 1000, 1),
            detail=problem,
        )


def _told(error: BaseException) -> str:
    return redact_text(shown(error)) if isinstance(error, (CdcError, OSError)) else shown(error)
