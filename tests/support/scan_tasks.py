"""Tasks for runners in other processes, which import them from here."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from cdc_shared.errors import Fatal
from reconciliation.workers.checkpoint import checkpoint
from reconciliation.workers.task_progress import HeldBack, tell_progress


@dataclass(frozen=True)
class Task:
    """`directory` is where its workings are noted: a file for each."""

    directory: Path
    number: int
    deadly: int = 0
    """So often its worker is killed in the middle of it."""
    seconds: float = 0.0
    """It takes so long at least, with checkpoints."""

    def begun(self) -> list[Path]:
        """Its workings so far."""
        return sorted(self.directory.glob(f"{self.number}-*"))


def work(task: Task) -> tuple[int, int]:
    """Return the task's number and the process that worked it."""
    working = task.directory / f"{task.number}-{time.monotonic_ns()}"
    working.write_text(str(os.getpid()))
    if len(task.begun()) <= task.deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    until = time.monotonic() + task.seconds
    while time.monotonic() < until:
        checkpoint()
        time.sleep(0.01)
    return task.number, os.getpid()


def fail(task: Task) -> None:
    """Every task but number 0 ends in an error."""
    if task.number:
        raise Fatal(f"task {task.number} cannot be worked")


def telling_steps(task: Task) -> None:
    """Tell each of five hundred steps."""
    for step in range(1, 501):
        tell_progress(step, HeldBack.BY_CAP)
        time.sleep(0.01)


def steps(task: Task) -> int:
    """Write down each step that is taken, until there are five hundred; return their number."""
    path = task.directory / f"steps-{task.number}"
    for step in range(500):
        checkpoint()
        path.write_text(str(step))
        time.sleep(0.01)
    return 500
