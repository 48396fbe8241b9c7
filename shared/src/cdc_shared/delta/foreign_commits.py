"""Commits of other programs: which of them a writer can follow, and which must stop it.

A table's offsets say which events are in it, and every other program leaves them as they are. So whoever else changes
rows (DELETE, MERGE, INSERT, an overwrite, a RESTORE, which sets rows back but no `txn`) makes them untrue, and going on
would lose or keep what it should not. Moving rows (OPTIMIZE, `dataChange: false`), vacuum and table properties that the
writer supports do no harm. Whose an entry is, it says itself: ours has our engine's name, or what copy-on-write gives
to the MERGE and DELETE commits that delta-rs makes for it: a `txn` of ours, or `cdcTopic`.

What changed rows may be accepted by a person (`delta-writer accept`), who then has the collection reconciled: an entry
of ours on top of it says so, and what lies below that is not judged again.

A schema that somebody changed is told also when the entry that did it is gone: the table's properties hold a digest of
the schema that this platform has put in force, and the record of its last change (`schema_history`) the schema itself.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from obstore.store import ObjectStore

from cdc_shared.delta.actions import Action, Metadata
from cdc_shared.delta.log import DeltaLog, VersionGone
from cdc_shared.delta.offsets import is_ours
from cdc_shared.delta.schema_diff import field_changes, schema_digest, told
from cdc_shared.delta.schema_history import SCHEMA_DIGEST, last_change
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_metadata import (
    COLUMN_MAPPING,
    HISTORY,
    OWN_PROPERTIES,
    TableIdentity,
    unknown_features,
)
from cdc_shared.errors import Fatal

ENGINE: Final = "cdc-delta-writer"
"""What the entries of this platform name as their engine, whichever of its programs wrote them."""
RESTORE: Final = "RESTORE"
DELETE: Final = "DELETE"


class ForeignCommit(Fatal):
    """Another program changed rows or the schema. Nothing is written until the table was put back."""


class CommitGuard:
    """Judges the entries of one table's log that this platform did not write.

    People may DELETE from a history table: nothing in it follows from its older rows.
    """

    def __init__(self, url: str, store: ObjectStore, identity: TableIdentity, mode: str) -> None:
        """`store`: the table's; what the schema should be is read there when it is not that."""
        self._url = url
        self._store = store
        self._identity = identity
        self._mode = mode

    def check_newest(self, log: DeltaLog, table: Snapshot) -> None:
        """Check the entries from the last of ours up to the table's: those of others that no writer of ours has seen.

        Normally the newest entry is ours, and one is read. Entries that log clean-up has deleted are passed over; what
        they did to the schema is found in the schema itself. A schema that was changed and put back is as good as
        before.

        Raises:
            ForeignCommit: see `check`.
        """
        foreign = _since_ours(log, table)
        for number, entry in foreign:
            self._check_rows(number, entry)
        self._check_schemas(log, table, foreign)

    def row_changes(self, log: DeltaLog, table: Snapshot) -> list[tuple[int, list[Action]]]:
        """Return the entries of others, since the last of ours, that changed rows: those that `check_newest` refuses.

        Raises:
            ForeignCommit: others changed the schema, or properties of ours.
        """
        foreign = _since_ours(log, table)
        self._check_schemas(log, table, foreign)
        return [(number, entry) for number, entry in foreign if self._has_changed_rows(entry)]

    def check(self, version: int, entry: Sequence[Action], metadata: Metadata | None) -> None:
        """Check one entry, which follows entries that passed. `metadata`: the table's before it, where it is known.

        Raises:
            ForeignCommit: it is another program's and changes rows or the schema. Says which, whose, and the remedy.
        """
        if is_own(entry):
            return
        self._check_rows(version, entry)
        if metadata is not None:
            protocol = next((action.protocol for action in entry if action.protocol), None)
            self._check_metadata(version, entry, metadata, Snapshot(version, protocol, _metadata_of(entry)))

    def _check_rows(self, version: int, entry: Sequence[Action]) -> None:
        if self._has_changed_rows(entry):
            what = "changed rows, so the table's offsets no longer say what is in it"
            raise self._refusal(version, entry, what, self._restore(version) + self._accept)

    def _has_changed_rows(self, entry: Sequence[Action]) -> bool:
        if self._mode == HISTORY and operation_of(entry) == DELETE:
            return False
        return operation_of(entry).upper() == RESTORE or any(_changes_rows(action) for action in entry)

    def _check_schemas(self, log: DeltaLog, table: Snapshot, foreign: Sequence[tuple[int, list[Action]]]) -> None:
        """Check what these entries, the newest, have done to the metadata."""
        altered = [(number, entry, after) for number, entry in foreign if (after := _metadata_of(entry)) is not None]
        if altered and (before := _metadata_at(log, foreign[0][0] - 1)) is not None:
            for number, entry, after in altered:
                if _differences(before, after):
                    self._check_metadata(number, entry, before, table)
        if table.metadata is not None:
            self._check_schema(table.version, table.metadata)

    def _check_metadata(self, version: int, entry: Sequence[Action], before: Metadata, now: Snapshot) -> None:
        """Check what has become of the metadata since `entry`, which changed it."""
        if now.metadata is None or not (found := _differences(before, now.metadata)):
            return
        since = f"up to version {now.version}: " * (now.version > version)
        what = f"changed the schema, or properties of this platform ({since}{'; '.join(found)})"
        features = [] if now.protocol is None else unknown_features(now.protocol)
        remedy = (
            f"The table now has {', '.join(features)}, which no program can take back: move it away and resync the "
            "collection"
            if features
            else self._restore(version)
        )
        raise self._refusal(version, entry, what, remedy)

    def _check_schema(self, version: int, metadata: Metadata) -> None:
        """Check that the schema is the one that this platform has put in force last, where the table says which."""
        if SCHEMA_DIGEST not in metadata.configuration or _is_as_recorded(metadata):
            return
        last = last_change(self._store, metadata)
        found = (
            "the record of what it should be is gone"
            if last is None
            else f"since schema version {last.version}: {told(field_changes(last.schema, metadata.schema_string))}"
        )
        raise ForeignCommit(
            f"version {version} of {self._url} has a schema that another program has changed ({found}); which commit "
            "did it, the table's log no longer says. Nothing was written since. To go on: put the schema back as "
            f"`delta-writer schema-history {self._table} --json` shows it, and publish the pipeline again; or "
            f"`delta-writer unpublish {self._identity.pipeline}`, move the table away, publish the pipeline again and "
            "resync the collection"
        )

    @property
    def _table(self) -> str:
        """The arguments that name the table to the commands."""
        return f"{self._identity.pipeline} {self._identity.collection}" + " --history" * (self._mode == HISTORY)

    def _restore(self, version: int) -> str:
        return (
            f"To put it back: `delta-writer unpublish {self._identity.pipeline}`, `delta-writer restore {self._table} "
            f"--version {version - 1} --spec FILE` (the YAML file of its spec), `delta-writer publish FILE`; or "
            "move the table away before it is published again, and resync the collection"
        )

    @property
    def _accept(self) -> str:
        if self._mode == HISTORY:
            return ""
        return (
            f". To keep it, and have reconciliation find and repair what is wrong: `delta-writer accept {self._table} "
            "--spec FILE`"
        )

    def _refusal(self, version: int, entry: Sequence[Action], what: str, remedy: str) -> ForeignCommit:
        return ForeignCommit(
            f"version {version} of {self._url} was committed by another program ({operation_of(entry)}, engine "
            f"{engine_of(entry)}) and {what}; nothing was written since. {remedy}"
        )


def is_own(entry: Sequence[Action]) -> bool:
    """Tell whether this platform wrote the entry."""
    infos = [action.commit_info for action in entry if action.commit_info]
    return any(info.get("engineInfo") == ENGINE or "cdcTopic" in info for info in infos) or any(
        action.txn is not None and is_ours(action.txn.app_id) for action in entry
    )


def _info(entry: Sequence[Action]) -> dict[str, Any]:
    return next((action.commit_info for action in entry if action.commit_info), {})


def operation_of(entry: Sequence[Action]) -> str:
    """Return what the entry says it did."""
    return str(_info(entry).get("operation", "an unnamed operation"))


def engine_of(entry: Sequence[Action]) -> str:
    """Return which program the entry says it is of."""
    info = _info(entry)
    return str(info.get("engineInfo") or info.get("clientVersion") or "unnamed")


def _since_ours(log: DeltaLog, table: Snapshot) -> list[tuple[int, list[Action]]]:
    """Return the newest entries of others, up to the last of ours, in order; those that clean-up left."""
    foreign: list[tuple[int, list[Action]]] = []
    version = table.version
    while version >= 0 and (entry := log.read_entry(version)) is not None and not is_own(entry):
        foreign.insert(0, (version, entry))
        version -= 1
    return foreign


def _changes_rows(action: Action) -> bool:
    file = action.add or action.remove
    return file is not None and file.data_change


def _metadata_of(entry: Sequence[Action]) -> Metadata | None:
    return next((action.meta_data for action in entry if action.meta_data is not None), None)


def _metadata_at(log: DeltaLog, version: int) -> Metadata | None:
    try:
        return log.load_version(version).metadata
    except VersionGone:
        return None


def _differences(before: Metadata, after: Metadata) -> list[str]:
    """Say what was changed that no other program may change. Other properties are checked elsewhere."""
    found = []
    if before.id != after.id:
        found.append("the table was replaced by another one")
    if before.partition_columns != after.partition_columns:
        found.append(f"it is partitioned by {', '.join(after.partition_columns) or 'nothing'}")
    for name in sorted({*before.configuration, *after.configuration}):
        was, is_now = before.configuration.get(name), after.configuration.get(name)
        if name.startswith((*OWN_PROPERTIES, COLUMN_MAPPING)) and was != is_now:
            found.append(f"property {name} was {was or 'not set'} and is {is_now or 'not set'}")
    # As JSON means it: engines write the same schema in different words.
    if json.loads(before.schema_string) != json.loads(after.schema_string) and not _is_as_recorded(after):
        changes = field_changes(before.schema_string, after.schema_string)
        if changes or not found:
            found.append(told(changes))
    return found


def _is_as_recorded(metadata: Metadata) -> bool:
    """Tell whether the schema is the one that this platform has put in force last."""
    return metadata.configuration.get(SCHEMA_DIGEST) == schema_digest(metadata.schema_string)
