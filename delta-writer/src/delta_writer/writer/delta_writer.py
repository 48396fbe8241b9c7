"""The writer of one table: fenced commits that hold data and Kafka offsets in one log entry.

`DeltaWriter` is what both sink modes share: opening and checking the table, the fence, the recognition of our own
commit after a put that timed out. What a batch does to the table's files is the mode's: `deletion_vector_writer` and
`copy_on_write_writer`.
"""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from cdc_shared.delta.actions import Action, Metadata, Transaction
from cdc_shared.delta.foreign_commits import ENGINE, CommitGuard
from cdc_shared.delta.log import DeltaLog, VersionTaken
from cdc_shared.delta.offsets import ChangeTopic, app_id, check_fence, start_offset, watermark_id
from cdc_shared.delta.positions import partition_base
from cdc_shared.delta.schema_diff import schema_digest
from cdc_shared.delta.schema_history import SCHEMA_VERSION, SchemaCause, SchemaOperation, change_schema, put_change
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import (
    KEY_MASK,
    TableIdentity,
    check_key_mask,
    check_masks,
    check_supported,
    masked_by,
    new_metadata,
    owner_of,
    schema_of,
    with_schema,
)
from cdc_shared.delta.time_travel import COMMIT_INFO_KEY, table_watermark
from cdc_shared.documents import DocumentSchema
from cdc_shared.errors import CdcError, Transient
from cdc_shared.storage.object_store import store_errors
from delta_writer.transformers.change_batch import EncodedBatch
from delta_writer.writer.file_changes import MovedFiles

KEY_COLUMN: Final = "_cdc_key"
PARTITION_COLUMN: Final = "_cdc_partition"
OFFSET_COLUMN: Final = "_cdc_offset"
# Put-if-absent fences only against entries that still exist. Log clean-up keeps them for days (logRetentionDuration);
# a writer that has slept for longer than this looks before it writes.
MAX_SNAPSHOT_AGE_S: Final = 3600.0
MAX_UNANSWERED: Final = 1000


class SchemaMoved(CdcError):
    """Another commit changed the table's schema: encode the batch again from its events."""


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
        self.cache_dir = cache_dir
        self._clock = clock
        self._log = DeltaLog(location.store)
        self._guard = CommitGuard(location.url, location.store, identity, self.mode)
        self._snapshot = Snapshot()
        self._schema = schema_of(None)
        self._moved = MovedFiles(since=-1)
        self._landed: set[str] = set()  # commit ids in the log that whoever asked for them has not heard of yet
        self._unanswered: dict[str, None] = {}  # in order: commit ids of puts that may have succeeded, or still may
        self._must_look = False  # before the next write: the newest entry may be one of those, or is not taken in yet
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
    def snapshot(self) -> Snapshot:
        """The table's state at `version`, to read: it moves on with every commit."""
        return self._snapshot

    @property
    def partition_base(self) -> int:
        """What `_cdc_partition` counts from; see `table_metadata.partition_base`."""
        return partition_base(self._snapshot.metadata)

    @property
    def upload_era(self) -> str:
        """Changes whenever a file of rows that was uploaded before must not be committed any more."""
        return f"{self.partition_base}@{masked_by(self._snapshot.metadata)}"

    @property
    def watermark_ms(self) -> int | None:
        """The source time strictly before which everything is in the table at `version`; None while there is none."""
        return table_watermark(self._snapshot.txns, self.topic.topic_id, self.topic.partitions)

    def reload(self) -> None:
        """Read the table's state anew.

        Raises:
            Fatal: the table was made or its rows were changed by somebody else, it is in another mode, or has a
                feature unknown to this writer.
        """
        started = self._clock()
        with store_errors(f"reading the log of {self.location.url}"):
            snapshot = self._log.load()
            if snapshot.metadata is not None:
                if owner_of(snapshot.metadata) == self._identity:  # first: it says who made what is not supported
                    self._guard.check_newest(self._log, snapshot)
                self._check_supported(snapshot)
        self._snapshot = snapshot
        self._read_at = started
        self._moved = MovedFiles(since=snapshot.version)
        self._must_look = False
        self._schema = schema_of(snapshot.metadata)

    def refresh(self) -> None:
        """Follow what others have committed since. Raises what `reload` does."""
        if self._clock() - self._read_at > MAX_SNAPSHOT_AGE_S:
            self.reload()
        else:
            self._catch_up()

    def next_offset(self, partition: int, low: int, high: int) -> int:
        """Return the offset to read next; see `offsets.start_offset`, also for what it raises."""
        return start_offset(self._snapshot.txns, self.topic, partition, low, high)

    def commit(self, batch: EncodedBatch) -> CommitResult | None:
        """Write the batch and its offsets in one commit; None, and nothing written, when it changes no row.

        With `batch.must_commit` the offsets are committed all the same.

        Raises:
            Fenced: the table does not stand where the batch begins. Nothing was written.
            StaleRules: the table's rows have masks that the batch's lack. Nothing was written.
            SchemaMoved: `batch.base_schema` is no longer the table's schema. Nothing was written.
        """

        def attempt() -> CommitResult | None:
            check_fence(self._snapshot.txns, self.topic, batch.ranges)
            if batch.rows.num_rows:
                check_masks(self._snapshot.metadata, batch.rules_version, self.location.url)
            check_key_mask(self._snapshot.metadata, batch.key_mask, self.location.url)
            if batch.base_schema != self._schema:
                raise SchemaMoved(f"the schema of {self.location.url} changed while a batch was in hand")
            return self._write(self._placed(batch))

        result = self._until_landed(batch.commit_id, attempt)
        return result and replace(result, rows_written=batch.rows.num_rows)

    def set_properties(
        self, properties: Mapping[str, str] | Callable[[Metadata], Mapping[str, str]]
    ) -> CommitResult | None:
        """Set table properties; None, and nothing written, when they are as they should be or there is no table.

        What is added to a property is a function of the newest metadata: another writer may add to it as well.
        """
        commit_id = str(uuid.uuid4())

        def attempt() -> CommitResult | None:
            metadata = self._snapshot.metadata
            if metadata is None:
                return None
            wanted = properties(metadata) if callable(properties) else properties
            if wanted.items() <= metadata.configuration.items():
                return None
            changed = msgspec.structs.replace(metadata, configuration={**metadata.configuration, **wanted})
            info = self._commit_info("SET TBLPROPERTIES", commit_id, int(self._clock() * 1000))
            self._append([Action(commit_info=info), Action(meta_data=changed)], commit_id)
            return CommitResult(self.version)

        return self._until_landed(commit_id, attempt)

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

    def _check_supported(self, snapshot: Snapshot) -> None:
        """Raise `Fatal` when this writer must not write the table."""
        check_supported(snapshot, self._identity, self.mode, self.topic.partitions, self.location.url)

    # -- what the modes share -----------------------------------------------------------------------------------------

    def _until_landed(self, commit_id: str, attempt: Callable[[], CommitResult | None]) -> CommitResult | None:
        """Call `attempt`, which plans and writes one entry on the newest version known, until the entry is in the log.

        After every conflict it is planned anew on what others have written. An entry of ours that got there unheard,
        in this call or in one before it that raised `Transient`, is found by its id and not written again. Returns
        what `attempt` does, None too.
        """
        conflicts = 0
        if self._clock() - self._read_at > MAX_SNAPSHOT_AGE_S:
            self.reload()
        elif self._must_look:
            self._catch_up()
        while commit_id not in self._landed:
            try:
                with store_errors(f"committing to {self.location.url}"):
                    result = attempt()
                self._landed.discard(commit_id)
                return None if result is None else replace(result, conflicts=conflicts)
            except VersionTaken as taken:
                conflicts += 1
                known = self.version
                self._catch_up()
                if self.version == known:
                    raise Transient(f"{self.location.url} refused version {taken}, but does not show it yet") from taken
        self._landed.discard(commit_id)
        return CommitResult(self.version, conflicts=conflicts)

    def _append(self, actions: list[Action], commit_id: str | None = None) -> None:
        """Write the next log entry and take its effect into the snapshot. `commit_id` as its `commitInfo` has it."""
        version = self._snapshot.version + 1
        raised = {action.txn.app_id: action.txn.version for action in actions if action.txn is not None}
        for action in actions:
            if action.commit_info is not None:
                action.commit_info.update(self._watermark_info(raised) | self._schema_info(actions))
        self._will_put(commit_id)
        self._log.append(version, actions)
        self._must_look = False
        if commit_id is not None:  # until the caller has heard of it: what comes after the put may fail
            self._landed.add(commit_id)
            del self._unanswered[commit_id]
        self._apply(version, actions)
        self._read_at = self._clock()

    def _catch_up(self) -> None:
        """Apply the entries written since by others, or by a put of ours in doubt: its commit has landed then."""
        is_new = self._must_look  # what an earlier look applied and did not come to check and follow
        self._must_look = True  # when this one is cut short
        with store_errors(f"reading the log of {self.location.url}"):
            while (entry := self._log.read_entry(self._snapshot.version + 1)) is not None:
                self._guard.check(self._snapshot.version + 1, entry, self._snapshot.metadata)
                self._apply(self._snapshot.version + 1, entry)
                self._note_landed(entry)
                is_new = True
            if is_new:
                if self._snapshot.metadata is not None:
                    self._check_supported(self._snapshot)
                self._after_catch_up()
        self._must_look = False
        self._read_at = self._clock()

    def _will_put(self, commit_id: str | None) -> None:
        """An entry is about to be put. Until its answer has come, and long after, it may get into the log."""
        self._must_look = True
        if commit_id is not None:
            self._unanswered[commit_id] = None
        while len(self._unanswered) > MAX_UNANSWERED:
            del self._unanswered[next(iter(self._unanswered))]

    def _note_landed(self, entry: list[Action]) -> None:
        for action in entry:
            commit_id = action.commit_info and action.commit_info.get("txnId")
            if commit_id in self._unanswered:
                self._landed.add(commit_id)
                del self._unanswered[commit_id]

    def _apply(self, version: int, actions: list[Action]) -> None:
        self._snapshot.apply(version, actions)
        self._moved.see(version, actions)
        if any(action.meta_data is not None for action in actions):
            self._schema = schema_of(self._snapshot.metadata)

    def _placed(self, batch: EncodedBatch) -> EncodedBatch:
        """Return the batch with its rows' partitions counted from the table's base."""
        base, rows = self.partition_base, batch.rows
        if base == 0:
            return batch
        place = rows.schema.get_field_index(PARTITION_COLUMN)
        counted = pc.add(rows.column(place), pa.scalar(base, pa.int32()))
        return replace(batch, rows=rows.set_column(place, rows.schema.field(place), counted))

    def _metadata_for(self, batch: EncodedBatch) -> Metadata | None:
        """Return the `metaData` that the batch's commit must carry: of a new table or a wider schema."""
        before, now_ms = self._snapshot.metadata, int(self._clock() * 1000)
        if before is None:
            after = new_metadata(self._identity, batch.schema, self.mode, self.topic.partitions, now_ms)
            if batch.key_mask:
                after.configuration[KEY_MASK] = batch.key_mask
        elif batch.schema.typed() != self._schema:
            after = with_schema(before, batch.schema)
        else:
            return None
        operation = SchemaOperation.CREATED if before is None else SchemaOperation.WIDENED
        cause = SchemaCause(operation, batch.commit_id, now_ms, batch.rules_version, batch.shown_by)
        return self._recorded(after, cause)

    def _recorded(self, after: Metadata, cause: SchemaCause) -> Metadata:
        """Put the record of a change of schema in its place; return the `metaData` that puts the schema in force.

        Metadata with the schema of before puts nothing on record.
        """
        before = self._snapshot.metadata
        if before is not None and schema_digest(before.schema_string) == schema_digest(after.schema_string):
            return after
        metadata, change = change_schema(before, after, cause)
        put_change(self.location.store, change)
        return metadata

    def _offset_actions(self, batch: EncodedBatch) -> list[Action]:
        """Return `commitInfo`, and one `txn` for each partition and each watermark."""
        now_ms = int(self._clock() * 1000)
        ranges = {str(partition): [part.start, part.end] for partition, part in batch.ranges.items()}
        info = self._commit_info("CDC UPSERT", batch.commit_id, now_ms) | {"cdcRanges": ranges} | rules_info(batch)
        return [Action(commit_info=info), *self._txns(self._offset_txns(batch), now_ms)]

    def _offset_txns(self, batch: EncodedBatch) -> dict[str, int]:
        offsets = {app_id(self.topic, partition): part.end for partition, part in batch.ranges.items()}
        return offsets | self._raised({watermark_id(self.topic, p): at_ms for p, at_ms in batch.watermarks.items()})

    def _commit_info(self, operation: str, commit_id: str, now_ms: int) -> dict[str, Any]:
        return {
            "timestamp": now_ms,
            "operation": operation,
            "operationParameters": {},
            "engineInfo": ENGINE,
            "txnId": commit_id,
            "cdcTopic": self.topic.name,
            "cdcRanges": {},
        }

    def _watermark_info(self, raised: Mapping[str, int]) -> dict[str, int]:
        """Return what the `commitInfo` of an entry with these `txn`s says of the table's watermark."""
        at_ms = table_watermark({**self._snapshot.txns, **raised}, self.topic.topic_id, self.topic.partitions)
        return {} if at_ms is None else {COMMIT_INFO_KEY: at_ms}

    def _schema_info(self, actions: Sequence[Action] = ()) -> dict[str, int]:
        """Return what the `commitInfo` of an entry with these actions says of the table's schema from then on."""
        given = (action.meta_data for action in actions if action.meta_data is not None)
        metadata = next(given, self._snapshot.metadata)
        return {} if metadata is None else {"cdcSchemaVersion": int(metadata.configuration.get(SCHEMA_VERSION, "0"))}

    def _raised(self, txns: Mapping[str, int]) -> dict[str, int]:
        """Return the `txn`s that would rise: these never fall."""
        return {name: to for name, to in txns.items() if to > self._snapshot.txns.get(name, -1)}

    def _txns(self, txns: Mapping[str, int], now_ms: int) -> list[Action]:
        return [Action(txn=Transaction(name, to, now_ms)) for name, to in txns.items()]


def rules_info(batch: EncodedBatch) -> dict[str, int]:
    """Return what the `commitInfo` of a batch says of the rules that made its rows; nothing when there are none."""
    return {"cdcRulesVersion": batch.rules_version} if batch.rules_version else {}
