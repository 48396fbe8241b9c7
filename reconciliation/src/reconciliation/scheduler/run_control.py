"""How a run, in threads of its own, hears of what people and the service want of it."""

import threading
from typing import Final

from reconciliation.reconciler.progress import Cancelled, Stopped

_LOOK_EVERY_S: Final = 1.0


class RunControl:
    """A `Control`: set from the event loop, asked from the run's threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ending: type[Cancelled] | type[Stopped] | None = None
        self._held_by: str | None = None

    def check(self) -> None:
        """As `Control.check`."""
        with self._changed:
            while self._ending is None and self._held_by is not None:
                self._changed.wait(_LOOK_EVERY_S)
            if self._ending is Cancelled:
                raise Cancelled("the run was cancelled")
            if self._ending is Stopped:
                raise Stopped("the run was stopped, and can be taken up again")

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until the run ends. Raises `Cancelled` or `Stopped`."""
        with self._changed:
            self._changed.wait_for(lambda: self._ending is not None, seconds)
        self.check()

    @property
    def held_by(self) -> str | None:
        """Why the run is held back now, in plain words."""
        return self._held_by

    def hold(self, why: str | None) -> None:
        """Hold the run back at its next check, or with None let it go on."""
        with self._changed:
            self._held_by = why
            self._changed.notify_all()

    def cancel(self) -> None:
        """End the run for good."""
        self._end(Cancelled)

    def stop(self) -> None:
        """End the run so that it can be taken up again. A run that was cancelled stays so."""
        self._end(Stopped)

    def _end(self, how: type[Cancelled] | type[Stopped]) -> None:
        with self._changed:
            if self._ending is not Cancelled:
                self._ending = how
            self._changed.notify_all()
