"""Workers that are processes of this machine.

They are told of pauses and of the end by two numbers in shared memory. One is a lease, which the run renews while it
may go on: so its workers hold as well when it hangs. In two more a worker, each tells how far its task is.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import RawArray, RawValue
from typing import Any, Final, TypeVar

from cdc_shared.logging.structured_logger import configure_logging
from cdc_shared.settings import LoggingSettings, load_settings
from reconciliation.reconciler.progress import Cancelled, Control
from reconciliation.workers.checkpoint import set_checkpoint
from reconciliation.workers.control_watch import ControlWatch
from reconciliation.workers.outcome import Outcome, outcome_of
from reconciliation.workers.task_progress import HeldBack, OnProgress, nobody, progress_told_to
from reconciliation.workers.task_queue import TaskQueue

LEASE_S: Final = 1.0
_POLL_S: Final = 0.2
_HELD_POLL_S: Final = 0.05

T = TypeVar("T")
R = TypeVar("R")


class ProcessRunner:
    """Works tasks in new interpreters with this process's environment, started for the first tasks, kept until `close`.

    A process that dies takes the others of its pool with it: new ones work their tasks again.
    """

    def __init__(self, workers: int) -> None:
        self.workers: Final = workers
        self._pool: _Pool | None = None

    def run(
        self,
        tasks: Sequence[T],
        function: Callable[[T], R],
        on_done: Callable[[T, R], None],
        control: Control,
        on_under_way: OnProgress = nobody,
    ) -> None:
        """As `Runner.run`."""
        queue: TaskQueue[T, Future[Outcome[R]]] = TaskQueue(tasks)
        try:
            with ControlWatch(control, self._renew_lease) as watch:
                while queue:
                    watch.check()
                    broken = self._hand_out(queue, function, watch)
                    done = wait(queue.under_way, _POLL_S, FIRST_COMPLETED).done
                    self._tell(queue.under_way.keys() - done, on_under_way)
                    for future in done:
                        if isinstance(future.exception(), BrokenProcessPool):
                            broken = True
                        else:
                            outcome = future.result()
                            on_done(queue.finished(future), outcome.unwrap())
                    if broken:
                        self.close()
                        queue.lost_all()
        except BaseException:
            self.close()  # the workers end at their next checkpoint; what they are at is of no use
            raise

    def close(self) -> None:
        """As `Runner.close`."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _hand_out(
        self, queue: TaskQueue[T, Future[Outcome[R]]], function: Callable[[T], R], watch: ControlWatch
    ) -> bool:
        """Give tasks to idle workers; whether the pool turned out to be broken."""
        if watch.held:
            time.sleep(_POLL_S)
            return False
        while queue.waiting and len(queue.under_way) < self.workers:
            if self._pool is None:
                self._pool = _Pool(self.workers)
            number, task = queue.next()
            try:
                queue.begun(number, self._pool.submit(function, task))
            except BrokenProcessPool:
                queue.put_back(number)
                return True
        return False

    def _tell(self, under_way: Collection[Future[Any]], on_under_way: OnProgress) -> None:
        if self._pool is not None:
            on_under_way(*self._pool.progress(under_way))

    def _renew_lease(self) -> None:
        pool = self._pool
        if pool is not None:
            pool.renew_lease()


class _Pool:
    """Worker processes and what they are told."""

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the locks of threads that it does not copy
        # Without locks: a worker that is killed while it holds one would hold the run up for ever.
        self._lease_until = RawValue("d", 0.0)
        self._ended = RawValue("b", 0)
        self._rows = RawArray("q", workers)
        self._held_back = RawArray("b", workers)
        self._slots: dict[Future[Any], int] = {}
        """Where each task under way tells: not more of them than workers."""
        self.renew_lease()
        self.executor = ProcessPoolExecutor(
            workers,
            context,
            initializer=_begin_worker,
            initargs=(self._lease_until, self._ended, self._rows, self._held_back),
        )

    def submit(self, function: Callable[[T], R], task: T) -> Future[Outcome[R]]:
        """Give the task to an idle worker. Raises `BrokenProcessPool`."""
        self._slots = {future: slot for future, slot in self._slots.items() if not future.done()}
        slot = min(set(range(len(self._rows))) - set(self._slots.values()))
        self._rows[slot] = self._held_back[slot] = 0
        future = self.executor.submit(_told_outcome, slot, function, task)
        self._slots[future] = slot
        return future

    def progress(self, under_way: Collection[Future[Any]]) -> tuple[int, HeldBack]:
        """The rows that these tasks have told together, and the worst that holds one back."""
        slots = [self._slots[future] for future in under_way]
        worst = max((self._held_back[slot] for slot in slots), default=0)
        return sum(self._rows[slot] for slot in slots), HeldBack(worst)

    def renew_lease(self) -> None:
        self._lease_until.value = time.monotonic() + LEASE_S  # a clock that processes of one machine share

    def close(self) -> None:
        self._ended.value = 1
        self.executor.shutdown(wait=False, cancel_futures=True)


_told: tuple[Any, Any] | None = None
"""In a worker: where tasks tell their rows, and what holds them back."""


def _told_outcome(slot: int, function: Callable[[T], R], task: T) -> Outcome[R]:
    def tell(rows: int, held_back: HeldBack) -> None:
        if _told is not None:
            _told[0][slot], _told[1][slot] = rows, held_back

    with progress_told_to(tell):
        return outcome_of(function, task)


def _begin_worker(lease_until: Any, ended: Any, rows: Any, held_back: Any) -> None:
    """In a new worker: obey what the run says, and end when it dies."""

    def check() -> None:
        while not ended.value and time.monotonic() > lease_until.value:
            time.sleep(_HELD_POLL_S)
        if ended.value:
            raise Cancelled("the run has ended")

    global _told
    _told = rows, held_back
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, it is for the run, which then ends its workers
    logging_settings = load_settings(LoggingSettings)
    configure_logging("reconciliation-worker", logging_settings.level, logging_settings.format)
    set_checkpoint(check)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), name="parent-watch", daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
