"""The run's own thread as a worker, and which workers the settings choose."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cdc_shared.errors import Fatal
from reconciliation.reconciler.progress import Cancelled
from reconciliation.workers.checkpoint import checkpoint, pause
from reconciliation.workers.choice import runner_for
from reconciliation.workers.processes import ProcessRunner
from reconciliation.workers.task_progress import HeldBack, tell_progress
from reconciliation.workers.threads import ThreadRunner

pytestmark = pytest.mark.unit

FREE = SimpleNamespace(check=lambda: None)


def test_tasks_are_worked_in_order() -> None:
    done: list[tuple[int, str]] = []
    ThreadRunner().run([3, 1, 2], str, lambda task, result: done.append((task, result)), FREE)
    assert done == [(3, "3"), (1, "1"), (2, "2")]


def test_a_task_tells_how_far_it_is() -> None:
    told: list[object] = []

    def work(task: int) -> int:
        tell_progress(task)
        tell_progress(2 * task, HeldBack.BY_CAP)
        return task

    ThreadRunner().run(
        [10, 20], work, lambda task, _: told.append(task), FREE, lambda rows, why: told.append((rows, why.reason))
    )
    cap = "the cap on documents per second"
    assert told == [(10, None), (20, cap), (0, None), 10, (20, None), (40, cap), (0, None), 20]
    tell_progress(1)  # outside of a run it does nothing


def test_an_error_ends_the_run() -> None:
    done: list[int] = []

    def work(task: int) -> int:
        if task == 2:
            raise Fatal("no more")
        return task

    with pytest.raises(Fatal, match="no more"):
        ThreadRunner().run([1, 2, 3], work, lambda task, _: done.append(task), FREE)
    assert done == [1]


def test_a_task_learns_at_its_checkpoint_that_the_run_was_cancelled() -> None:
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise Cancelled

    def work(task: int) -> None:
        checkpoint()

    done: list[int] = []
    with pytest.raises(Cancelled):
        ThreadRunner().run([1, 2, 3], work, lambda task, _: done.append(task), SimpleNamespace(check=check))
    assert done == [1]
    checkpoint()  # outside of a run it does nothing


def test_a_pause_ends_with_the_run() -> None:
    def check() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        ThreadRunner().run([60.0], pause, lambda *_: None, SimpleNamespace(check=_after(2, check)))


def _after(calls: int, then: object) -> object:
    made = 0

    def check() -> None:
        nonlocal made
        made += 1
        if made > calls:
            then()  # type: ignore[operator]

    return check


def test_the_settings_choose_the_workers() -> None:
    assert isinstance(runner_for(), ThreadRunner)
    several = runner_for(3)
    assert isinstance(several, ProcessRunner)
    assert several.workers == 3
    several.close()
    assert type(runner_for(3, "tcp://dask.example:8786")).__name__ == "DaskRunner"
