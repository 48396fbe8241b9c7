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
    check: Callable[[], str]
    """Asks the part to do its work once. Returns a short finding; raises `NotReady` (or the client's error) when it
    does not serve. Bounded to a few seconds; called from several threads, never twice at once for one part.
    """
    command: tuple[str, ...] = ()
    """Empty for a part that is not ours to run, as a MongoDB of the user's own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    files: Mapping[Path, str] = field(default_factory=dict)
    """Configuration files and their content, written (mode 0600) before the process starts; a change restarts it."""
    prepare: Callable[[], None] = nothing_to_prepare
    """Idempotent; runs before the process starts. What an interrupted run left behind does not disturb it."""
    after_ready: Callable[[], None] = nothing_to_prepare
    """Idempotent; runs once the part serves, and before anything that needs it starts."""
    needs: tuple[str, ...] = ()
    ready_within_s: float = 60.0
    stop_signal: str = "TERM"
    stop_within_s: int = 15
