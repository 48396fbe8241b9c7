"""What a task in another process came to, in a form that travels.

Errors are told by kind and text. An exception itself need not survive pickling (one that does not breaks a process
pool), and schedulers log those that tasks raise, with values of documents that libraries quote in them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from cdc_shared.errors import CdcError, Fatal, Transient, shown
from reconciliation.reconciler.progress import Cancelled, Stopped

T = TypeVar("T")
R = TypeVar("R")

_KINDS: Final[tuple[type[CdcError], ...]] = (Cancelled, Stopped, Transient, Fatal)


class WorkersLost(Fatal):
    """Workers die of a task, as those do that run out of memory."""

    def __init__(self, task: object, times: int) -> None:
        super().__init__(
            f"workers died {times} times while they worked {task!r}; look at the machine's log for processes that were "
            "killed (out of memory?), and give the workers more memory or run fewer at a time"
        )


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """Either what the task returned, or the kind and text of its error."""

    result: R | None
    error: tuple[int, str] | None = None

    def unwrap(self) -> R:
        """Return the result, or raise the error, as what `Runner.run` raises."""
        if self.error is not None:
            kind, message = self.error
            raise _KINDS[kind](message)
        return self.result  # type: ignore[return-value]  # None only when that is what the task returned


def outcome_of(function: Callable[[T], R], task: T) -> Outcome[R]:
    """Work the task. An error that nobody raised on purpose is a fault of ours: `Fatal`, with the place."""
    try:
        return Outcome(function(task))
    except Exception as error:
        kind = next((number for number, each in enumerate(_KINDS) if isinstance(error, each)), len(_KINDS) - 1)
        return Outcome(None, (kind, shown(error)))
