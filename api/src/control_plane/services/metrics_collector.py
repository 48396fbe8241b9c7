"""What the parts of the platform say of themselves, gathered in the background every few seconds: no request waits for
Kafka, MongoDB or a store.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import httpx
import obstore
from anyio import to_thread
from confluent_kafka.admin import AdminClient

from cdc_shared.errors import Transient
from cdc_shared.kafka.partition_ends import written_ends
from cdc_shared.kafka.status_topic import Heard
from cdc_shared.kafka.topics import STATUS_TOPIC
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.snapshots.snapshot_progress import SnapshotProgress
from cdc_shared.source.oplog import OplogWindow
from cdc_shared.storage.object_store import open_store, store_errors
from cdc_shared.storage.object_store_admin import ObjectStoreAdmin
from control_plane.blocking import BlockingCalls
from control_plane.database import Database
from control_plane.models.monitoring import DependencyDetail, DependencyState
from control_plane.models.reconciliation import Verification
from control_plane.repositories import reconciliation_repo
from control_plane.services.dependency_watch import DependencyWatch
from control_plane.services.pipeline_watch import PipelineWatch
from control_plane.settings import Settings

OFTEN_S: Final = 3.0
REPORTS_EVERY_S: Final = 0.5
"""The reader of reports is in this process: to look at it costs nothing."""
TIMEOUT_S: Final = 5.0
STORE_EVERY_S: Final = 10.0
OPLOGS_EVERY_S: Final = 30.0
VERIFICATIONS_EVERY_S: Final = 10.0
SLOW_TIMEOUT_S: Final = 25.0
THREADS: Final = 8
PROBE_KEY: Final = ".cdc-ready"
"""Nothing is there: a store that says so is there itself."""

Partition = tuple[str, int]
Ends = Mapping[Partition, int]
"""(topic, partition) → the offset behind its last record."""


class Reports(Protocol):
    """What writers report; see `cdc_shared.kafka.status_topic.StatusReader`."""

    @property
    def trouble(self) -> str | None: ...

    @property
    def caught_up(self) -> bool: ...

    def pipelines(self) -> list[str]: ...

    def reports(self, pipeline: str) -> tuple[Heard, ...]: ...


@dataclass(frozen=True, slots=True)
class Watches:
    """A watch for each part."""

    postgres: DependencyWatch[None]
    kafka: DependencyWatch[Ends]
    writers: DependencyWatch[None]
    connect: DependencyWatch[None]
    object_store: DependencyWatch[int | None]
    """Gives the bytes that may still be written, None where the store does not tell."""

    @property
    def all(self) -> tuple[DependencyWatch[Any], ...]:
        return (self.postgres, self.kafka, self.writers, self.connect, self.object_store)


@dataclass(frozen=True, slots=True)
class MetricsCollector:
    """Answers at once, with what was found last."""

    reports: Reports
    watches: Watches
    oplogs: DependencyWatch[Mapping[str, OplogWindow]]
    snapshots: DependencyWatch[Mapping[str, SnapshotProgress]]
    verified: DependencyWatch[Sequence[Verification]]

    @property
    def dependencies(self) -> list[DependencyDetail]:
        """How each part was found last."""
        return [each.detail for each in self.watches.all]

    @property
    def ends(self) -> Ends:
        """How far the change topics are written; empty before it is known."""
        return self.watches.kafka.value or {}

    @property
    def free_bytes(self) -> int | None:
        """That may still be written to the object store; None where it does not tell."""
        return self.watches.object_store.value

    def oplog(self, pipeline: str) -> OplogWindow | None:
        """What the oplog of a pipeline's source spans; None while that is not known, and where nothing tells."""
        return (self.oplogs.value or {}).get(pipeline)

    def snapshot(self, pipeline: str) -> SnapshotProgress | None:
        """How far a pipeline's last snapshot is; None while that is not known, and when none ever began."""
        if self.snapshots.detail.state is not DependencyState.OK:
            return None  # what was under way then is somewhere else now
        return (self.snapshots.value or {}).get(pipeline)

    @property
    def verifications(self) -> Sequence[Verification]:
        """What reconciliation last said of every table; empty before it is known."""
        return self.verified.value or ()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, database: Database, reports: Reports) -> "AsyncIterator[MetricsCollector]":
        """Gather until the block ends. Raises nothing for what is away."""
        blocking = BlockingCalls(THREADS)
        looks = _Looks(settings, database, reports, blocking)
        pipelines = PipelineWatch(settings, database, blocking)
        collector = cls(
            reports=reports,
            watches=Watches(
                postgres=DependencyWatch("postgres", looks.postgres, OFTEN_S, TIMEOUT_S, required=True),
                kafka=DependencyWatch("kafka", looks.kafka, OFTEN_S, TIMEOUT_S),
                writers=DependencyWatch("writer-reports", looks.writers, REPORTS_EVERY_S, TIMEOUT_S),
                connect=DependencyWatch("kafka-connect", looks.connect, OFTEN_S, TIMEOUT_S),
                object_store=DependencyWatch("object-store", looks.object_store, STORE_EVERY_S, TIMEOUT_S),
            ),
            oplogs=DependencyWatch("oplogs", pipelines.oplogs, OPLOGS_EVERY_S, SLOW_TIMEOUT_S),
            snapshots=DependencyWatch("snapshots", pipelines.snapshots, OFTEN_S, SLOW_TIMEOUT_S),
            verified=DependencyWatch("verifications", looks.verifications, VERIFICATIONS_EVERY_S, TIMEOUT_S),
        )
        watches: tuple[DependencyWatch[Any], ...] = (
            *collector.watches.all,
            collector.oplogs,
            collector.snapshots,
            collector.verified,
        )
        tasks = [asyncio.create_task(each.run(), name=f"watch {each.name}") for each in watches]
        try:
            yield collector
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await looks.close()
            await to_thread.run_sync(pipelines.close)


class _Looks:
    """How each part is looked at. Every look raises when its part is away."""

    def __init__(self, settings: Settings, database: Database, reports: Reports, blocking: BlockingCalls) -> None:
        self._settings = settings
        self._database = database
        self._reports = reports
        self._blocking = blocking
        self._http = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)
        # Its own log would say twenty times a second what is told here once.
        self._admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers, "log_level": 0})

    async def close(self) -> None:
        await self._http.aclose()

    async def postgres(self) -> None:
        async with self._database.connection() as connection:
            await connection.fetchval("SELECT 1")

    async def verifications(self) -> Sequence[Verification]:
        async with self._database.connection() as connection:
            return await reconciliation_repo.verifications(connection, None)

    async def writers(self) -> None:
        if self._reports.trouble is not None:
            raise Transient(self._reports.trouble)
        if not self._reports.caught_up:
            raise Transient(f"{STATUS_TOPIC} is not read yet")

    async def kafka(self) -> Ends:
        partitions = {(STATUS_TOPIC, 0), *reported_partitions(self._reports)}
        return await self._blocking.run(lambda: written_ends(self._admin, partitions, TIMEOUT_S))

    async def connect(self) -> None:
        try:
            (await self._http.get(self._settings.connect.url)).raise_for_status()
        except httpx.HTTPStatusError as error:
            raise Transient(f"Kafka Connect answers {error.response.status_code}") from None
        except httpx.HTTPError as error:
            raise Transient(f"Kafka Connect does not answer: {error or type(error).__name__}") from None

    async def object_store(self) -> int | None:
        stores = self._settings.stores
        await _reach(stores)
        return await ObjectStoreAdmin(stores).free_bytes()


def reported_partitions(reports: Reports) -> set[Partition]:
    """The partitions that writers have reported of."""
    return {
        (collection.topic, partition.partition)
        for pipeline in reports.pipelines()
        for heard in reports.reports(pipeline)
        for collection in heard.report.collections
        for partition in collection.partitions
    }


async def _reach(stores: ObjectStoreSettings) -> None:
    """Raises `Transient` or `Fatal` unless the place for the tables answers."""
    root = stores.root_for(None)
    with store_errors(f"reach {root}"):
        try:
            await obstore.head_async(open_store(root, stores), PROBE_KEY)
        except FileNotFoundError:
            return
