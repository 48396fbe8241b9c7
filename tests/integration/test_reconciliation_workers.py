"""Tasks in processes and on a Dask cluster: none is lost or told of twice, whatever becomes of the workers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scan_tasks import Task, fail, steps, telling_steps, work
from waiting import wait_until

from cdc_shared.errors import Fatal, Transient
from reconciliation.reconciler.progress import Cancelled
from reconciliation.workers.dask import DaskRunner
from reconciliation.workers.outcome import WorkersLost
from reconciliation.workers.processes import ProcessRunner
from reconciliation.workers.task_progress import HeldBack

pytestmark = pytest.mark.integration

TIMEOUT_S = 60.0
FREE = SimpleNamespace(check=lambda: None)
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def processes() -> Iterator[ProcessRunner]:
    runner = ProcessRunner(2)
    yield runner
    runner.close()


class Switch:
    """A control that a test sets."""

    def __init__(self) -> None:
        self.going = threading.Event()
        self.going.set()
        self.cancelled = False

    def check(self) -> None:
        if self.cancelled:
            raise Cancelled("enough")
        self.going.wait(TIMEOUT_S)


class InBackground:
    """One call of `run`."""

    def __init__(self, runner: Any, tasks: list[Task], function: Any, control: Any) -> None:
        self.done: list[Any] = []
        self.error: BaseException | None = None
        arguments = (tasks, function, lambda _, result: self.done.append(result), control)
        self._thread = threading.Thread(target=self._run, args=(runner, arguments), daemon=True)
        self._thread.start()

    def _run(self, runner: Any, arguments: Any) -> None:
        try:
            runner.run(*arguments)
        except BaseException as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()


def test_processes_share_the_tasks_and_those_of_killed_ones_are_worked_again(
    processes: ProcessRunner, tmp_path: Path
) -> None:
    tasks = [Task(tmp_path, number, deadly=2 * (number == 5), seconds=0.05) for number in range(12)]
    done: list[tuple[int, int]] = []
    processes.run(tasks, work, lambda _, result: done.append(result), FREE)
    assert sorted(number for number, _ in done) == list(range(12))
    assert os.getpid() not in {pid for _, pid in done}
    assert len(tasks[5].begun()) == 3
    assert all(len(task.begun()) == 1 for task in tasks[:4])

    with pytest.raises(Fatal, match="task 1 cannot be worked"):
        processes.run(tasks[:2], fail, lambda *_: None, FREE)


def test_what_processes_have_read_is_told_together(processes: ProcessRunner, tmp_path: Path) -> None:
    told: list[tuple[int, HeldBack]] = []
    tasks = [Task(tmp_path, number) for number in range(2)]
    processes.run(tasks, telling_steps, lambda *_: None, FREE, lambda rows, why: told.append((rows, why)))
    rows = [each for each, _ in told]
    assert max(rows) > 500, "both tell, each up to 500"
    assert len(set(rows)) > 5, "as they go"
    assert any(why is HeldBack.BY_CAP for _, why in told)
    assert told[-1] == (0, HeldBack.NOT), "what is done is under way no more"


def test_a_task_that_kills_every_worker_ends_the_run(processes: ProcessRunner, tmp_path: Path) -> None:
    with pytest.raises(WorkersLost, match="died 3 times while they worked Task"):
        processes.run([Task(tmp_path, 0, deadly=99)], work, lambda *_: None, FREE)


def test_processes_hold_while_the_run_is_paused_and_end_when_it_is_cancelled(
    processes: ProcessRunner, tmp_path: Path
) -> None:
    switch = Switch()
    run = InBackground(processes, [Task(tmp_path, 0), Task(tmp_path, 1)], steps, switch)
    paths = [tmp_path / "steps-0", tmp_path / "steps-1"]
    wait_until(lambda: all(path.exists() for path in paths), TIMEOUT_S, "both tasks run")

    switch.going.clear()
    seen = Changes(paths)
    wait_until(lambda: seen.still_for(0.5), 3.0, "both tasks hold")
    switch.going.set()
    wait_until(seen.changed, TIMEOUT_S, "both tasks go on")
    switch.cancelled = True
    run.join()
    assert isinstance(run.error, Cancelled)
    wait_until(lambda: seen.still_for(0.5), 3.0, "both tasks have ended")
    assert not run.done


class Changes:
    """Whether files still change."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._last: list[str] = []
        self._since = 0.0

    def still_for(self, seconds: float) -> bool:
        now = time.monotonic()
        if self.changed():
            self._since = now
        return now - self._since >= seconds

    def changed(self) -> bool:
        texts = [path.read_text() for path in self._paths]
        changed, self._last = texts != self._last, texts
        return changed


class Cluster:
    """A scheduler and workers, each a process as on a machine of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.processes: list[subprocess.Popen[bytes]] = []
        scheduler_file = directory / "scheduler.json"
        common = ("--scheduler-file", str(scheduler_file))
        self._start("distributed.cli.dask_scheduler", *common, "--no-dashboard", "--port", "0", "--host", "127.0.0.1")
        self.workers = [
            self._start(
                "distributed.cli.dask_worker",
                *(*common, "--no-dashboard", "--no-nanny", "--nthreads", "1", "--host", "127.0.0.1"),
                *("--local-directory", str(directory), "--death-timeout", "60"),
            )
            for _ in range(2)
        ]
        wait_until(
            lambda: scheduler_file.exists() and scheduler_file.read_text().endswith("}"),
            TIMEOUT_S,
            "the Dask scheduler listens",
        )
        self.address: str = json.loads(scheduler_file.read_text())["address"]

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
        with (self._directory / "dask.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


def test_a_dask_cluster_loses_no_task_when_a_worker_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    runner = DaskRunner(cluster.address)
    wait_until(lambda: runner.workers == 2, TIMEOUT_S, "both workers are there")
    tasks = [Task(tmp_path, number, seconds=0.1) for number in range(20)]
    run = InBackground(runner, tasks, work, FREE)
    wait_until(lambda: len(run.done) >= 4, TIMEOUT_S, "four tasks are done")
    victim = cluster.workers[0]
    victim.send_signal(signal.SIGKILL)
    run.join()
    assert run.error is None
    assert Counter(number for number, _ in run.done) == Counter(range(20))
    assert {pid for _, pid in run.done} <= {each.pid for each in cluster.workers}

    with pytest.raises(Fatal, match="task 1 cannot be worked"):
        runner.run(tasks[:2], fail, lambda *_: None, FREE)
    switch = Switch()
    run = InBackground(runner, [Task(tmp_path, 100)], steps, switch)
    wait_until((tmp_path / "steps-100").exists, TIMEOUT_S, "the task runs")
    switch.cancelled = True
    run.join()
    assert isinstance(run.error, Cancelled)

    run = InBackground(runner, [Task(tmp_path, 101)], steps, FREE)
    wait_until((tmp_path / "steps-101").exists, TIMEOUT_S, "the task runs")
    cluster.close()
    run.join()
    assert isinstance(run.error, Transient)
    assert cluster.address in str(run.error)
    runner.close()


def test_no_scheduler_is_told_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciliation.workers.dask.CONNECT_TIMEOUT_S", 0.5)
    with pytest.raises(Transient, match=re.escape("127.0.0.1:1")):
        DaskRunner("tcp://127.0.0.1:1").run(["task"], len, lambda *_: None, FREE)
