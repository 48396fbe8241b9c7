"""How a task that is being worked learns that it shall wait or end, wherever it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Check = Callable[[], None]
"""As `Control.check`: returns when the work may go on; raises `Cancelled` or `Stopped`."""

_current: ContextVar[Check | None] = ContextVar("checkpoint", default=None)


def checkpoint() -> None:
    """Called by tasks between pieces of work, several times a second: waits while the run is paused.

    Raises `Cancelled` or `Stopped` when the run ends. Outside of a runner it does nothing.
    """
    check = _current.get()
    if check is not None:
        check()


@contextmanager
def checkpoints(check: Check) -> Iterator[None]:
    """Within the block, `checkpoint` in this thread is `check`."""
    token = _current.set(check)
    try:
        yield
    finally:
        _current.reset(token)
