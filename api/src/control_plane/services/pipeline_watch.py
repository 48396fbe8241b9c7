"""What is asked about pipelines at their sources and in their topics: how far oplogs reach back, how far snapshots are.

A source that is away is its pipelines' worry, which the controller tells of; here it only means that nothing is known.
"""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Final

from cdc_shared.errors import CdcError
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.common import InvalidSpec, PipelineSpec, SourceSpec
from cdc_shared.snapshots.snapshot_follower import SnapshotFollower
from cdc_shared.snapshots.snapshot_progress import SnapshotProgress
from cdc_shared.source.collection_counts import count_documents
from cdc_shared.source.mongodb_source import MongodbSource
from cdc_shared.source.oplog import OplogWindow, oplog_window
from control_plane.blocking import BlockingCalls
from control_plane.database import Database
from control_plane.models.operation import OperationKind
from control_plane.models.pipeline import PipelineRecord
from control_plane.repositories import pipeline_repo
from control_plane.services.lifecycle import config_of
from control_plane.settings import Settings

CLOSE_TIMEOUT_S: Final = 1.0

log = get_logger(__name__)


class PipelineWatch:
    """Looks that are repeated: no two of one kind at once."""

    def __init__(self, settings: Settings, database: Database, blocking: BlockingCalls) -> None:
        self._settings = settings
        self._database = database
        self._blocking = blocking
        self._sources: dict[str, MongodbSource] = {}
        self._sources_lock = threading.Lock()
        self._follower = SnapshotFollower(
            settings.kafka.bootstrap_servers, lambda spec: count_documents(self._source(spec.source), spec)
        )
        self._following = threading.Lock()
        self._specs: dict[str, tuple[str, PipelineSpec]] = {}
        """Name → the ETag that it is of. Checking a spec with many rules takes 10 ms, of the event loop."""

    async def oplogs(self) -> Mapping[str, OplogWindow]:
        """The oplog of each pipeline's source; one that is away, or does not show it, is left out."""
        specs = {name: spec.source for name, spec, _ in await self._pipelines()}
        one_each = {spec.connection: spec for spec in specs.values()}
        windows = dict(zip(one_each, await asyncio.gather(*map(self._oplog, one_each.values())), strict=True))
        return {name: window for name, spec in specs.items() if (window := windows[spec.connection]) is not None}

    async def snapshots(self) -> Mapping[str, SnapshotProgress]:
        """How far the last snapshot of each pipeline is that ever began one. Raises `Transient` without Kafka."""
        started = [each for each in await self._pipelines() if each[2].started]
        specs = [spec for _, spec, _ in started]
        asked = {name: collections for name, _, record in started if (collections := _asked(record))}
        if not specs:
            return {}

        def look() -> Mapping[str, SnapshotProgress]:
            with self._following:
                return self._follower.look(specs, asked)

        return await self._blocking.run(look)

    def close(self) -> None:
        """Give the connections back; a look that waits for an answer is left behind."""
        if self._following.acquire(timeout=CLOSE_TIMEOUT_S):
            self._follower.close()
        for source in self._sources.values():
            source.close()

    async def _pipelines(self) -> list[tuple[str, PipelineSpec, PipelineRecord]]:
        async with self._database.connection() as connection:
            records = await pipeline_repo.every(connection)
        found = []
        for record in records:
            try:
                found.append((record.name, self._spec(record), record))
            except InvalidSpec:
                continue  # whoever looks at the pipeline is told
        self._specs = {name: self._specs[name] for name, _, _ in found}
        return found

    def _spec(self, record: PipelineRecord) -> PipelineSpec:
        etag, spec = self._specs.get(record.name, ("", None))
        if spec is None or etag != record.etag:
            spec = config_of(record).spec()
            self._specs[record.name] = record.etag, spec
        return spec

    def _source(self, spec: SourceSpec) -> MongodbSource:
        with self._sources_lock:
            return self._sources.setdefault(spec.connection, MongodbSource(spec, self._settings.secrets))

    async def _oplog(self, spec: SourceSpec) -> OplogWindow | None:
        source = self._source(spec)

        def look() -> OplogWindow | None:
            with source.asking("look at the oplog"):
                return oplog_window(source.database("admin").client)

        try:
            return await self._blocking.run(look)
        except CdcError as error:
            log.debug("oplog not seen", connection=spec.connection, reason=str(error))
            return None


def _asked(record: PipelineRecord) -> Sequence[str]:
    """The collections that a resync has asked for that is under way; none: all, or there is none."""
    for operation in record.operations:
        if operation.kind is OperationKind.RESYNC and operation.started_at is not None:
            return list(operation.arguments.get("collections") or ())
    return ()
