"""The worker that a run has without any other: its own thread."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from reconciliation.reconciler.progress import Control
from reconciliation.workers.checkpoint import checkpoints

T = TypeVar("T")
R = TypeVar("R")


class ThreadRunner:
    """Works one task after the other in the thread that calls `run`."""

    workers: Final = 1

    def run(
        self, tasks: Sequence[T], function: Callable[[T], R], on_done: Callable[[T, R], None], control: Control
    ) -> None:
        """As `Runner.run`."""
        with checkpoints(control.check):
            for task in tasks:
                control.check()
                on_done(task, function(task))

    def close(self) -> None:
        """Nothing is kept."""
