"""One command at a time changes a stack; the next one waits and says so."""

from pathlib import Path
from threading import Event, Thread

import pytest

from local_stack.lock import exclusive

pytestmark = pytest.mark.unit


def test_the_second_command_waits_and_says_so(tmp_path: Path) -> None:
    path, waiting, entered = tmp_path / "lock", Event(), Event()

    def second() -> None:
        with exclusive(path, waiting.set):
            entered.set()

    thread = Thread(target=second)
    with exclusive(path, lambda: pytest.fail("nobody else is there")):
        thread.start()
        assert waiting.wait(5)
        assert not entered.is_set()
    thread.join(5)
    assert entered.is_set()


def test_a_failed_command_gives_the_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(RuntimeError, match="failed"), exclusive(path, lambda: None):
        raise RuntimeError("failed")

    with exclusive(path, lambda: pytest.fail("it was not given back")):
        pass
