"""Takes jobs and repairs when there is room for them, and works each in a task of its own."""

import asyncio
from collections.abc import Callable
from typing import Final

from cdc_shared.errors import CdcError, shown
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.reconciliation import JobState
from reconciliation.scheduler.job import Job
from reconciliation.scheduler.job_executor import JobExecutor
from reconciliation.scheduler.job_news import news_of
from reconciliation.scheduler.job_store import JobStore
from reconciliation.scheduler.repair_store import Repair, RepairStore
from reconciliation.scheduler.repair_worker import RepairWorker
from reconciliation.scheduler.surroundings import Surroundings

REPAIRS_AT_ONCE: Final = 1
LEAVE_TIMEOUT_S: Final = 20.0
"""So long what is under way may take to be given back; then it is left, and taken over once it has been silent."""

log = get_logger(__name__)


class Dispatcher:
    """`turn` takes what there is; `wake` is called when there may be room, or something to do."""

    def __init__(
        self,
        around: Surroundings,
        repairs: RepairStore,
        new_repair_worker: Callable[[Repair], RepairWorker],
        jobs_at_once: int,
        wake: Callable[[], None],
    ) -> None:
        self._around = around
        self._repairs = repairs
        self._new_repair_worker = new_repair_worker
        self._jobs_at_once = jobs_at_once
        self._wake = wake
        self._jobs: dict[asyncio.Task[object], JobExecutor] = {}
        self._repairing: dict[asyncio.Task[object], RepairWorker] = {}
        self._is_leaving = False

    @property
    def jobs_under_way(self) -> int:
        return len(self._jobs)

    async def turn(self) -> None:
        """Take all that there is room for. Raises `Transient` without Postgres."""
        store: JobStore = self._around.jobs
        await store.follow_wishes()
        for job, warning in await store.warn_waiting():
            news = await news_of(self._around.database, job, JobState.QUEUED, self._around.now(), warning=warning)
            self._around.tell(job, news)
        while not self._is_leaving:
            taken = await store.take(has_room=len(self._jobs) < self._jobs_at_once)
            if taken is None:
                break
            self._begin_job(taken)
        await self._repairs.conclude_verified()
        while not self._is_leaving and len(self._repairing) < REPAIRS_AT_ONCE:
            repair = await self._repairs.take()
            if repair is None:
                break
            worker = self._new_repair_worker(repair)
            self._repairing[self._task(worker.work(), str(repair.id))] = worker

    async def leave(self) -> None:
        """Give everything back that is under way; returns when it is, or after `LEAVE_TIMEOUT_S`."""
        self._is_leaving = True
        for executor in self._jobs.values():
            executor.leave()
        for worker in self._repairing.values():
            worker.leave()
        tasks = {*self._jobs, *self._repairing}
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=LEAVE_TIMEOUT_S)
            for task in left:
                log.warning("left without an end: another process takes it over", work=task.get_name())
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _begin_job(self, job: Job) -> None:
        executor = JobExecutor(job, self._around)
        self._jobs[self._task(executor.work(), str(job.id))] = executor

    def _task(self, work: "asyncio._CoroutineLike[object]", name: str) -> "asyncio.Task[object]":
        task: asyncio.Task[object] = asyncio.create_task(work, name=name)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: "asyncio.Task[object]") -> None:
        self._jobs.pop(task, None)
        self._repairing.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            is_ours = isinstance(error, CdcError)
            log.error("work ended", work=task.get_name(), reason=shown(error), exc_info=None if is_ours else error)
        self._wake()
