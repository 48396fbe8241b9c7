"""A job that one command adds, works and shows."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry

from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.status_topic import StatusReader
from cdc_shared.models.common import PipelineSpec
from cdc_shared.models.reconciliation import JobOptions, JobState, Mode, Outcome, Overlap
from cdc_shared.security.data_key import DataKeys
from cdc_shared.security.references import secret_providers
from cdc_shared.settings import SecretsSettings
from cdc_shared.source.mongodb_source import MongodbSource
from reconciliation.database import Database, host_of
from reconciliation.metrics.reconciliation_metrics import ReconciliationMetrics
from reconciliation.plain_errors import EXIT_INTERRUPTED
from reconciliation.platform_runner import PlatformRunner
from reconciliation.reconciler.progress import RunProgress
from reconciliation.reporters.report import duration
from reconciliation.scheduler.job import Job, Run
from reconciliation.scheduler.job_executor import JobExecutor
from reconciliation.scheduler.job_store import JobStore
from reconciliation.scheduler.run_thread import in_thread
from reconciliation.service import surroundings
from reconciliation.settings import Settings

SHOW_EVERY_S: Final = 2.0
STATUS_TIMEOUT_S: Final = 10.0
SAY_AFTER_S: Final = 1.0
"""What does not answer within this time is said to be waited for."""

T = TypeVar("T")
Say = Callable[[str], Any]


async def work_one_job(
    settings: Settings,
    pipeline: str,
    collections: Sequence[str] | None,
    mode: Mode,
    options: JobOptions,
    overlap: Overlap,
    *,
    by: str,
    show: Say | None,
    tell: Say,
) -> Outcome | int | None:
    """Add a job and work it here. `show` gets lines of progress, `tell` what was found.

    Returns the outcome; `EXIT_INTERRUPTED` when it was stopped, cancelled or paused; None of a failed or skipped one.
    Raises `UnknownPipeline`, `Transient`, `Fatal`.
    """
    keys = DataKeys.resolve(settings.data_key.reference, secret_providers(settings.secrets))
    runner = PlatformRunner(settings, keys)
    await _reach(settings, runner, pipeline, collections or (), show)
    dsn = settings.service.postgres_dsn.get_secret_value()
    database = await _awaited(f"Postgres at {host_of(dsn)}", Database.open(dsn), show)
    try:
        if not await database.has_tables():
            raise Fatal("Postgres has no tables of reconciliation: run `cdc-control-plane migrate` first")
        jobs = JobStore(database, f"command-{socket.gethostname()}-{os.getpid()}", settings.service.takeover_s)
        with StatusReader(settings.kafka.bootstrap_servers) as status:
            await in_thread("status", partial(status.wait_caught_up, STATUS_TIMEOUT_S))
            observer = _Screen(CollectorRegistry(), show)
            around = surroundings(
                settings,
                database,
                jobs,
                keys,
                runner,
                status,
                observer,
                lambda _job, _news: None,
            )
            job = await jobs.add_own(pipeline, collections, mode, options, overlap, by)
            state = await _work(JobExecutor(job, around))
        return await _told(database, job, state, tell)
    finally:
        await database.close()


async def _reach(
    settings: Settings, runner: PlatformRunner, pipeline: str, collections: Sequence[str], show: Say | None
) -> None:
    """Ask Kafka, source and store once: a job that cannot begin, or names what is not there, is not left behind."""
    servers = settings.kafka.bootstrap_servers
    spec = await _awaited(f"Kafka at {servers}", in_thread("spec", partial(runner.spec, pipeline)), show)
    connection = spec.source.connection
    asked = in_thread("source", partial(_ask_source, spec, settings.secrets))
    try:
        await _awaited(f"MongoDB ({connection})", asked, show)
    except Transient as error:
        raise Transient(f"{error}; start it, or correct {connection}") from None
    found = await _awaited("the tables' store", in_thread("tables", partial(runner.collections, spec)), show)
    tables = sorted(each.name for each in found)
    unknown = [name for name in collections if name not in tables]
    if unknown:
        raise Fatal(f"pipeline {pipeline} has no table of {', '.join(unknown)}; it has {', '.join(tables) or 'none'}")


def _ask_source(spec: PipelineSpec, secrets: SecretsSettings) -> None:
    with closing(MongodbSource(spec.source, secrets)) as source, source.asking("connect") as session:
        session.client.admin.command("ping", session=session)


async def _awaited(what: str, answer: Awaitable[T], show: Say | None) -> T:
    asked = asyncio.ensure_future(answer)
    await asyncio.wait({asked}, timeout=SAY_AFTER_S)
    if not asked.done() and show is not None:
        show(f"waits for {what}")
    return await asked


class _Screen(ReconciliationMetrics):
    """Shows progress, one line every few seconds."""

    def __init__(self, registry: CollectorRegistry, show: Say | None) -> None:
        super().__init__(registry)
        self._show_line = show
        self._shown_at = float("-inf")
        self._last_shown: object = None

    def progressed(self, job: Job, run: Run, progress: RunProgress) -> None:
        super().progressed(job, run, progress)
        now, what = time.monotonic(), (run.collection, progress.phase, progress.throttled_by)
        if self._show_line is None or (what == self._last_shown and now - self._shown_at < SHOW_EVERY_S):
            return
        self._shown_at, self._last_shown = now, what
        self._show_line(f"{run.collection}: {progress_line(progress)}")


def progress_line(progress: RunProgress) -> str:
    """`scanning source: 120,000 of 200,000 (60 %), 24,310/s, 3 s left`."""
    parts = [str(progress.phase).replace("_", " ")]
    if progress.total is not None:
        parts[0] += f": {progress.done:,} of {progress.total:,} ({progress.percent:.0f} %)"
    elif progress.done:
        parts[0] += f": {progress.done:,}"
    if progress.per_s:
        parts.append(f"{progress.per_s:,.0f}/s")
    if progress.seconds_left:
        parts.append(f"{duration(progress.seconds_left)} left")
    if progress.throttled_by:
        parts.append(progress.throttled_by)
    return ", ".join(parts)


_ENDS: Final[dict[JobState | None, str]] = {
    JobState.QUEUED: "interrupted; the service goes on with it (cdc-reconciliation serve)",
    None: "lost to another process",
}


async def _work(executor: JobExecutor) -> JobState | None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, executor.leave)
    try:
        return await executor.work()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _told(database: Database, job: Job, state: JobState | None, tell: Say) -> Outcome | int | None:
    async with database.connection() as connection:
        found = await connection.fetchrow("SELECT outcome, error FROM reconciliation_jobs WHERE id = $1", job.id)
        runs = await connection.fetch(
            "SELECT r.collection, r.state, r.error, p.report->>'headline' AS headline, p.lake_path "
            "FROM reconciliation_runs r LEFT JOIN reconciliation_reports p ON p.run_id = r.id WHERE r.job_id = $1 "
            'ORDER BY r.collection COLLATE "C"',
            job.id,
        )
    for run in runs:
        if run["headline"] or run["error"]:  # else it has not ended
            tell(f"{run['collection']}: {run['headline'] or run['error']}")
        if run["lake_path"]:
            tell(f"  report: {run['lake_path']}.html, .csv, .json")
    if found is not None and found["error"] and not runs:
        tell(f"failed: {found['error']}")
    tell(f"job {job.id}: {_ENDS.get(state, state)}")
    if state is JobState.COMPLETED and found is not None:
        return Outcome(found["outcome"])
    return None if state in (JobState.FAILED, JobState.SKIPPED, None) else EXIT_INTERRUPTED
