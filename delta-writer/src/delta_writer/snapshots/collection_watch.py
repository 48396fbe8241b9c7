"""Watches the source's collections: drops, renames and re-creations, of which the stream of changes says nothing.

MongoDB gives a collection a UUID when it is made and keeps it over a rename. The table remembers the one that it was
filled from, as a property, so that what happened while no writer ran is seen as well. A collection that took another's
place is reported until a snapshot begun later has been swept.
"""

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cdc_shared.errors import CdcError
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.common import PipelineSpec
from cdc_shared.source.mongodb_source import MongodbSource
from delta_writer.background_thread import BackgroundThread
from delta_writer.writer.tables import Table

COLLECTION_UUID: Final = "cdc.collectionUuid"
REPLACED_BY: Final = "cdc.collectionReplacedBy"
"""`<uuid>:<offset>`: another collection has the name now; a snapshot begun at this notification or later tells it."""

log = get_logger(__name__)


class CollectionChange(StrEnum):
    """What happened to a collection."""

    DROPPED = "dropped"
    RENAMED = "renamed"
    MADE_AGAIN = "made_again"
    RENAMED_INTO = "renamed_into"


@dataclass(frozen=True, slots=True)
class Finding:
    """What happened to a captured collection (named without its database), and what to do."""

    collection: str
    change: CollectionChange
    text: str


@dataclass(frozen=True, slots=True)
class SourceState:
    """The collections of the database → their UUIDs (hex; None where the server gives none), at one moment.

    `notifications`: a snapshot begun at this offset of the notification topic, or later, began after that moment.
    """

    uuids: Mapping[str, str | None]
    notifications: int


class CollectionWatch:
    """A chore of a pipeline. The source is asked in a thread of its own; while it is away, only the watch waits."""

    name = "collections"

    def __init__(
        self,
        spec: PipelineSpec,
        look: Callable[[], SourceState],
        is_swept_since: Callable[[str, Table, int], bool],
        report: Callable[[Collection[Finding]], None],
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
        executor: Executor | None = None,
    ) -> None:
        """`is_swept_since(topic, table, offset)`: whether a snapshot begun at that notification or later is in.

        `report` gets all that is found whenever that changes. `clock` is monotonic, in seconds; `executor` takes the
        thread's place.
        """
        self._spec = spec
        self._look = look
        self._is_swept_since = is_swept_since
        self._report = report
        self._interval_s = interval_s
        self._clock = clock
        self._executor = executor or BackgroundThread("collections")
        self._job: Future[SourceState] | None = None
        self._due = 0.0
        self._names: dict[str, str] = {}  # UUID → the name it had when last looked at
        self._arrived: dict[str, tuple[str, int]] = {}  # without a table: renamed from, since which notification
        self._found: dict[str, Finding] = {}

    def turn(self, tables: Mapping[str, Table], assigned: Collection[tuple[str, int]]) -> None:
        """Ask the source when it is time, and judge what it has said. Raises what committing a property raises."""
        if self._job is None:
            if self._clock() >= self._due:
                self._job = self._executor.submit(self._look)
            return
        if not self._job.done():
            return
        job, self._job = self._job, None
        self._due = self._clock() + self._interval_s
        try:
            state = job.result()
        except CdcError as error:
            log.warning("the source's collections cannot be looked at", pipeline=self._spec.name, reason=str(error))
            return
        mine = {topic: table for topic, table in tables.items() if (topic, 0) in assigned and table.writer.version >= 0}
        found = [self._judge(topic, table, state) for topic, table in mine.items()]
        found += self._judge_arrivals({table.collection.name for table in tables.values()}, state)
        self._names = {uuid: name for name, uuid in state.uuids.items() if uuid is not None}
        self._tell({each.collection: each for each in found if each is not None})

    def close(self) -> None:
        """Return at once; a question under way ends by its time-out, or with the process."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    # -- judging ------------------------------------------------------------------------------------------------------

    def _judge(self, topic: str, table: Table, state: SourceState) -> Finding | None:
        """Compare a table's collection with the one that it was filled from."""
        assert table.writer.snapshot.metadata is not None  # nosec B101 # the table exists
        properties = table.writer.snapshot.metadata.configuration
        name, known = table.collection.name, properties.get(COLLECTION_UUID)
        if name not in state.uuids:
            return self._missing(name, known, state)
        uuid = state.uuids[name]
        if uuid is None or uuid == known:
            return None
        replaced_by, _, since = properties.get(REPLACED_BY, "").partition(":")
        if known is None and not replaced_by and name not in self._arrived:
            table.writer.set_properties({COLLECTION_UUID: uuid})
            return None
        if replaced_by != uuid:
            begun = self._arrived.pop(name, ("", state.notifications))[1]
            table.writer.set_properties({REPLACED_BY: f"{uuid}:{begun}"})
        elif self._is_swept_since(topic, table, int(since)):
            table.writer.set_properties({COLLECTION_UUID: uuid, REPLACED_BY: ""})
            return None
        return self._finding(
            name,
            CollectionChange.MADE_AGAIN,
            f"{name} was dropped and made again, or another collection was renamed to it, and the stream does not tell "
            f"of documents that went or came with that: run {self._remedy(name)}",
        )

    def _missing(self, name: str, known: str | None, state: SourceState) -> Finding:
        renamed_to = next((other for other, uuid in state.uuids.items() if uuid is not None and uuid == known), None)
        if renamed_to is None:
            text = f"{name} was dropped; its table stays as it is until somebody removes it"
            return self._finding(name, CollectionChange.DROPPED, text)
        text = f"{name} was renamed to {renamed_to}; its table stays as it is until somebody removes it"
        if self._spec.source.captures(renamed_to):
            text += f". For what {renamed_to} began with run {self._remedy(renamed_to)}"
        return self._finding(name, CollectionChange.RENAMED, text)

    def _judge_arrivals(self, with_table: Collection[str], state: SourceState) -> list[Finding]:
        """Find captured collections without a table whose documents came with a rename that this watch has seen."""
        for name, uuid in state.uuids.items():
            before = self._names.get(uuid or "")
            if before not in (None, name) and name not in with_table and self._spec.source.captures(name):
                self._arrived.setdefault(name, (before or "", state.notifications))
        for name in [each for each in self._arrived if each not in state.uuids]:
            del self._arrived[name]
        return [
            self._finding(
                name,
                CollectionChange.RENAMED_INTO,
                f"{name} was renamed from {before}; for what it began with run {self._remedy(name)}",
            )
            for name, (before, _) in self._arrived.items()
            if name not in with_table
        ]

    def _remedy(self, collection: str) -> str:
        return f"`delta-writer resync {self._spec.name} --collection {collection}`"

    def _finding(self, name: str, change: CollectionChange, text: str) -> Finding:
        return Finding(name, change, f"collection {self._spec.source.database}.{text}")

    def _tell(self, found: dict[str, Finding]) -> None:
        if found == self._found:
            return
        for name, finding in found.items():
            if self._found.get(name) != finding:
                log.warning("collection changed at the source", pipeline=self._spec.name, reason=finding.text)
        for name in self._found.keys() - found.keys():
            log.info("collection is in order again", pipeline=self._spec.name, collection=name)
        self._found = found
        self._report(list(found.values()))


def look_at_source(source: MongodbSource, database: str, notifications_end: Callable[[], int]) -> SourceState:
    """Ask the source for its collections. Raises `Transient` or `Fatal`."""
    with source.asking(f"list the collections of {database}") as session:
        uuids = {}
        for each in source.database(database).list_collections(session=session):
            uuid = each.get("info", {}).get("uuid")
            if each.get("type", "collection") != "view":
                uuids[str(each["name"])] = None if uuid is None else bytes(getattr(uuid, "bytes", uuid)).hex()
    return SourceState(uuids, notifications_end())
