"""How a task that is being worked learns that it shall wait or end, wherever it runs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

Check = Callable[[], None]
"""As `Control.check`: returns when the work may go on; raises `Cancelled` or `Stopped`."""

_SLICE_S: Final = 0.1

_current: ContextVar[Check | None] = ContextVar("checkpoint", default=None)


def checkpoint() -> None:
    """Called by tasks between pieces of work, several times a second: waits while the run is paused.

    Raises `Cancelled` or `Stopped` when the run ends. Outside of a runner it does nothing.
    """
    check = _current.get()
    if check is not None:
        check()


def pause(seconds: float) -> None:
    """Sleep, with checkpoints meanwhile. Raises what `checkpoint` raises."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        checkpoint()
        time.sleep(min(_SLICE_S, left))


def set_checkpoint(check: Check) -> None:
    """From now on `checkpoint` in this thread is `check`."""
    _current.set(check)


@contextmanager
def checkpoints(check: Check) -> Iterator[None]:
    """Within the block, `checkpoint` in this thread is `check`."""
    token = _current.set(check)
    try:
        yield
    finally:
        _current.reset(token)
