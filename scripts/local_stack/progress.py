"""What the commands show while they work: lines that stay, and in a terminal one line that changes."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status


class Progress:
    """Tells the person at the terminal what is going on."""

    def __init__(self, console: Console, status: Status | None = None) -> None:
        self._console = console
        self._status = status

    def now(self, text: str) -> None:
        """What is being done at this moment. Where there is no terminal, nothing."""
        if self._status is not None:
            self._status.update(text)

    def line(self, text: str) -> None:
        """Something worth keeping: a long step that begins, or one that is done."""
        self._console.print(text, soft_wrap=True)


@contextmanager
def progress(console: Console, text: str) -> Iterator[Progress]:
    """A `Progress` that shows `text` until told otherwise."""
    if not console.is_terminal:
        yield Progress(console)
        return
    with console.status(text) as status:
        yield Progress(console, status)
