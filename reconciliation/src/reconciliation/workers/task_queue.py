"""Which tasks of a run wait, which are under way, and which a worker died of; the same for processes and Dask."""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from cdc_shared.logging.structured_logger import get_logger
from reconciliation.workers.outcome import WorkersLost

log = get_logger(__name__)

MAX_DEATHS_OF_A_TASK: Final = 3

T = TypeVar("T")
H = TypeVar("H")
"""How a worker's answer is waited for: a future."""


class TaskQueue(Generic[T, H]):
    """Each task leaves it once, by `finished`."""

    def __init__(self, tasks: Sequence[T]) -> None:
        self._tasks = tasks
        self._waiting = deque(range(len(tasks)))
        self._deaths: Counter[int] = Counter()
        self.under_way: dict[H, int] = {}
        """By the numbers that `next` gave."""

    def __bool__(self) -> bool:
        """Whether there is something left to do."""
        return bool(self._waiting or self.under_way)

    @property
    def waiting(self) -> bool:
        """Whether a task could begin."""
        return bool(self._waiting)

    def next(self) -> tuple[int, T]:
        """Take the next task out; `begun` or `put_back` says what became of it."""
        number = self._waiting.popleft()
        return number, self._tasks[number]

    def begun(self, number: int, handle: H) -> None:
        """A worker has it."""
        self.under_way[handle] = number

    def put_back(self, number: int) -> None:
        """No worker took it."""
        self._waiting.appendleft(number)

    def finished(self, handle: H) -> T:
        """Return the task that is done."""
        return self._tasks[self.under_way.pop(handle)]

    def lost_all(self) -> None:
        """Put the tasks back that are under way: their workers died, of one of them or with it.

        Raises `WorkersLost` when that was so too often for one.
        """
        for number in sorted(self.under_way.values(), reverse=True):
            self._deaths[number] += 1
            if self._deaths[number] >= MAX_DEATHS_OF_A_TASK:
                raise WorkersLost(self._tasks[number], self._deaths[number])
            self._waiting.appendleft(number)
            log.warning("task_begins_again", task=repr(self._tasks[number]), deaths=self._deaths[number])
        self.under_way.clear()
