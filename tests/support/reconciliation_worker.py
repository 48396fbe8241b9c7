"""The reconciliation service's scheduling around a comparison that is made up: chunks that take a while, and are kept.

As a program it is such a service in a process of its own, which can be killed:
`python reconciliation_worker.py DSN NAME DIRECTORY CHUNKS SECONDS_A_CHUNK TAKEOVER_S`.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cdc_shared.errors import Transient
from cdc_shared.kafka.status_topic import Heard
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.models.reconciliation import JobState, Outcome
from cdc_shared.security.data_key import DataKeys
from reconciliation.database import Database
from reconciliation.reconciler.difference import Difference
from reconciliation.reconciler.progress import Control, OnProgress, Phase, PhaseClock, RunProgress
from reconciliation.reconciler.result import RunRequest, RunResult, RunSummary, TopicPositions, Verified
from reconciliation.reporters.news import JobNews
from reconciliation.reporters.report import Report, ReportedRun
from reconciliation.scheduler.dispatcher import Dispatcher
from reconciliation.scheduler.job import Job, Run
from reconciliation.scheduler.job_store import JobStore
from reconciliation.scheduler.repair_proposal import propose_repair
from reconciliation.scheduler.repair_store import Repair, RepairStore
from reconciliation.scheduler.repair_worker import OpenRequests, RepairWorker
from reconciliation.scheduler.result_store import ResultStore, WrittenReport
from reconciliation.scheduler.surroundings import Surroundings

DATABASE = "shop"
KEYS = DataKeys([bytes(range(32))])


class FakeRunner:
    """Compares by writing a file a chunk; `log` gets a line for each chunk that is read, also by killed processes."""

    def __init__(self, directory: Path, chunks: int = 4, chunk_s: float = 0.05, tables: Sequence[str] = ("a",)) -> None:
        self.directory = directory
        self.chunks = chunks
        self.chunk_s = chunk_s
        self.tables = tables
        self.requests: list[RunRequest] = []
        self.together = 0
        """The most runs of one collection that were seen at a time."""
        self.differences: Sequence[Difference] = ()
        self.failures: list[Exception] = []
        """Raised by the next calls, one each."""
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self._running: dict[Collection, int] = {}

    @property
    def log(self) -> Path:
        return self.directory / "chunks.log"

    def chunks_read(self) -> list[str]:
        """`<run id> <chunk>` of each chunk that was read, in that order."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def spec(self, pipeline: str) -> PipelineSpec:
        return PipelineSpec(name=pipeline, source=SourceSpec(connection="env:NOWHERE", database=DATABASE))

    def collections(self, spec: PipelineSpec) -> list[Collection]:
        return [Collection(spec.source.database, name) for name in self.tables]

    def run(self, request: RunRequest, report: OnProgress, control: Control) -> RunResult:
        self.requests.append(request)
        self._running[request.collection] = self._running.get(request.collection, 0) + 1
        self.together = max(self.together, self._running[request.collection])
        try:
            return self._compare(request, report, control)
        finally:
            self._running[request.collection] -= 1

    def _compare(self, request: RunRequest, report: OnProgress, control: Control) -> RunResult:
        if self.failures:
            raise self.failures.pop(0)
        directory = self.directory / request.run_id
        directory.mkdir(parents=True, exist_ok=True)
        done = {int(each.name) for each in directory.iterdir()}
        clock = PhaseClock(report)
        clock.begin(Phase.SCANNING_SOURCE, self.chunks, len(done))
        for chunk in range(self.chunks):
            if chunk in done:
                continue
            until = time.monotonic() + self.chunk_s
            while time.monotonic() < until or not self.may_go_on.is_set():
                control.check()
                time.sleep(0.01)
            with self.log.open("a") as log:
                log.write(f"{request.run_id} {chunk}\n")
            (directory / str(chunk)).touch()
            clock.advance(1)
        clock.end()
        found = {each.kind: 0 for each in self.differences}
        for each in self.differences:
            found[each.kind] += 1
        outcome = Outcome.DIFFERENCES if self.differences else Outcome.EQUAL
        is_equal = outcome is Outcome.EQUAL
        return RunResult(
            outcome,
            RunSummary(request.mode, documents=self.chunks, rows=self.chunks, differences=found),
            self.differences,
            verified_through=datetime.fromisoformat("2026-11-23T20:00:00+00:00") if is_equal else None,
            verified=Verified(TopicPositions("topic-1", {0: 7}), "rows", 3) if is_equal else None,
        )

    def forget(self, run_id: str) -> None:
        directory = self.directory / run_id
        for each in directory.iterdir() if directory.exists() else ():
            each.unlink()
        with suppress(FileNotFoundError):
            directory.rmdir()


@dataclass
class Told:
    """What a worker tells: an `Observer`, and the news."""

    progress: list[RunProgress] = field(default_factory=list)
    states: list[JobState] = field(default_factory=list)
    news: list[JobNews] = field(default_factory=list)

    def progressed(self, job: Job, run: Run, progress: RunProgress) -> None:
        self.progress.append(progress)

    def completed(self, job: Job, run: Run, result: RunResult) -> None:
        """Nothing of it is asked for."""

    def ended(self, job: Job, state: JobState) -> None:
        self.states.append(state)


@asynccontextmanager
async def reconciliation_worker(
    dsn: str,
    runner: FakeRunner,
    name: str = "one",
    *,
    jobs_at_once: int = 2,
    takeover_s: float = 30.0,
    lag_reports: Callable[[str], Sequence[Heard]] = lambda _: (),
    open_requests: OpenRequests | None = None,
) -> AsyncIterator[Told]:
    """Work jobs until the end of the block, then leave as the service does."""
    database = await Database.open(dsn)
    told, woken = Told(), asyncio.Event()
    jobs = JobStore(database, name, takeover_s)
    repairs = RepairStore(database, KEYS, name, takeover_s)
    around = Surroundings(
        database=database,
        jobs=jobs,
        results=ResultStore(database, KEYS),
        runner=runner,
        lag_reports=lag_reports,
        make_report=_report,
        tell=lambda _, news: told.news.append(news),
        observer=told,
        takeover_s=takeover_s,
        room=asyncio.Semaphore(jobs_at_once),
        propose_repair=lambda job: propose_repair(database, job),
    )

    def new_repair_worker(repair: Repair) -> RepairWorker:
        assert open_requests is not None, "this worker knows of no repairs"
        return RepairWorker(repair, repairs, open_requests)

    dispatcher = Dispatcher(around, repairs, new_repair_worker, jobs_at_once, woken.set)

    async def turn() -> None:
        while True:
            woken.clear()
            with suppress(Transient):
                await dispatcher.turn()
            with suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), 0.1)

    turning = asyncio.create_task(turn())
    try:
        yield told
    finally:
        turning.cancel()
        (ended,) = await asyncio.gather(turning, return_exceptions=True)
        await dispatcher.leave()
        await database.close()
        if isinstance(ended, Exception):
            raise ended


def _report(job: Job, run: Run, spec: PipelineSpec, result: RunResult, at: datetime) -> WrittenReport:
    reported = ReportedRun(
        run_id=str(run.id),
        job_id=str(job.id),
        pipeline=job.pipeline,
        collection=Collection(run.database, run.collection),
        mode=job.mode,
        options=job.options,
        requested_by=job.requested_by,
        started_at=run.started_at or at,
        finished_at=at,
    )
    return WrittenReport(Report(reported, result), None)


async def _main(arguments: Iterable[str]) -> None:
    dsn, name, directory, chunks, chunk_s, takeover_s = arguments
    runner = FakeRunner(Path(directory), int(chunks), float(chunk_s))
    async with reconciliation_worker(dsn, runner, name, takeover_s=float(takeover_s)):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
