"""Who works the tasks of a run: this process, several processes of this machine, or a Dask cluster."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from reconciliation.reconciler.progress import Control
from reconciliation.workers.task_progress import OnProgress, nobody

T = TypeVar("T")
R = TypeVar("R")


class Runner(Protocol):
    """Works tasks that do not depend on each other."""

    @property
    def workers(self) -> int:
        """How many tasks are worked at a time: caps that the workers share are divided by it."""

    def run(
        self,
        tasks: Sequence[T],
        function: Callable[[T], R],
        on_done: Callable[[T, R], None],
        control: Control,
        on_under_way: OnProgress = nobody,
    ) -> None:
        """Work every task, in any order; `on_done` is called in this thread with each task and what came of it.

        Tasks, results and `function` can be pickled, and `function` can be imported. A task is worked again when its
        worker dies, and `on_done` is called once for each. While `control` holds the run back no task begins, and those
        under way wait at their next `checkpoint` (on Dask they end). Returns when all are done.

        `on_under_way` is called in this thread now and then with what the tasks under way have told together, without
        those that `on_done` was called for; never on Dask, whose tasks tell nothing before they are done.

        Raises what `function`, `on_done` or `control.check` raises, after the other tasks were stopped; `WorkersLost`
        when workers keep dying of a task.
        """

    def close(self) -> None:
        """End the workers."""
