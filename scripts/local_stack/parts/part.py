"""What the stack knows of a part."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


def nothing_to_prepare() -> None:
    """Most parts need no more than their command."""


@dataclass(frozen=True)
class Part:
    name: str
    endpoint: str
    """What people and clients connect to; no secret."""
    ready: Callable[[], str]
    """Asks whether the part serves, as what needs it would. Returns a short finding; raises `NotReady` when it does
    not. Bounded to a few seconds. `make up` waits for it.
    """
    healthy: Callable[[], str] | None = None
    """The same for `make status`, where more is asked: also of the work that people gave the part. None: as `ready`."""
    command: tuple[str, ...] = ()
    """Empty for a part that is not ours to run, as a MongoDB of the user's own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    """Where it runs and keeps its data; made with mode 0700."""
    files: Mapping[Path, str] = field(default_factory=dict)
    """Configuration files and their content, written (mode 0600) before the process starts; a change restarts it."""
    sources: tuple[Path, ...] = ()
    """Directories of this checkout with the program's Python and SQL; a change, as an update brings, restarts it."""
    prepare: Callable[[], None] = nothing_to_prepare
    """Idempotent; runs before the process starts. What an interrupted run left behind does not disturb it."""
    after_ready: Callable[[], None] = nothing_to_prepare
    """Idempotent; runs once the part serves, and before anything that needs it starts."""
    needs: tuple[str, ...] = ()
    ready_within_s: float = 60.0
    stop_signal: str = "TERM"
    stop_within_s: int = 15
