"""RESTORE of a collection's table: back to how it was at an earlier version, offsets and all.

delta-rs and Spark can restore a table as well, but leave its `txn`s where they are: rows of then with the offsets of
now, and what came between would never come again. Here both go back, in one commit; a writer that starts afterwards
reads the events of between from Kafka once more, and the table becomes what it would have been. So Kafka must still
hold them. What a restore is for is a table that something else has damaged, not a look at the past: for that, readers
have time travel.
"""

import json
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import obstore
from msgspec.structs import replace

from cdc_shared.delta.actions import Action, AddFile, Metadata, Transaction
from cdc_shared.delta.deletion_vector import vector_location
from cdc_shared.delta.foreign_commits import ENGINE, RESTORE, CommitGuard
from cdc_shared.delta.log import DeltaLog, VersionGone, VersionTaken
from cdc_shared.delta.offsets import ChangeTopic, OffsetRange, app_id, is_offset, is_ours, start_offset
from cdc_shared.delta.schema_history import SchemaCause, SchemaChange, SchemaOperation, change_schema, put_change
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import HISTORY, TableIdentity, check_supported, masked_by, restored_metadata
from cdc_shared.delta.time_travel import COMMIT_INFO_KEY, table_watermark
from cdc_shared.errors import Fatal, ResyncNeeded
from cdc_shared.storage.object_store import store_errors
from delta_writer.maintenance.remask import PURGE, REMASK
from delta_writer.writer.deletion_vectors import removal

CHECKS_AT_ONCE: Final = 16
NAMED_FILES: Final = 3

Held = Callable[[int], tuple[int, int]]
"""Tells of a partition of the change topic the first offset that Kafka holds, and its end."""


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What a restore is going to do; `actions` are its log entry, and `schema_change` the record to put before it.

    Attributes:
        version: the version whose state comes back.
        newest: the version that the restore follows.
        files_back, files_out: data files whose state of then comes back, and whose state of now goes.
        columns_out: top-level columns that the table did not have then.
        replayed: partition → the offsets that writers will read again.
    """

    version: int
    newest: int
    files_back: int
    files_out: int
    columns_out: list[str]
    replayed: Mapping[int, OffsetRange]
    commit_id: str
    schema_change: SchemaChange
    actions: list[Action]


class TableRestore:
    """Restores one table. `clock` is the wall clock in seconds. Blocks on the store; raises `Transient` when it is
    away.
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

    def version_at(self, at_ms: int) -> int:
        """Return the newest version that was committed at or before a time (ms since the epoch, as entries say it).

        Raises:
            VersionGone: there was none, or the log no longer goes back that far.
        """
        with self._reading():
            newest = self._log.load().version
            low, high = -1, newest
            while low < high:
                middle = (low + high + 1) // 2
                committed_at = self._committed_at_ms(middle)
                if committed_at is None or committed_at <= at_ms:
                    low = middle
                else:
                    high = middle - 1
            if low < 0 or self._committed_at_ms(low) is None:
                raise VersionGone(f"the log of {self._location.url} does not go back to a version of that time")
            return low

    def plan(self, version: int, held: Held) -> RestorePlan:
        """Look at what is to be done, and whether it can be. Nothing is written.

        Raises:
            Fatal: `version` is no earlier version of this collection's table, its rows lack masks that all have now,
                or its files are gone.
            ResyncNeeded: Kafka no longer holds the events since.
        """
        url = self._location.url
        with self._reading():
            now = self._log.load()
            if not 0 <= version < now.version:
                raise Fatal(f"{url} has no earlier version {version}: its newest is {now.version}")
            then = self._log.load_version(version)
            CommitGuard(url, self._location.store, self._identity, self._mode).check_newest(self._log, then)
        if then.metadata is None:
            raise Fatal(f"version {version} of {url} names no schema: the table is damaged")
        self._check_masks(version, then.metadata, now.metadata)
        commit_id = str(uuid.uuid4())
        metadata, schema_change = change_schema(
            now.metadata,
            restored_metadata(then.metadata, now.metadata, commit_id, (REMASK, PURGE)),
            SchemaCause(SchemaOperation.RESTORED, commit_id, int(self._clock() * 1000)),
        )
        restored = Snapshot(now.version + 1, now.protocol, metadata, _restored_txns(now, then), then.files)
        check_supported(restored, self._identity, self._mode, self._topic.partitions, url)
        replayed = self._replayed(now, then, held)
        self._check_files_exist(version, then)
        return RestorePlan(
            version=version,
            newest=now.version,
            files_back=len(_others(then, now)),
            files_out=len(_others(now, then)),
            columns_out=sorted(_columns(now.metadata) - _columns(metadata)),
            replayed=replayed,
            commit_id=commit_id,
            schema_change=schema_change,
            actions=self._actions(now, restored, version, commit_id),
        )

    def apply(self, plan: RestorePlan) -> int:
        """Commit the plan; return the new version. May be called again after `Transient`: it is never applied twice.

        Raises:
            Fatal: somebody committed after the plan was made. Nothing was written.
        """
        version = plan.newest + 1
        with store_errors(f"committing to {self._location.url}"):
            entry = self._log.read_entry(version)
            if entry is None:
                put_change(self._location.store, plan.schema_change)
                try:
                    self._log.append(version, plan.actions)
                    return version
                except VersionTaken:
                    entry = self._log.read_entry(version) or []
        if not any(action.commit_info and action.commit_info.get("txnId") == plan.commit_id for action in entry):
            raise Fatal(
                f"{self._location.url} was written meanwhile (version {version}): stop what writes it, try again"
            )
        return version

    def _committed_at_ms(self, version: int) -> int | None:
        entry = self._log.read_entry(version) or []
        return next((action.commit_info.get("timestamp") for action in entry if action.commit_info), None)

    def _replayed(self, now: Snapshot, then: Snapshot, held: Held) -> dict[int, OffsetRange]:
        ranges = {}
        for partition in range(self._topic.partitions):
            low, high = held(partition)
            try:
                start_offset(now.txns, self._topic, partition, 0, high)  # a topic that lost records replays too little
                start = start_offset(then.txns, self._topic, partition, low, high)
            except ResyncNeeded as error:
                raise ResyncNeeded(
                    f"that version cannot be restored, because Kafka no longer has what came after it ({error}); "
                    f"choose a later version, or {self._resync}"
                ) from None
            end = now.txns.get(app_id(self._topic, partition), 0)
            if start < end:
                ranges[partition] = OffsetRange(start, end)
        return ranges

    def _check_masks(self, version: int, then: Metadata, now: Metadata | None) -> None:
        """Check that no plain values come back that a masking took out of the rows. They would stay: it is done."""
        if masked_by(then) < (masks := masked_by(now)):
            raise Fatal(
                f"version {version} of {self._location.url} is from before its rows got the masks of version {masks} "
                f"of the rules: their plain values would come back. Choose a version after that, or {self._resync}"
            )

    def _check_files_exist(self, version: int, then: Snapshot) -> None:
        vectors = {vector_location(file.deletion_vector)[0] for file in then.files.values() if file.deletion_vector}
        paths = sorted({*then.files, *vectors})
        with ThreadPoolExecutor(CHECKS_AT_ONCE) as executor, self._reading():
            gone = [path for path, exists in zip(paths, executor.map(self._exists, paths), strict=True) if not exists]
        if gone:
            named = ", ".join(gone[:NAMED_FILES]) + (", …" if len(gone) > NAMED_FILES else "")
            raise Fatal(
                f"{len(gone)} of the {len(paths)} files of version {version} no longer exist ({named}): vacuum deletes "
                f"what no retained version needs; choose a later version, or {self._resync}"
            )

    def _exists(self, path: str) -> bool:
        try:
            obstore.head(self._location.store, path)
        except FileNotFoundError:
            return False
        return True

    def _actions(self, now: Snapshot, restored: Snapshot, version: int, commit_id: str) -> list[Action]:
        now_ms = int(self._clock() * 1000)
        info: dict[str, Any] = {
            "timestamp": now_ms,
            "operation": RESTORE,
            "operationParameters": {"version": version},
            "engineInfo": ENGINE,
            "txnId": commit_id,
            "cdcTopic": self._topic.name,
            "cdcRanges": {},
        }
        watermark_ms = table_watermark(restored.txns, self._topic.topic_id, self._topic.partitions)
        if watermark_ms is not None:
            info[COMMIT_INFO_KEY] = watermark_ms
        changed = {name: to for name, to in restored.txns.items() if now.txns.get(name) != to}
        return [
            Action(commit_info=info),
            Action(meta_data=restored.metadata),
            *(Action(txn=Transaction(name, to, now_ms)) for name, to in changed.items()),
            *(Action(remove=removal(now.files[path], now_ms, data_change=True)) for path in _others(now, restored)),
            *(Action(add=replace(restored.files[path], data_change=True)) for path in _others(restored, now)),
        ]

    @property
    def _resync(self) -> str:
        if self._mode == HISTORY:
            return "move the history away, and a new one begins"
        return f"resync: `delta-writer resync {self._identity.pipeline} --collection {self._identity.collection}`"

    def _reading(self) -> AbstractContextManager[None]:
        return store_errors(f"reading {self._location.url}")


def _restored_txns(now: Snapshot, then: Snapshot) -> dict[str, int]:
    """Return the `txn`s of then. One of ours that came later cannot be taken out of a log: it says nothing instead."""
    absent = {name: 0 if is_offset(name) else -1 for name in now.txns if is_ours(name)}
    return now.txns | absent | then.txns


def _others(of: Snapshot, than: Snapshot) -> list[str]:
    """Return the data files that one state has and the other has not, or has with another deletion vector."""
    return [
        path for path, file in of.files.items() if path not in than.files or _vector(file) != _vector(than.files[path])
    ]


def _vector(file: AddFile) -> str | None:
    return None if file.deletion_vector is None else file.deletion_vector.unique_id


def _columns(metadata: Metadata | None) -> set[str]:
    return set() if metadata is None else {field["name"] for field in json.loads(metadata.schema_string)["fields"]}
