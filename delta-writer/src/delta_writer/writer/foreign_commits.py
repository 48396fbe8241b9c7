"""Commits of other programs: which of them a writer can follow, and which must stop it.

A table's offsets say which events are in it, and every other program leaves them as they are. So whoever else changes
rows (DELETE, MERGE, INSERT, an overwrite, a RESTORE, which sets rows back but no `txn`) makes them untrue, and going on
would lose or keep what it should not. Moving rows (OPTIMIZE, `dataChange: false`), vacuum and table properties that the
writer supports do no harm. Whose an entry is, it says itself: ours has our engine's name, or what copy-on-write gives
to the MERGE and DELETE commits that delta-rs makes for it: a `txn` of ours, or `cdcTopic`.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from cdc_shared.delta.actions import Action, Metadata
from cdc_shared.delta.log import DeltaLog, VersionGone
from cdc_shared.errors import Fatal
from delta_writer.writer.offsets import is_ours
from delta_writer.writer.table_metadata import HISTORY, OWN_PROPERTIES, TableIdentity

ENGINE: Final = "cdc-delta-writer"
RESTORE: Final = "RESTORE"
DELETE: Final = "DELETE"


class ForeignCommit(Fatal):
    """Another program changed rows or the schema. Nothing is written until the table was put back."""


class CommitGuard:
    """Judges the entries of one table's log that this platform did not write.

    People may DELETE from a history table: nothing in it follows from its older rows.
    """

    def __init__(self, url: str, identity: TableIdentity, mode: str) -> None:
        self._url = url
        self._identity = identity
        self._mode = mode

    def check_newest(self, log: DeltaLog, version: int) -> None:
        """Check the entries from the last of ours up to `version`: those of others that no writer of ours has seen.

        Normally the newest entry is ours, and one is read. Entries that log clean-up has deleted are passed over.

        Raises:
            ForeignCommit: see `check`.
        """
        foreign: list[tuple[int, list[Action]]] = []
        while version >= 0 and (entry := log.read_entry(version)) is not None and not is_own(entry):
            foreign.append((version, entry))
            version -= 1
        metadata = _metadata_at(log, version) if any(_metadata_of(entry) for _, entry in foreign) else None
        for number, entry in reversed(foreign):
            self.check(number, entry, metadata)
            metadata = _metadata_of(entry) or metadata

    def check(self, version: int, entry: Sequence[Action], metadata: Metadata | None) -> None:
        """Check one entry, which follows entries that passed. `metadata`: the table's before it, where it is known.

        Raises:
            ForeignCommit: it is another program's and changes rows or the schema. Says which, whose, and the remedy.
        """
        if is_own(entry):
            return
        info = next((action.commit_info for action in entry if action.commit_info), {})
        operation = str(info.get("operation", "an unnamed operation"))
        if self._mode == HISTORY and operation == DELETE:
            return
        if operation.upper() == RESTORE or any(_changes_rows(action) for action in entry):
            raise self._refusal(version, operation, info, "changed rows")
        changed = _metadata_of(entry)
        if changed is not None and metadata is not None and not _only_properties(metadata, changed):
            raise self._refusal(version, operation, info, "changed the schema or properties of this platform")

    def _refusal(self, version: int, operation: str, info: dict[str, Any], what: str) -> ForeignCommit:
        engine = info.get("engineInfo") or info.get("clientVersion") or "unnamed"
        table = f"{self._identity.pipeline} {self._identity.collection}" + " --history" * (self._mode == HISTORY)
        return ForeignCommit(
            f"version {version} of {self._url} was committed by another program ({operation}, engine {engine}) and "
            f"{what}, so the table's offsets no longer say what is in it; nothing was written since. To put it back: "
            f"stop the pipeline's writers, run `delta-writer restore {table} --version {version - 1}`, "
            "and start them again; or move the table away and resync the collection"
        )


def is_own(entry: Sequence[Action]) -> bool:
    """Tell whether this platform wrote the entry."""
    infos = [action.commit_info for action in entry if action.commit_info]
    return any(info.get("engineInfo") == ENGINE or "cdcTopic" in info for info in infos) or any(
        action.txn is not None and is_ours(action.txn.app_id) for action in entry
    )


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


def _only_properties(before: Metadata, after: Metadata) -> bool:
    """Tell whether nothing was changed but names and properties that are not ours; those are checked elsewhere."""
    same_table = (before.id, before.partition_columns) == (after.id, after.partition_columns)
    return same_table and _own(before) == _own(after) and _schema(before) == _schema(after)


def _own(metadata: Metadata) -> dict[str, str]:
    return {name: value for name, value in metadata.configuration.items() if name.startswith(OWN_PROPERTIES)}


def _schema(metadata: Metadata) -> Any:
    """Return the schema as JSON means it: engines write the same one in different words."""
    return json.loads(metadata.schema_string)
