"""The worker that a run has without any other: its own thread."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from reconciliation.reconciler.progress import Control
from reconciliation.workers.checkpoint import checkpoints
from reconciliation.workers.task_progress import HeldBack, OnProgress, nobody, progress_told_to

T = TypeVar("T")
R = TypeVar("R")


class ThreadRunner:
    """Works one task after the other in the thread that calls `run`."""

    workers: Final = 1

    def run(
        self,
        tasks: Sequence[T],
        function: Callable[[T], R],
        on_done: Callable[[T, R], None],
        control: Control,
        on_under_way: OnProgress = nobody,
    ) -> None:
        """As `Runner.run`."""
        with checkpoints(control.check), progress_told_to(on_under_way):
            for task in tasks:
                control.check()
                result = function(task)
                on_under_way(0, HeldBack.NOT)
                on_done(task, result)

    def close(self) -> None:
        """Nothing is kept."""
