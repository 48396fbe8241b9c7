"""One job from the moment it is taken until it is over, given back, or lost to another process.

    collections that have a table → a run of each, one after another:
        lock → compare (in a thread; watched twice a second) → report → store

While a run goes on the job's heartbeat says so, its progress is shown, and what people want of it is followed, twice a
second. A run that fails because something is away is tried again and goes on where it was.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from cdc_shared.errors import CdcError, Fatal, Transient, shown
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.models.reconciliation import FINISHED, JobState, Outcome, Overlap
from reconciliation.reconciler.progress import Cancelled, Phase, RunProgress, Stopped
from reconciliation.reconciler.result import RunRequest, RunResult
from reconciliation.scheduler.backpressure import Backpressure
from reconciliation.scheduler.job import Job, Run
from reconciliation.scheduler.job_news import news_of
from reconciliation.scheduler.job_store import ClaimLost
from reconciliation.scheduler.run_control import RunControl
from reconciliation.scheduler.run_lock import RunLock
from reconciliation.scheduler.run_thread import in_thread
from reconciliation.scheduler.surroundings import Surroundings

BEAT_S: Final = 0.5
"""Between two heartbeats; also how soon a wish is followed and how often progress is shown."""
MAX_ATTEMPTS: Final = 6
FIRST_WAIT_S: Final = 2.0
MAX_WAIT_S: Final = 120.0
_WORST_FIRST: Final = (Outcome.DIFFERENCES, Outcome.UNDECIDED, Outcome.EQUAL)

T = TypeVar("T")

log = get_logger(__name__)


class _Lost(CdcError):
    """The job's or the collection's hold is gone: the run ends without another word about it."""


class JobExecutor:
    """Works one job; `work` once."""

    def __init__(self, job: Job, around: Surroundings) -> None:
        self._job = job
        self._around = around
        self._control = RunControl()
        self._wanted = "run"
        self._is_leaving = False
        self._progress: RunProgress | None = None
        self._log = log.bind(job=str(job.id), pipeline=job.pipeline)

    def leave(self) -> None:
        """The service ends: the run is stopped and the job given back."""
        self._is_leaving = True
        self._control.stop()

    async def work(self) -> JobState | None:
        """Work the job to its end; in which state it is left, None when another process has it.

        Raises `Transient` when Postgres stays away: the job is then taken over when it has been silent for long enough.
        """
        working, beating = asyncio.ensure_future(self._work()), asyncio.ensure_future(self._beat())
        try:
            await asyncio.wait({working, beating}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                beating.result()  # It ends by raising only.
            state = await working
        except (_Lost, ClaimLost) as lost:
            self._log.warning("job lost to another process", reason=str(lost))
            return None
        finally:
            for task in (working, beating):
                task.cancel()
            await asyncio.gather(working, beating, return_exceptions=True)
        self._around.observer.ended(self._job, state)
        return state

    async def _work(self) -> JobState:
        job = self._job
        self._log.info("job begun", mode=job.mode, attempt=job.claim.attempt, requested_by=job.requested_by)
        try:
            spec, runs = await self._patiently(self._prepared)
            if not runs:
                return await self._end(JobState.FAILED, error=f"pipeline {job.pipeline} has no table yet to compare")
            for run in runs:
                if run.state not in FINISHED:
                    await self._run_collection(spec, run)
        except (ClaimLost, _Lost):
            raise
        except Cancelled:
            return await self._end(JobState.CANCELLED)
        except Stopped:
            return await self._give_back()
        except Exception as error:
            self._log_error("job failed", error)
            return await self._end(JobState.FAILED, error=shown(error))
        return await self._conclude()

    async def _prepared(self) -> tuple[PipelineSpec, list[Run]]:
        spec = await in_thread("spec", lambda: self._around.runner.spec(self._job.pipeline))
        return spec, await self._runs(spec)

    async def _runs(self, spec: PipelineSpec) -> list[Run]:
        """The job's collections; those of a job that is taken up again are the ones that it began with."""
        around, job = self._around, self._job
        runs = await around.jobs.runs(job.id)
        if runs:
            return runs
        if job.collections is None:
            found = await in_thread("collections", lambda: around.runner.collections(spec))
        else:
            found = [Collection(spec.source.database, name) for name in job.collections]
        await around.jobs.add_runs(job.claim, job.pipeline, found)
        return await around.jobs.runs(job.id)

    async def _run_collection(self, spec: PipelineSpec, run: Run) -> None:
        """Raises `Cancelled` and `Stopped`; a run that fails or is skipped is noted."""
        job, jobs = self._job, self._around.jobs
        collection = Collection(run.database, run.collection)
        self._control.check()
        # A job that is taken up again was let in before: the lock may still be its own former process's.
        may_skip = job.overlap is Overlap.SKIP and job.claim.attempt == 1
        if may_skip and await self._patiently(lambda: jobs.is_covered(job, run)):
            await self._skip(run)
            return
        async with RunLock(self._around.database, job.pipeline, collection, self._around.takeover_s) as lock:
            while not await self._patiently(lock.try_acquire):
                if may_skip and not await self._patiently(lambda: jobs.waits_for_verification(job)):
                    await self._skip(run)
                    return
                await self._around.wait(BEAT_S)
                self._check_without_waiting()
            await self._await_room()
            try:
                begun = await self._patiently(lambda: jobs.begin_run(job.claim, run))
                await self._compare(spec, begun, collection, lock)
            except (ClaimLost, _Lost, Stopped):
                raise
            except Cancelled:
                await self._forget(run)
                raise
            except Exception as error:
                await self._fail(run, error)
            finally:
                self._around.room.release()

    async def _compare(self, spec: PipelineSpec, run: Run, collection: Collection, lock: RunLock) -> None:
        job, around = self._job, self._around
        if job.collections is not None:
            await self._patiently(lambda: self._check_table(spec, collection))
        request = await self._patiently(lambda: self._request(spec, run, collection))
        result = await self._patiently(lambda: self._attempt(run, request, lock), run)
        at = around.now()
        report = await in_thread("report", lambda: around.make_report(job, run, spec, result, at))
        await self._patiently(lambda: around.results.keep(job, run, result, report, at))
        self._log.info("run completed", collection=run.collection, outcome=result.outcome, wrong=result.summary.wrong)
        around.observer.completed(job, run, result)
        await self._forget(run)

    async def _check_table(self, spec: PipelineSpec, collection: Collection) -> None:
        """Raises `Fatal` for a name that people have given and that no table has."""
        tables = await in_thread("collections", lambda: self._around.runner.collections(spec))
        if collection not in tables:
            there = ", ".join(sorted(each.name for each in tables)) or "none"
            raise Fatal(f"{spec.name} has no table of {collection.name}; it has: {there}")

    async def _request(self, spec: PipelineSpec, run: Run, collection: Collection) -> RunRequest:
        job, results = self._job, self._around.results
        keys = None
        if job.repair_id is not None:
            keys = await results.repaired_keys(job.repair_id, run.database, run.collection)
        verified = await results.verified(job.pipeline, run.database, run.collection)
        return RunRequest(str(run.id), spec, collection, job.mode, job.options, keys, verified)

    async def _patiently(self, work: Callable[[], Awaitable[T]], run: Run | None = None, *, is_end: bool = False) -> T:
        """Do it; what fails because something is away is tried again, ever later, and what people want is followed.

        `run` is the one whose progress says what is waited for, if it is part of one.
        `is_end`: it says how the job ended; nothing that people want can change it any more.
        Raises `Cancelled` and `Stopped`, the `Transient` of the last attempt, and what else `work` raises.
        """
        attempt = 1
        while True:
            try:
                return await work()
            except Transient as error:
                if attempt == MAX_ATTEMPTS:
                    raise
                wait_s = min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1)  # nosec B311
                self._log.warning("it will be tried again", reason=str(error), attempt=attempt, wait_s=round(wait_s))
                why = f"waits {wait_s:.0f} s and tries again: {error}"
                self._progress = RunProgress(Phase.PREPARING, throttled_by=why)
                if run is not None:
                    self._note(run, self._progress)
                    await self._show_progress(run)
                if is_end:
                    await self._around.wait(wait_s)
                else:
                    await self._pause_between(wait_s)
                attempt += 1

    async def _attempt(self, run: Run, request: RunRequest, lock: RunLock) -> RunResult:
        """One call of the runner, watched. Raises what it raises, and `_Lost`."""
        job, around = self._job, self._around
        loop = asyncio.get_running_loop()
        self._progress = RunProgress(Phase.PREPARING)  # not the last one of the collection before
        pressure = Backpressure(
            around.lag_reports,
            job.pipeline,
            request.collection,
            job.options.max_lag_s,
            lambda: around.now().timestamp(),
        )

        def report(progress: RunProgress) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._note, run, progress)

        comparing = asyncio.ensure_future(
            in_thread(f"run {request.collection.name}", lambda: around.runner.run(request, report, self._control))
        )
        try:
            while not comparing.done():
                self._control.hold(pressure.reason_to_wait())
                await self._show_progress(run)
                await asyncio.wait({comparing}, timeout=BEAT_S)
                if lock.lost.is_set():
                    await self._regain(lock, request.collection)
            await self._show_progress(run)
            return comparing.result()
        finally:
            if not comparing.done():
                self._control.stop()
                comparing.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _regain(self, lock: RunLock, collection: Collection) -> None:
        """Postgres was away for a moment, and the lock went with its connection. Raises `_Lost` when another has it."""
        with suppress(Transient):  # the heartbeat tells when it is away for too long
            if not await lock.try_acquire():
                raise _Lost(f"another process has the lock of {collection.name}")

    # -- twice a second -----------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Hold the job and follow what people want. Raises `_Lost` when it is, or may be, another's."""
        loop = asyncio.get_running_loop()
        heard_at = loop.time()
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                self._wanted = await self._around.jobs.heartbeat(self._job.claim)
                heard_at = loop.time()
            except ClaimLost:
                self._control.stop()
                raise
            except Transient as error:
                if loop.time() - heard_at > self._around.takeover_s / 2:
                    self._control.stop()
                    raise _Lost(f"{error}; another process may take it over") from None
            if self._wanted == "cancel":
                self._control.cancel()
            elif self._wanted == "pause":
                self._control.stop()

    def _note(self, run: Run, progress: RunProgress) -> None:
        self._progress = progress
        self._around.observer.progressed(self._job, run, progress)

    async def _show_progress(self, run: Run) -> None:
        progress = self._progress
        if progress is None:
            return
        shown_progress = {
            "phase": str(progress.phase),
            "done": progress.done,
            "total": progress.total,
            "per_s": round(progress.per_s, 1),
            "percent": None if progress.percent is None else round(progress.percent, 1),
            "seconds_left": None if progress.seconds_left is None else round(progress.seconds_left, 1),
            "throttled_by": self._control.held_by or progress.throttled_by,
        }
        with suppress(Transient):  # the next one is a second away; the heartbeat tells whether Postgres stays away
            await self._around.jobs.tell_progress(run, shown_progress)

    async def _pause_between(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until:
            self._check_without_waiting()
            await self._around.wait(min(BEAT_S, max(0.0, until - loop.time())))
        self._check_without_waiting()

    async def _await_room(self) -> None:
        """Wait until this process may work on one more run."""
        while self._around.room.locked():
            await self._around.wait(BEAT_S)
            self._check_without_waiting()
        await self._around.room.acquire()

    def _check_without_waiting(self) -> None:
        """Raise `Cancelled` or `Stopped` when somebody wants it; never block the event loop."""
        self._control.hold(None)
        self._control.check()

    # -- ends ---------------------------------------------------------------------------------------------------------

    async def _skip(self, run: Run) -> None:
        why = "another run of the collection is under way or comes before it"
        await self._around.jobs.end_run(self._job.claim, run, JobState.SKIPPED, why)
        self._log.info("run skipped", collection=run.collection, reason=why)

    async def _fail(self, run: Run, error: Exception) -> None:
        self._log_error("run failed", error)
        await self._patiently(lambda: self._around.jobs.end_run(self._job.claim, run, JobState.FAILED, shown(error)))
        await self._forget(run)

    def _log_error(self, what: str, error: Exception) -> None:
        self._log.error(what, reason=shown(error), exc_info=None if isinstance(error, CdcError) else error)

    async def _forget(self, run: Run) -> None:
        try:
            await in_thread("forget", partial(self._around.runner.forget, str(run.id)))
        except OSError as error:  # the service's next start tidies up
            self._log.warning("what a run has read could not be deleted", reason=str(error))

    async def _give_back(self) -> JobState:
        state = JobState.PAUSED if self._wanted == "pause" and not self._is_leaving else JobState.QUEUED
        await self._patiently(lambda: self._around.jobs.release(self._job.claim, state), is_end=True)
        self._log.info("job given back", state=state)
        return state

    async def _conclude(self) -> JobState:
        runs = await self._patiently(lambda: self._around.jobs.runs(self._job.id), is_end=True)
        failed = [each for each in runs if each.state is JobState.FAILED]
        if failed:
            first = f"{failed[0].database}.{failed[0].collection}: {failed[0].error}"
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            return await self._end(JobState.FAILED, error=first + more)
        if all(each.state is JobState.SKIPPED for each in runs):
            return await self._end(JobState.SKIPPED)
        outcomes = {each.outcome for each in runs if each.state is JobState.COMPLETED}
        worst = next(each for each in _WORST_FIRST if each in outcomes)
        return await self._end(JobState.COMPLETED, worst)

    async def _end(self, state: JobState, outcome: Outcome | None = None, error: str | None = None) -> JobState:
        job, around = self._job, self._around
        if state is JobState.CANCELLED:
            for run in await self._patiently(lambda: around.jobs.runs(job.id), is_end=True):
                await self._forget(run)
        if state is JobState.COMPLETED and outcome is Outcome.DIFFERENCES and job.options.repair:
            # Before the job is over: a process that is killed in between leaves it to another one, which asks again.
            await self._patiently(lambda: around.propose_repair(job), is_end=True)
        await self._patiently(lambda: around.jobs.finish(job.claim, state, outcome, error), is_end=True)
        self._log.info("job over", state=state, outcome=outcome, reason=error)
        if job.notifications.channels and state in (JobState.COMPLETED, JobState.FAILED):
            at = around.now()
            around.tell(
                job, await self._patiently(lambda: news_of(around.database, job, state, at, error), is_end=True)
            )
        return state
