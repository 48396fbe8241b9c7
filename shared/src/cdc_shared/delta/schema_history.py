"""The history of a table's schema: what changed, when, and by which event.

Each change has a record `_cdc_schema/<version>-<commit id>.json` in the table's folder, which no reader of Delta tables
lists and no vacuum deletes (docs/adr/0016-schema-history.md). The table's property `cdc.schemaChange` names the last
one, and each names the one before it. A record is put before the commit that puts its schema in force, so whatever the
log names is there; one whose commit failed is named by nobody.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec
import obstore
from obstore.store import ObjectStore

from cdc_shared.delta.actions import Metadata
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.schema_diff import EventPosition, FieldChange, field_changes, schema_digest
from cdc_shared.documents.types import RESERVED_PREFIX

SCHEMA_VERSION: Final = "cdc.schemaVersion"
"""The table property that counts the changes of the schema; it never goes back."""
SCHEMA_CHANGE: Final = "cdc.schemaChange"
"""The table property that names the record of the last change, without directory and suffix."""
SCHEMA_DIGEST: Final = "cdc.schemaDigest"
"""The table property that names the schema (`schema_digest`) as this platform has put it in force."""
HISTORY_DIR: Final = "_cdc_schema"
_VERSION_DIGITS: Final = 10


class SchemaOperation(StrEnum):
    """What kind of change it was."""

    CREATED = "created"
    """The table was made."""
    WIDENED = "widened"
    """Documents showed fields that had no column."""
    PROMOTED = "promoted"
    """Columns were rewritten to a wider type."""
    MASKED = "masked"
    """Columns were rewritten under masks that came after their rows, and a masked value is of another type."""
    RESTORED = "restored"
    """The table was restored to an earlier version."""


@dataclass(frozen=True, slots=True)
class SchemaCause:
    """Why a schema changes.

    Attributes:
        commit_id: names the commit that is to put it in force.
        at_ms: the time, ms since 1970.
        rules_version: of the rules that made the rows.
        shown_by: the path of an added field → the first event whose document shows it.
    """

    operation: SchemaOperation
    commit_id: str
    at_ms: int
    rules_version: int = 0
    shown_by: Mapping[str, EventPosition] = field(default_factory=dict)


class SchemaChange(msgspec.Struct, frozen=True):
    """One change of a table's schema.

    Attributes:
        version: the schema's version (`cdc.schemaVersion`) from this change on.
        commit_id: as `txnId` in the `commitInfo` of the commit that put it in force (of a copy-on-write table: of the
            MERGE that was to follow it).
        previous: names the record of the change before, as `cdc.schemaChange` does; None for the first that has one.
        at_ms: when, ms since 1970.
        rules_version: the version of the rules that made the rows.
        fields: what changed, field by field.
        schema: the whole `schemaString`, in force from this change on.
    """

    version: int
    commit_id: str
    previous: str | None
    operation: SchemaOperation
    at_ms: int
    rules_version: int
    fields: tuple[FieldChange, ...]
    schema: str

    @property
    def name(self) -> str:
        """What `cdc.schemaChange` and the next record call it."""
        return f"{self.version:0{_VERSION_DIGITS}d}-{self.commit_id}"


def read_schema_history(store: ObjectStore) -> list[SchemaChange]:
    """Return the changes of the schema of the table at the root of `store`, oldest first.

    Empty when there is no table, or one that was made before histories were kept. When somebody has deleted records,
    it begins after the last one that is gone: its first change then names a `previous`. Reads the log and one object a
    change; lets the store's errors through.
    """
    metadata = DeltaLog(store).load().metadata
    changes: list[SchemaChange] = []
    change = None if metadata is None else last_change(store, metadata)
    while change is not None:
        changes.append(change)
        change = None if change.previous is None else _read(store, change.previous)
    return changes[::-1]


def last_change(store: ObjectStore, metadata: Metadata) -> SchemaChange | None:
    """Return the record that a table's metadata names; None when it names none, or the record is gone."""
    name = metadata.configuration.get(SCHEMA_CHANGE)
    return None if name is None else _read(store, name)


def put_change(store: ObjectStore, change: SchemaChange) -> None:
    """Put a record in its place, before the commit that names it. Repeating that for one commit does nothing."""
    with suppress(obstore.exceptions.AlreadyExistsError):
        obstore.put(store, _path(change.name), msgspec.json.encode(change), mode="create", use_multipart=False)


def change_schema(before: Metadata | None, after: Metadata, cause: SchemaCause) -> tuple[Metadata, SchemaChange]:
    """Return the metadata that puts `after`'s schema in force in the place of `before`'s, and the record to put first.

    The version is one higher than any that the two have had.
    """
    configurations = [after.configuration] if before is None else [before.configuration, after.configuration]
    version = 1 + max(int(each.get(SCHEMA_VERSION, "0")) for each in configurations)
    changes = field_changes(None if before is None else before.schema_string, after.schema_string)
    change = SchemaChange(
        version=version,
        commit_id=cause.commit_id,
        previous=configurations[0].get(SCHEMA_CHANGE),
        operation=cause.operation,
        at_ms=cause.at_ms,
        rules_version=cause.rules_version,
        fields=tuple(
            msgspec.structs.replace(each, event=cause.shown_by.get(each.path) if each.change == "added" else None)
            for each in changes
            if not each.column.startswith(RESERVED_PREFIX)
        ),
        schema=after.schema_string,
    )
    properties = {
        SCHEMA_VERSION: str(version),
        SCHEMA_CHANGE: change.name,
        SCHEMA_DIGEST: schema_digest(after.schema_string),
    }
    return msgspec.structs.replace(after, configuration={**after.configuration, **properties}), change


def _read(store: ObjectStore, name: str) -> SchemaChange | None:
    try:
        body = bytes(obstore.get(store, _path(name)).bytes())
    except FileNotFoundError:
        return None
    return msgspec.json.decode(body, type=SchemaChange)


def _path(name: str) -> str:
    return f"{HISTORY_DIR}/{name}.json"
