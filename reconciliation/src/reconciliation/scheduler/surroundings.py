"""What jobs are worked with; everything that is not Postgres or a clock stands behind a protocol."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.models.reconciliation import JobState
from reconciliation.database import Database
from reconciliation.reconciler.progress import Control, OnProgress, RunProgress
from reconciliation.reconciler.result import RunRequest, RunResult
from reconciliation.reporters.news import JobNews
from reconciliation.scheduler.backpressure import Reports
from reconciliation.scheduler.job import Job, Run
from reconciliation.scheduler.job_store import JobStore
from reconciliation.scheduler.result_store import ResultStore, WrittenReport


class CollectionRunner(Protocol):
    """Compares collections; called in threads."""

    def spec(self, pipeline: str) -> PipelineSpec:
        """The pipeline's spec in force. Raises `UnknownPipeline`, `Transient`."""

    def collections(self, spec: PipelineSpec) -> Sequence[Collection]:
        """The collections that have a table. Raises `Transient`, `Fatal`."""

    def run(self, request: RunRequest, report: OnProgress, control: Control) -> RunResult:
        """Compare one; what an earlier call with this run id has finished is not read again.

        Raises `Cancelled`, `Stopped`, `Transient` (worth another try), `Fatal`.
        """

    def forget(self, run_id: str) -> None:
        """Delete what was kept of the run so that it could be taken up again."""


class Observer(Protocol):
    """Is told of what happens; called in the event loop, raises nothing."""

    def progressed(self, job: Job, run: Run, progress: RunProgress) -> None: ...

    def completed(self, job: Job, run: Run, result: RunResult) -> None: ...

    def ended(self, job: Job, state: JobState) -> None: ...


MakeReport = Callable[[Job, Run, PipelineSpec, RunResult, datetime], WrittenReport]
"""Makes a run's report and writes it to the lake; called in a thread, raises nothing because of the lake."""
Tell = Callable[[Job, JobNews], None]
"""Sends the news to the job's channels, in the background."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What jobs are worked with. `now` is the wall clock."""

    database: Database
    jobs: JobStore
    results: ResultStore
    runner: CollectionRunner
    lag_reports: Reports
    make_report: MakeReport
    tell: Tell
    observer: Observer
    takeover_s: float
    room: asyncio.Semaphore
    """Of so many runs at a time."""
    propose_repair: Callable[[Job], Awaitable[None]]
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep
