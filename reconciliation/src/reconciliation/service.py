"""The reconciliation service: takes the jobs and fires the schedules that Postgres has, until it is told to stop."""

import asyncio
import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from prometheus_client import CollectorRegistry, ProcessCollector

from cdc_shared.errors import CdcError, Fatal, Transient, shown
from cdc_shared.http_server import HttpServer
from cdc_shared.kafka.status_topic import StatusReader
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.reconciliation import CHANNEL
from cdc_shared.security.data_key import DataKeys
from cdc_shared.security.references import secret_providers
from reconciliation.database import Database
from reconciliation.metrics.reconciliation_metrics import ReconciliationMetrics, verified_collections
from reconciliation.platform_runner import PlatformRunner
from reconciliation.reporters.news import JobNews
from reconciliation.reporters.notifier import Notifier
from reconciliation.reporters.report_retention import expire_reports
from reconciliation.reporters.report_writer import ReportWriter
from reconciliation.scheduler.cron_scheduler import CronScheduler
from reconciliation.scheduler.dispatcher import Dispatcher
from reconciliation.scheduler.job import Job
from reconciliation.scheduler.job_store import JobStore
from reconciliation.scheduler.repair_proposal import propose_repair
from reconciliation.scheduler.repair_store import RepairStore
from reconciliation.scheduler.repair_worker import RepairWorker
from reconciliation.scheduler.result_store import ResultStore
from reconciliation.scheduler.surroundings import CollectionRunner, Surroundings
from reconciliation.settings import Settings

POLL_S: Final = 2.0
"""At the longest between two looks for work; a notification makes it look at once."""
AGAIN_AFTER_S: Final = 2.0
STANDS_STILL_AFTER_S: Final = 60.0
EXPIRE_EVERY_S: Final = 3600.0
SHOW_EVERY_S: Final = 15.0
NEWS_TIMEOUT_S: Final = 5.0
"""So long a message under way may take when the service ends."""

log = get_logger(__name__)


class ReconciliationService:
    """Works from `run` until `stop` is set, then gives back what it has in hand."""

    def __init__(self, settings: Settings, stop: asyncio.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._metrics = ReconciliationMetrics(self._registry)
        self._providers = secret_providers(settings.secrets)
        self._data_keys = DataKeys.resolve(settings.data_key.reference, self._providers)
        self._woken = asyncio.Event()
        self._schedules_changed = asyncio.Event()
        self._telling: set[asyncio.Task[None]] = set()
        self._troubles: dict[str, str] = {}
        """What each loop waits for; none that is empty."""
        self._turned_at = time.monotonic()
        self._dispatcher: Dispatcher | None = None

    async def run(self) -> None:
        """Serve. Raises `Fatal` when the service itself cannot go on."""
        service = self._settings.service
        server = self._serve()
        worker = service.instance_id or f"{socket.gethostname()}:{server.port}:{os.getpid()}"
        log.info("reconciliation started", http=f"http://{service.http_host}:{server.port}", worker=worker)
        try:
            async with AsyncExitStack() as opened:
                database = await self._open_database()
                if database is not None:
                    opened.push_async_callback(database.close)
                    await self._work(database, worker, opened)
        finally:
            await asyncio.to_thread(server.close)
            log.info("reconciliation stopped")

    def _serve(self) -> HttpServer:
        host, port = self._settings.service.http_host, self._settings.service.http_port
        try:
            return HttpServer(host, port, self._health, self._ready, self._registry)
        except OSError as error:
            raise Fatal(
                f"cannot serve on {host}:{port}: {error.strerror}; set RECONCILIATION_HTTP_PORT to a free port"
            ) from error

    async def _open_database(self) -> Database | None:
        """Connect, and wait for the control plane's tables; None when the service is stopped meanwhile."""
        while not self._stop.is_set():
            database = None
            try:
                database = await Database.open(self._settings.service.postgres_dsn.get_secret_value())
                if await database.has_tables():
                    self._troubles.pop("postgres", None)
                    return database
                self._trouble("postgres", "Postgres has no tables of reconciliation yet: the control plane makes them")
            except Transient as error:
                self._trouble("postgres", str(error))
            if database is not None:
                await database.close()
            self._turned_at = time.monotonic()
            await _wait(self._stop, AGAIN_AFTER_S)
        return None

    async def _work(self, database: Database, worker: str, opened: AsyncExitStack) -> None:
        service = self._settings.service
        status = StatusReader(self._settings.kafka.bootstrap_servers).start()
        opened.callback(status.close)
        notifier = Notifier(self._settings.notifications, self._providers)
        opened.push_async_callback(notifier.close)
        jobs = JobStore(database, worker, service.takeover_s)
        repairs = RepairStore(database, self._data_keys, worker, service.takeover_s)
        runner = PlatformRunner(self._settings, self._data_keys)
        around = surroundings(
            self._settings, database, jobs, self._data_keys, runner, status, self._metrics, self._tell(notifier)
        )
        dispatcher = Dispatcher(
            around,
            repairs,
            lambda repair: RepairWorker(repair, repairs, runner.open_requests),
            service.jobs_at_once,
            self._woken.set,
        )
        self._dispatcher = dispatcher
        if service.instance_id is not None:
            await self._until_done("postgres", jobs.put_back_own)
            await self._until_done("postgres", repairs.put_back_own)
        loops = [
            asyncio.create_task(self._loop("jobs", dispatcher.turn, self._woken, lambda: POLL_S)),
            asyncio.create_task(self._schedules(CronScheduler(database))),
            asyncio.create_task(self._listen(database)),
            asyncio.create_task(self._loop("metrics", lambda: self._show(database), None, lambda: SHOW_EVERY_S)),
            asyncio.create_task(
                self._loop("clean-up", lambda: self._clean_up(database, jobs), None, lambda: EXPIRE_EVERY_S)
            ),
        ]
        try:
            stopping = asyncio.ensure_future(self._stop.wait())
            done, _ = await asyncio.wait({stopping, *loops}, return_when=asyncio.FIRST_COMPLETED)
            for each in done - {stopping}:
                each.result()  # A loop ends by raising only.
        finally:
            stopping.cancel()
            for each in loops:
                each.cancel()
            await asyncio.gather(stopping, *loops, return_exceptions=True)
            await dispatcher.leave()
            await self._last_news()

    # -- loops --------------------------------------------------------------------------------------------------------

    async def _loop(
        self, name: str, turn: Callable[[], Any], woken: asyncio.Event | None, wait_s: Callable[[], float]
    ) -> None:
        """Do it again and again, sooner when woken; what is away is waited for and told of."""
        while True:
            if woken is not None:
                woken.clear()
            pause_s = AGAIN_AFTER_S
            try:
                await turn()
                self._troubles.pop(name, None)
                pause_s = wait_s()
            except Transient as error:
                self._trouble(name, str(error))
            except Exception as error:  # the other loops, and the runs under way, go on
                log.exception("a loop of the service failed", loop=name)
                self._trouble(name, shown(error))
            if name == "jobs":
                self._turned_at = time.monotonic()
            await _wait(woken or asyncio.Event(), pause_s)

    async def _schedules(self, scheduler: CronScheduler) -> None:
        wait_s = 0.0

        async def turn() -> None:
            nonlocal wait_s
            if await scheduler.fire_due():
                self._woken.set()
            wait_s = await scheduler.wait_s()

        await self._loop("schedules", turn, self._schedules_changed, lambda: wait_s)

    async def _listen(self, database: Database) -> None:
        """Wake the loops when somebody has changed something; without it they look by themselves, only later."""

        def heard(*_: object) -> None:
            self._woken.set()
            self._schedules_changed.set()

        while True:
            gone = asyncio.Event()
            try:
                connection = await database.own_connection()
                connection.add_termination_listener(lambda _: gone.set())  # noqa: B023 # of this round
                await connection.add_listener(CHANNEL, heard)
                self._troubles.pop("notifications", None)
                heard()
                try:
                    await gone.wait()
                finally:
                    connection.terminate()
            except (CdcError, OSError) as error:
                self._trouble("notifications", str(error))
            await asyncio.sleep(AGAIN_AFTER_S)

    async def _show(self, database: Database) -> None:
        async with database.connection() as connection:
            self._metrics.show(await verified_collections(connection), datetime.now(UTC))

    async def _clean_up(self, database: Database, jobs: JobStore) -> None:
        retention = timedelta(days=self._settings.service.report_retention_days)
        await expire_reports(database, self._settings.stores, retention)
        # In this order: a directory that is found now has its run in Postgres already.
        found = await asyncio.to_thread(run_directories, self._settings.service.work_dir)
        needed = await jobs.unfinished_runs()
        for each in found:
            if each.name not in needed:  # its process was killed before it could delete it
                await asyncio.to_thread(shutil.rmtree, each, ignore_errors=True)

    async def _until_done(self, name: str, work: Callable[[], Any]) -> None:
        while not self._stop.is_set():
            try:
                await work()
                return
            except Transient as error:
                self._trouble(name, str(error))
                await _wait(self._stop, AGAIN_AFTER_S)

    def _trouble(self, name: str, reason: str) -> None:
        if self._troubles.get(name) != reason:
            log.warning("waiting", of=name, reason=reason)
        self._troubles[name] = reason

    # -- news ---------------------------------------------------------------------------------------------------------

    def _tell(self, notifier: Notifier) -> Callable[[Job, JobNews], None]:
        async def send(job: Job, news: JobNews) -> None:
            self._metrics.delivered(await notifier.tell(job.notifications, news))

        def tell(job: Job, news: JobNews) -> None:
            task = asyncio.create_task(send(job, news))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

        return tell

    async def _last_news(self) -> None:
        if not self._telling:
            return
        _, left = await asyncio.wait(self._telling, timeout=NEWS_TIMEOUT_S)
        for task in left:
            log.error("a notification was not delivered: the service ends")
            task.cancel()

    # -- /health and /ready -------------------------------------------------------------------------------------------

    def _health(self) -> tuple[bool, Mapping[str, Any]]:
        """Well while it goes on looking for work; what it waits for is not its own fault."""
        stood_still_s = time.monotonic() - self._turned_at
        return stood_still_s < STANDS_STILL_AFTER_S, self._details()

    def _ready(self) -> tuple[bool, Mapping[str, Any]]:
        return self._dispatcher is not None and not self._troubles, self._details()

    def _details(self) -> Mapping[str, Any]:
        return {
            "jobs_under_way": self._dispatcher.jobs_under_way if self._dispatcher else 0,
            "waits_for": dict(self._troubles),
        }


def surroundings(
    settings: Settings,
    database: Database,
    jobs: JobStore,
    keys: DataKeys,
    runner: CollectionRunner,
    status: StatusReader,
    metrics: ReconciliationMetrics,
    tell: Callable[[Job, JobNews], None],
) -> Surroundings:
    """Return what jobs are worked with on the real platform."""
    return Surroundings(
        database=database,
        jobs=jobs,
        results=ResultStore(database, keys),
        runner=runner,
        lag_reports=status.reports,
        make_report=ReportWriter(settings.stores, metrics.report_not_written),
        tell=tell,
        observer=metrics,
        takeover_s=settings.service.takeover_s,
        room=asyncio.Semaphore(settings.service.jobs_at_once),
        propose_repair=lambda job: propose_repair(database, job),
    )


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def run_directories(parent: Path) -> list[Path]:
    """What runs have left there. Nothing else: the directory that is set may hold more than ours."""
    return [each for each in parent.iterdir() if each.is_dir() and _is_id(each.name)] if parent.is_dir() else []


def _is_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
