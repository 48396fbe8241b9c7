"""What a killed supervisord left behind is found by its marker, and ended: politely first."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from local_stack.layout import Layout
from local_stack.processes import end_processes, memory_bytes, stray_processes, wait_until_gone
from local_stack.supervision import MARKER

pytestmark = pytest.mark.unit

WAIT_FOR_EVER = "import signal; print('ready', flush=True); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT_FOR_EVER}"


@contextmanager
def running(program: str, root: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of the stack at `root`, started and past its first line."""
    environment = {**os.environ, MARKER: str(root)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_only_processes_of_this_checkout_are_found(layout: Layout, tmp_path: Path) -> None:
    with running(WAIT_FOR_EVER, layout.root) as ours, running(WAIT_FOR_EVER, tmp_path / "other") as other:
        found = {process.pid for process in stray_processes(layout)}

    assert ours.pid in found
    assert other.pid not in found


def test_the_command_itself_is_not_found(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make down` may run in a shell that carries the marker."""
    monkeypatch.setattr(psutil.Process, "environ", lambda _: {MARKER: str(layout.root)})

    assert os.getpid() not in {process.pid for process in stray_processes(layout)}
    assert os.getppid() not in {process.pid for process in stray_processes(layout)}


def test_a_process_that_listens_ends_by_itself(layout: Layout) -> None:
    with running(WAIT_FOR_EVER, layout.root) as process:
        assert end_processes([psutil.Process(process.pid)]) == 1
        assert not psutil.pid_exists(process.pid)


def test_one_that_does_not_is_killed(layout: Layout) -> None:
    with running(STUBBORN, layout.root) as process:
        end_processes([psutil.Process(process.pid)], grace_s=0.2)
        assert not psutil.pid_exists(process.pid)


def test_waiting_for_an_end(layout: Layout) -> None:
    with running(WAIT_FOR_EVER, layout.root) as process:
        assert not wait_until_gone(process.pid, timeout_s=0.05)
        process.kill()
        assert wait_until_gone(process.pid, timeout_s=5)


def test_memory_of_a_process_that_is_gone_is_none() -> None:
    assert memory_bytes(os.getpid()) > 1_000_000
    assert memory_bytes(2**22 + 1) == 0
