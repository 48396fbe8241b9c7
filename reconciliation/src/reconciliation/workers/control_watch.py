"""Asks a run's control in a thread of its own, so that a run can be held and ended while its tasks are elsewhere."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from reconciliation.reconciler.progress import Control

BEAT_S: Final = 0.2
HELD_AFTER_S: Final = 0.6
"""A check that takes longer than this holds the run."""


class ControlWatch:
    """Within the block, calls `on_beat` every `BEAT_S` while the run may go on; silence means that it is held."""

    def __init__(self, control: Control, on_beat: Callable[[], None] = lambda: None) -> None:
        self._control = control
        self._on_beat = on_beat
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._beat_at = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="control-watch", daemon=True)

    def __enter__(self) -> Self:
        self._control.check()
        self._on_beat()
        self._beat_at = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()  # the thread is not waited for: in a run that is held it sits in the check

    @property
    def held(self) -> bool:
        """Whether the run waits now."""
        return time.monotonic() - self._beat_at > HELD_AFTER_S

    def check(self) -> None:
        """Raise what the control raised. Does not wait."""
        if self._error is not None:
            raise self._error

    def _watch(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                self._control.check()
            except BaseException as error:  # for the run's own thread, whatever it is
                self._error = error
                return
            self._beat_at = time.monotonic()
            if not self._ended.is_set():
                self._on_beat()
