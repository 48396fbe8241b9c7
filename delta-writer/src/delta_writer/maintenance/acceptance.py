"""Accepting what another program did to the rows of a collection's table, so that its writer goes on from there.

The table's offsets then no longer say what is in it; reconciliation does, and its repairs bring the rows back to what
the source holds, through the writer. The entry that accepts holds no row: it gives the rows another identity, since
rows that were deleted may live again and the key index may have forgotten them (docs/adr/0014), and it is ours, so what
lies below it is not judged again.
"""

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cdc_shared.delta.actions import Action, AddFile, Metadata
from cdc_shared.delta.foreign_commits import ENGINE, CommitGuard, engine_of, operation_of
from cdc_shared.delta.log import DeltaLog, VersionTaken
from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.delta.schema_history import SCHEMA_VERSION
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import RESTORE_ID, TableIdentity, check_supported, masked_by
from cdc_shared.delta.time_travel import COMMIT_INFO_KEY, table_watermark
from cdc_shared.errors import Fatal
from cdc_shared.storage.object_store import store_errors
from cdc_shared.storage.range_file import RangeFile
from delta_writer.writer.delta_writer import KEY_COLUMN

OPERATION = "CDC ACCEPT"
RULES_VERSION_COLUMN = "_cdc_rules_version"


@dataclass(frozen=True, slots=True)
class ForeignChange:
    """A commit of another program that changed rows. `files_in`, `files_out`: data files that it added and removed."""

    version: int
    operation: str
    engine: str
    files_in: int
    files_out: int


@dataclass(frozen=True, slots=True)
class AcceptancePlan:
    """What is to be accepted, oldest first; nothing when others have changed no row. `newest`: the version it is on."""

    newest: int
    changes: list[ForeignChange]
    commit_id: str
    actions: list[Action]


class TableAcceptance:
    """Accepts the rows of one table. `clock` is the wall clock in seconds. Blocks on the store; raises `Transient`
    when it is away.
    """

    def __init__(
        self,
        location: TableLocation,
        identity: TableIdentity,
        topic: ChangeTopic,
        mode: str,
        clock: Callable[[], float],
    ) -> None:
        self._location = location
        self._identity = identity
        self._topic = topic
        self._mode = mode
        self._clock = clock
        self._log = DeltaLog(location.store)

    def plan(self) -> AcceptancePlan:
        """Look at what others did since the last commit of ours. Nothing is written.

        Raises:
            Fatal: there is no such table, it is not the collection's, or there are rows that could not be told apart
                or put right later.
            ForeignCommit: others have changed its schema too.
        """
        with self._reading():
            table = self._log.load()
            if table.metadata is None:
                raise Fatal(f"there is no table at {self._location.url}: check the names, and the spec's sink.root")
            check_supported(table, self._identity, self._mode, self._topic.partitions, self._location.url)
            guard = CommitGuard(self._location.url, self._location.store, self._identity, self._mode)
            entries = guard.row_changes(self._log, table)
            commit_id = str(uuid.uuid4())
            self._check_rows(table, table.metadata, entries)
        changes = [_change(version, entry) for version, entry in entries]
        return AcceptancePlan(
            table.version, changes, commit_id, self._actions(table, table.metadata, changes, commit_id)
        )

    def apply(self, plan: AcceptancePlan) -> int:
        """Commit the plan; return the new version. May be called again after `Transient`: it is never applied twice.

        Raises:
            Fatal: somebody committed after the plan was made. Nothing was written.
        """
        version = plan.newest + 1
        with store_errors(f"committing to {self._location.url}"):
            try:
                self._log.append(version, plan.actions)
                return version
            except VersionTaken:
                entry = self._log.read_entry(version) or []
        if any(action.commit_info and action.commit_info.get("txnId") == plan.commit_id for action in entry):
            return version
        raise Fatal(f"{self._location.url} was written meanwhile (version {version}): stop what writes it, look again")

    def _check_rows(self, table: Snapshot, metadata: Metadata, entries: Sequence[tuple[int, list[Action]]]) -> None:
        """Check that each row that others wrote has a key, and the masks that all rows have."""
        added = {action.add.path for _, entry in entries for action in entry if action.add is not None}
        masks = masked_by(metadata)
        for file in (file for path, file in table.files.items() if path in added):
            keys, versions = self._columns(file)
            if keys.null_count:
                raise Fatal(
                    f"{keys.null_count:,} rows of {file.path} in {self._location.url} have no {KEY_COLUMN}: no repair "
                    f"would find them. {self._instead}"
                )
            if any((version or 0) < masks for version in pc.unique(versions).to_pylist()):
                raise Fatal(
                    f"{file.path} in {self._location.url} has rows from before the masks of version {masks} of the "
                    f"rules: their plain values would stay. {self._instead}"
                )

    def _columns(self, file: AddFile) -> tuple[Any, Any]:
        """Return the key and the version of the rules of each row; nulls where the file has no such column."""
        with pq.ParquetFile(pa.PythonFile(RangeFile(self._location.store, file.path, file.size), mode="r")) as parquet:
            wanted = (KEY_COLUMN, RULES_VERSION_COLUMN)
            found = parquet.read(columns=[name for name in wanted if name in parquet.schema_arrow.names])
            none = pa.array([None] * parquet.metadata.num_rows, pa.int32())
        keys, versions = (found.column(name) if name in found.column_names else none for name in wanted)
        return keys, versions

    @property
    def _instead(self) -> str:
        return (
            f"Put the table back instead: `delta-writer restore {self._identity.pipeline} {self._identity.collection}`"
        )

    def _actions(
        self, table: Snapshot, metadata: Metadata, changes: Sequence[ForeignChange], commit_id: str
    ) -> list[Action]:
        info: dict[str, Any] = {
            "timestamp": int(self._clock() * 1000),
            "operation": OPERATION,
            "operationParameters": {"versions": [change.version for change in changes]},
            "engineInfo": ENGINE,
            "txnId": commit_id,
            "cdcTopic": self._topic.name,
            "cdcRanges": {},
            "cdcSchemaVersion": int(metadata.configuration.get(SCHEMA_VERSION, "0")),
        }
        watermark_ms = table_watermark(table.txns, self._topic.topic_id, self._topic.partitions)
        if watermark_ms is not None:
            info[COMMIT_INFO_KEY] = watermark_ms
        configuration = {**metadata.configuration, RESTORE_ID: commit_id}
        renamed = msgspec.structs.replace(metadata, configuration=configuration)
        return [Action(commit_info=info), Action(meta_data=renamed)]

    def _reading(self) -> AbstractContextManager[None]:
        return store_errors(f"reading {self._location.url}")


def _change(version: int, entry: Sequence[Action]) -> ForeignChange:
    return ForeignChange(
        version,
        operation_of(entry),
        engine_of(entry),
        sum(action.add is not None for action in entry),
        sum(action.remove is not None for action in entry),
    )
