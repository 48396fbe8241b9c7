"""Workers of a Dask cluster, on other machines.

Each has this package installed, with its extra `dask`, and its own environment: S3_ENDPOINT, the secrets that specs
refer to, and so on. What a task finds travels back over the network, so nothing but the scheduler is shared.
"""

import asyncio
import concurrent.futures
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar

import dask.config
import distributed
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from cdc_shared.errors import Transient
from reconciliation.reconciler.progress import Control
from reconciliation.workers.control_watch import ControlWatch
from reconciliation.workers.outcome import Outcome, WorkersLost, outcome_of
from reconciliation.workers.task_progress import OnProgress, nobody
from reconciliation.workers.task_queue import TaskQueue

CONNECT_TIMEOUT_S: Final = 10.0
WORKERS_TIMEOUT_S: Final = 60.0
TASKS_A_WORKER: Final = 2
"""One that is worked, and one that waits at the worker, so that it is never idle."""
_POLL_S: Final = 0.2

T = TypeVar("T")
R = TypeVar("R")


_CANCELLED: Final = (asyncio.CancelledError, concurrent.futures.CancelledError)
"""What becomes of futures whose scheduler is gone."""

# Without types in distributed.
_connect: Final[Callable[..., Any]] = distributed.Client
_wait: Final[Callable[..., Any]] = distributed.wait


class DaskRunner:
    """Works tasks on a cluster. Connects when it is first needed, and again after the scheduler was lost.

    A run that is held lets the tasks that are under way come to their end.
    """

    def __init__(self, address: str) -> None:
        """`address` is the scheduler's, as tcp://host:8786."""
        self._address = address
        self._client: Any = None

    @property
    def workers(self) -> int:
        """How many threads the cluster's workers have now.

        Raises `Transient` when no scheduler answers, or it has no worker for `WORKERS_TIMEOUT_S`.
        """
        with self._talking() as client:
            client.wait_for_workers(1, timeout=WORKERS_TIMEOUT_S)
            return max(1, sum(map(int, client.nthreads().values())))

    def run(
        self,
        tasks: Sequence[T],
        function: Callable[[T], R],
        on_done: Callable[[T, R], None],
        control: Control,
        on_under_way: OnProgress = nobody,  # noqa: ARG002 # tasks on other machines tell nothing before they are done
    ) -> None:
        """As `Runner.run`. Raises `Transient` as well, when the scheduler is lost."""
        if not tasks:
            return
        limit = TASKS_A_WORKER * self.workers
        queue: TaskQueue[T, Any] = TaskQueue(tasks)
        try:
            with ControlWatch(control) as watch:
                while queue:
                    watch.check()
                    while queue.waiting and len(queue.under_way) < limit and not watch.held:
                        self._begin(queue, function)
                    for future in self._done(queue):
                        outcome = self._result(future, queue)
                        on_done(queue.finished(future), outcome.unwrap())
        finally:
            if queue.under_way and self._client is not None:
                with suppress(Exception):  # the cluster may be gone
                    self._client.cancel(list(queue.under_way), force=True)

    def close(self) -> None:
        """Disconnect; the cluster is not ours to end."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _begin(self, queue: TaskQueue[T, Any], function: Callable[[T], R]) -> None:
        number, task = queue.next()
        with self._talking() as client:
            key = f"{getattr(function, '__name__', 'task')}-{uuid.uuid4().hex}"
            queue.begun(number, client.submit(partial(outcome_of, function), task, key=key, pure=False))

    def _done(self, queue: TaskQueue[T, Any]) -> list[Any]:
        """The futures that are done; waits a moment for one."""
        if not queue.under_way:
            time.sleep(_POLL_S)
            return []
        with self._talking() as client:
            with client.as_current(), suppress(TimeoutError):
                _wait(list(queue.under_way), timeout=_POLL_S, return_when="FIRST_COMPLETED")
            return [future for future in queue.under_way if future.done()]

    def _result(self, future: Any, queue: TaskQueue[T, Any]) -> Outcome[Any]:
        with self._talking():
            try:
                outcome: Outcome[Any] = future.result()
            except KilledWorker as error:
                deaths = dask.config.get("distributed.scheduler.allowed-failures") + 1
                raise WorkersLost(queue.finished(future), deaths) from error
        return outcome

    @contextmanager
    def _talking(self) -> Iterator[Any]:
        """The client, connected. What it raises when the scheduler is away becomes `Transient`."""
        try:
            if self._client is None:
                self._client = _connect(
                    self._address, timeout=CONNECT_TIMEOUT_S, set_as_default=False, name="reconciliation"
                )
            yield self._client
            if self._client.status not in ("running", "connecting"):
                raise OSError(f"the connection is {self._client.status}")
        except (OSError, TimeoutError, *_CANCELLED, CommClosedError) as error:
            self.close()
            raise Transient(f"Dask scheduler {self._address}: {type(error).__name__}: {error}") from None
