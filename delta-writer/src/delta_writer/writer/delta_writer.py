"""The writer of one table: fenced commits that hold data and Kafka offsets in one log entry.

`DeltaWriter` is what both sink modes share: opening and checking the table, the fence, the recognition of our own
commit after a put that timed out. What a batch does to the table's files is the mode's: `deletion_vector_writer` and
`copy_on_write_writer`.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from cdc_shared.delta.actions import Action, Metadata, Transaction
from cdc_shared.delta.log import DeltaLog, VersionTaken
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.documents import DocumentSchema
from cdc_shared.errors import CdcError, Transient
from cdc_shared.storage.object_store import map_store_error
from delta_writer.transformers.change_batch import EncodedBatch
from delta_writer.writer.offsets import ChangeTopic, app_id, check_fence, start_offset
from delta_writer.writer.table_metadata import TableIdentity, check_supported, new_metadata, schema_of, with_schema

ENGINE: Final = "cdc-delta-writer"
# Put-if-absent fences only against entries that still exist. Log clean-up keeps them for days (logRetentionDuration);
# a writer that has slept for longer than this looks before it writes.
MAX_SNAPSHOT_AGE_S: Final = 3600.0


class SchemaMoved(CdcError):
    """Another commit changed the table's schema: encode the batch again from its events."""


@dataclass(frozen=True, slots=True)
class TableLocation:
    """Where a table is: its URL, the store whose root it is, and delta-rs's options for the same store."""

    url: str
    store: ObjectStore
    storage_options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CommitResult:
    """What a commit did. `seconds` by stage; counts beyond `rows_written` are 0 for a commit found done already."""

    version: int
    rows_written: int = 0
    rows_removed: int = 0
    files_swapped: int = 0
    conflicts: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)


class DeltaWriter(ABC):
    """Applies batches of one topic to one table. Not thread-safe. Blocks on the store.

    Every method raises `Transient` when the store is away, and may then be called again with the same arguments: a
    commit that had succeeded all the same is recognised by its id.
    """

    mode: str

    def __init__(
        self,
        location: TableLocation,
        identity: TableIdentity,
        topic: ChangeTopic,
        cache_dir: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.location = location
        self.topic = topic
        self._identity = identity
        self._cache_dir = cache_dir
        self._clock = clock
        self._log = DeltaLog(location.store)
        self._snapshot = Snapshot()
        self._schema = schema_of(None)
        self._landed: str | None = None  # the commit id of the batch that was committed last
        self._put_in_doubt = False
        self._read_at = 0.0
        self.reload()

    @property
    def schema(self) -> DocumentSchema:
        """The table's document schema; empty while there is no table."""
        return self._schema

    @property
    def version(self) -> int:
        """The newest version known; -1 while there is no table."""
        return self._snapshot.version

    @property
    def data_files(self) -> int:
        """How many data files the table has."""
        return len(self._snapshot.files)

    def reload(self) -> None:
        """Read the table's state anew.

        Raises:
            Fatal: the table was made by somebody else, in another mode, or has a feature unknown to this writer.
        """
        self._read_at = self._clock()
        with store_errors(f"reading the log of {self.location.url}"):
            snapshot = self._log.load()
        if snapshot.metadata is not None:
            check_supported(snapshot, self._identity, self.mode, self.topic.partitions, self.location.url)
        self._snapshot = snapshot
        self._put_in_doubt = False
        self._schema = schema_of(snapshot.metadata)

    def next_offset(self, partition: int, low: int, high: int) -> int:
        """Return the offset to read next; see `offsets.start_offset`, also for what it raises."""
        return start_offset(self._snapshot.txns, self.topic, partition, low, high)

    def commit(self, batch: EncodedBatch) -> CommitResult | None:
        """Write the batch and its offsets in one commit; None, and nothing written, when it changes no row.

        With `batch.must_commit` the offsets are committed all the same.

        Raises:
            Fenced: the table does not stand where the batch begins. Nothing was written.
            SchemaMoved: `batch.base_schema` is no longer the table's schema. Nothing was written.
        """
        conflicts = 0
        if self._put_in_doubt:
            self._catch_up(batch.commit_id)
        elif self._clock() - self._read_at > MAX_SNAPSHOT_AGE_S:
            self.reload()
        while self._landed != batch.commit_id:
            check_fence(self._snapshot.txns, self.topic, batch.ranges)
            if batch.base_schema != self._schema:
                raise SchemaMoved(f"the schema of {self.location.url} changed while a batch was in hand")
            try:
                with store_errors(f"committing to {self.location.url}"):
                    result = self._write(batch)
                return None if result is None else replace(result, conflicts=conflicts)
            except VersionTaken as taken:
                conflicts += 1
                known = self.version
                self._catch_up(batch.commit_id)
                if self.version == known:
                    raise Transient(f"{self.location.url} refused version {taken}, but does not show it yet") from taken
        return CommitResult(self.version, batch.rows.num_rows, conflicts=conflicts)

    @abstractmethod
    def close(self) -> None:
        """Give back what the writer holds. The table needs nothing: it is consistent after every commit."""

    # -- what a mode does ---------------------------------------------------------------------------------------------

    @abstractmethod
    def _write(self, batch: EncodedBatch) -> CommitResult | None:
        """Write the batch on top of the newest known version; None when it changes nothing and need not commit.

        Raises:
            VersionTaken: another commit came first.
        """

    def _after_catch_up(self) -> None:  # noqa: B027  # a mode that keeps nothing of its own has nothing to follow
        """Follow commits of others, which the snapshot now holds."""

    # -- what the modes share -----------------------------------------------------------------------------------------

    def _append(self, actions: list[Action], commit_id: str | None = None) -> None:
        """Write the next log entry and take its effect into the snapshot; `commit_id` of the batch that it holds."""
        version = self._snapshot.version + 1
        self._put_in_doubt = True  # until we know: a put that times out may have succeeded
        self._log.append(version, actions)
        self._put_in_doubt = False
        self._snapshot.apply(version, actions)
        self._schema = schema_of(self._snapshot.metadata)
        self._landed = commit_id or self._landed
        self._read_at = self._clock()

    def _catch_up(self, commit_id: str) -> None:
        """Apply the entries written since by others, or by a put of ours in doubt: then `commit_id` has landed."""
        with store_errors(f"reading the log of {self.location.url}"):
            while (entry := self._log.read_entry(self._snapshot.version + 1)) is not None:
                self._snapshot.apply(self._snapshot.version + 1, entry)
                if any(action.commit_info and action.commit_info.get("txnId") == commit_id for action in entry):
                    self._landed = commit_id
            if self._snapshot.metadata is not None:
                check_supported(self._snapshot, self._identity, self.mode, self.topic.partitions, self.location.url)
            self._schema = schema_of(self._snapshot.metadata)
            self._after_catch_up()
        self._put_in_doubt = False
        self._read_at = self._clock()

    def _metadata_for(self, schema: DocumentSchema) -> Metadata | None:
        """Return the `metaData` that a commit of rows in `schema` must carry: of a new table or a wider schema."""
        if self._snapshot.metadata is None:
            return new_metadata(self._identity, schema, self.mode, self.topic.partitions, int(self._clock() * 1000))
        return with_schema(self._snapshot.metadata, schema) if schema.typed() != self._schema else None

    def _offset_actions(self, batch: EncodedBatch) -> list[Action]:
        """Return `commitInfo` and one `txn` for each partition."""
        now_ms = int(self._clock() * 1000)
        info = {
            "timestamp": now_ms,
            "operation": "CDC UPSERT",
            "operationParameters": {},
            "engineInfo": ENGINE,
            "txnId": batch.commit_id,
            "cdcTopic": self.topic.name,
            "cdcRanges": {str(partition): [part.start, part.end] for partition, part in batch.ranges.items()},
        }
        txns = [
            Transaction(app_id(self.topic, partition), part.end, now_ms) for partition, part in batch.ranges.items()
        ]
        return [Action(commit_info=info), *(Action(txn=txn) for txn in txns)]


@contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Turn the store's errors into `Transient` or `Fatal`."""
    try:
        yield
    except (BaseError, OSError) as error:
        raise map_store_error(error, what) from error
