"""What the parts of the platform say of themselves, gathered in the background every few seconds: no request waits for
Kafka, MongoDB or a store.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import httpx
import obstore
from confluent_kafka.admin import AdminClient

from cdc_shared.errors import CdcError, Transient
from cdc_shared.kafka.partition_ends import written_ends
from cdc_shared.kafka.status_topic import Heard
from cdc_shared.kafka.topics import STATUS_TOPIC
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.common import InvalidSpec, SourceSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.source.mongodb_source import MongodbSource
from cdc_shared.source.oplog import OplogWindow, oplog_window
from cdc_shared.storage.object_store import open_store, store_errors
from cdc_shared.storage.object_store_admin import ObjectStoreAdmin
from control_plane.blocking import BlockingCalls
from control_plane.database import Database
from control_plane.models.monitoring import DependencyDetail
from control_plane.repositories import pipeline_repo
from control_plane.services.dependency_watch import DependencyWatch
from control_plane.services.lifecycle import config_of
from control_plane.settings import Settings

OFTEN_S: Final = 3.0
TIMEOUT_S: Final = 5.0
STORE_EVERY_S: Final = 10.0
SOURCES_EVERY_S: Final = 30.0
SOURCES_TIMEOUT_S: Final = 25.0
THREADS: Final = 8
PROBE_KEY: Final = ".cdc-ready"
"""Nothing is there: a store that says so is there itself."""

Partition = tuple[str, int]
Ends = Mapping[Partition, int]
"""(topic, partition) → the offset behind its last record."""

log = get_logger(__name__)


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
    sources: DependencyWatch[Mapping[str, OplogWindow]]
    """Not one of the platform's own parts: that a source is away is its pipelines' worry."""

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
        return (self.sources.value or {}).get(pipeline)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, database: Database, reports: Reports) -> "AsyncIterator[MetricsCollector]":
        """Gather until the block ends. Raises nothing for what is away."""
        looks = _Looks(settings, database, reports)
        collector = cls(
            reports,
            Watches(
                postgres=DependencyWatch("postgres", looks.postgres, OFTEN_S, TIMEOUT_S, required=True),
                kafka=DependencyWatch("kafka", looks.kafka, OFTEN_S, TIMEOUT_S),
                writers=DependencyWatch("writer-reports", looks.writers, OFTEN_S, TIMEOUT_S),
                connect=DependencyWatch("kafka-connect", looks.connect, OFTEN_S, TIMEOUT_S),
                object_store=DependencyWatch("object-store", looks.object_store, STORE_EVERY_S, TIMEOUT_S),
            ),
            DependencyWatch("sources", looks.sources, SOURCES_EVERY_S, SOURCES_TIMEOUT_S),
        )
        watches: tuple[DependencyWatch[Any], ...] = (*collector.watches.all, collector.sources)
        tasks = [asyncio.create_task(each.run(), name=f"watch {each.name}") for each in watches]
        try:
            yield collector
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await looks.close()


class _Looks:
    """How each part is looked at. Every look raises when its part is away."""

    def __init__(self, settings: Settings, database: Database, reports: Reports) -> None:
        self._settings = settings
        self._database = database
        self._reports = reports
        self._blocking = BlockingCalls(THREADS)
        self._http = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)
        self._admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
        self._sources: dict[str, MongodbSource] = {}

    async def close(self) -> None:
        await self._http.aclose()
        for source in self._sources.values():
            await self._blocking.run(source.close)

    async def postgres(self) -> None:
        async with self._database.connection() as connection:
            await connection.fetchval("SELECT 1")

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

    async def sources(self) -> Mapping[str, OplogWindow]:
        """The oplog of each pipeline's source; one that is away, or does not show it, is left out."""
        async with self._database.connection() as connection:
            records = await pipeline_repo.every(connection)
        specs: dict[str, SourceSpec] = {}
        for record in records:
            try:
                specs[record.name] = config_of(record).source
            except InvalidSpec:
                continue  # who looks at the pipeline is told
        one_each = {spec.connection: spec for spec in specs.values()}
        windows = dict(zip(one_each, await asyncio.gather(*map(self._oplog, one_each.values())), strict=True))
        return {name: window for name, spec in specs.items() if (window := windows[spec.connection]) is not None}

    async def _oplog(self, spec: SourceSpec) -> OplogWindow | None:
        source = self._sources.setdefault(spec.connection, MongodbSource(spec, self._settings.secrets))

        def look() -> OplogWindow | None:
            with source.asking("look at the oplog"):
                return oplog_window(source.database("admin").client)

        try:
            return await self._blocking.run(look)
        except CdcError as error:
            log.debug("oplog not seen", connection=spec.connection, reason=str(error))
            return None


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
