"""Workers that are processes of this machine.

They are told of pauses and of the end by two numbers in shared memory. One is a lease, which the run renews while it
may go on: so its workers hold as well when it hangs.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import RawValue
from typing import Any, Final, TypeVar

from cdc_shared.logging.structured_logger import configure_logging
from cdc_shared.settings import LoggingSettings, load_settings
from reconciliation.reconciler.progress import Cancelled, Control
from reconciliation.workers.checkpoint import set_checkpoint
from reconciliation.workers.control_watch import ControlWatch
from reconciliation.workers.outcome import Outcome, outcome_of
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
        self, tasks: Sequence[T], function: Callable[[T], R], on_done: Callable[[T, R], None], control: Control
    ) -> None:
        """As `Runner.run`."""
        queue: TaskQueue[T, Future[Outcome[R]]] = TaskQueue(tasks)
        try:
            with ControlWatch(control, self._renew_lease) as watch:
                while queue:
                    watch.check()
                    broken = self._hand_out(queue, function, watch)
                    for future in wait(queue.under_way, _POLL_S, FIRST_COMPLETED).done:
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
                queue.begun(number, self._pool.executor.submit(outcome_of, function, task))
            except BrokenProcessPool:
                queue.put_back(number)
                return True
        return False

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
        self.renew_lease()
        self.executor = ProcessPoolExecutor(
            workers, context, initializer=_begin_worker, initargs=(self._lease_until, self._ended)
        )

    def renew_lease(self) -> None:
        self._lease_until.value = time.monotonic() + LEASE_S  # a clock that processes of one machine share

    def close(self) -> None:
        self._ended.value = 1
        self.executor.shutdown(wait=False, cancel_futures=True)


def _begin_worker(lease_until: Any, ended: Any) -> None:
    """In a new worker: obey what the run says, and end when it dies."""

    def check() -> None:
        while not ended.value and time.monotonic() > lease_until.value:
            time.sleep(_HELD_POLL_S)
        if ended.value:
            raise Cancelled("the run has ended")

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
