"""What a check is: a name, a function that blocks, and what has to hold before it makes sense."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from control_plane.models.preflight import CheckOutcome

TIME_LIMIT_S = 8.0
SHOWN = 5


class Finding(NamedTuple):
    """What a check found."""

    outcome: CheckOutcome
    message: str


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    run: Callable[[], Finding]
    """Blocks; any thread may call it. A `CdcError` that it raises is a failure."""
    needs: tuple[str, ...] = ()
    """Checks before this one in the list; it is skipped where one of them has failed or was skipped."""
    when_away: str = "try again later"
    """What to do when what is asked does not answer."""
    time_limit_s: float = TIME_LIMIT_S


def ok(message: str) -> Finding:
    return Finding(CheckOutcome.OK, message)


def warning(message: str) -> Finding:
    return Finding(CheckOutcome.WARNING, message)


def failed(message: str) -> Finding:
    return Finding(CheckOutcome.FAILED, message)


def skipped(message: str) -> Finding:
    return Finding(CheckOutcome.SKIPPED, message)


def some(names: list[str]) -> str:
    """The first few of many names, for a sentence."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
