"""How a task that is being worked tells how many rows it has read: as `checkpoint`, in the other direction."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum
from typing import Final


class HeldBack(IntEnum):
    """What a task waits for longer than for its work; a number, so that it fits into shared memory."""

    NOT = 0
    BY_SOURCE = 1
    BY_CAP = 2

    @property
    def reason(self) -> str | None:
        """In plain words; None when nothing does."""
        return _REASONS[self]


_REASONS: Final = {
    HeldBack.NOT: None,
    HeldBack.BY_SOURCE: "the source answers more slowly than usual",
    HeldBack.BY_CAP: "the cap on documents per second",
}

OnProgress = Callable[[int, HeldBack], None]
"""Rows that were read so far, and what holds the reading back now: of one task, or of those under way together."""

_current: ContextVar[OnProgress | None] = ContextVar("task_progress", default=None)


def tell_progress(rows: int, held_back: HeldBack = HeldBack.NOT) -> None:
    """Called by tasks after each piece of work, with all that they have read. Outside of a runner it does nothing."""
    tell = _current.get()
    if tell is not None:
        tell(rows, held_back)


@contextmanager
def progress_told_to(tell: OnProgress) -> Iterator[None]:
    """Within the block, `tell_progress` in this thread is `tell`."""
    token = _current.set(tell)
    try:
        yield
    finally:
        _current.reset(token)


def nobody(_rows: int, _held_back: HeldBack) -> None:
    """For those who do not want to know."""
