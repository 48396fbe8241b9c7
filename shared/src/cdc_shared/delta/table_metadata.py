"""The table's own metadata: whose it is, what it may contain, and how it comes to be."""

import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from cdc_shared.delta.actions import Metadata, Protocol, TableFormat
from cdc_shared.delta.offsets import StaleRules
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.documents import DocumentSchema, from_delta_schema, to_delta_schema
from cdc_shared.errors import Fatal, ResyncNeeded

PIPELINE: Final = "cdc.pipeline"
DATABASE: Final = "cdc.database"
COLLECTION: Final = "cdc.collection"
MODE: Final = "cdc.sinkMode"
TOPIC_PARTITIONS: Final = "cdc.topicPartitions"
HISTORY: Final = "history"
"""The `MODE` of a history table."""
RESTORE_ID: Final = "cdc.restoreId"
"""Names the last restore, or acceptance of rows that others changed: what was derived from the table's rows before it
no longer holds."""

RESYNC_SINCE: Final = "cdc.resyncSince"
"""`<id of the notification topic>:<offset>`: only snapshots begun there or later make up for what the stream lacks."""

MASKED: Final = "cdc.masked"
"""Names the version of the rules whose masks all rows have: rows of an older one must not come any more."""

KEY_MASK: Final = "cdc.keyMask"
"""Tells how the rows' keys were made: a fingerprint of the rule that hashes `_id` and of its secret."""

OWN_PROPERTIES: Final = ("cdc.", "delta.enableDeletionVectors")
"""How the properties begin that nobody else may change."""

COLUMN_MAPPING: Final = "delta.columnMapping.mode"
_DELETION_VECTORS: Final = "deletionVectors"
# Beside deletion vectors, those that ask nothing of a writer until a property or a column uses them, which is checked:
# delta-rs adds them all when an operator sets any property.
_KNOWN_FEATURES: Final = frozenset({_DELETION_VECTORS, "appendOnly", "invariants", "variantType"})
_INVARIANTS: Final = '"delta.invariants"'
_PROPERTIES: Final = {
    # Replaced vectors stay in every checkpoint until this has passed; time travel rests on our own vacuum instead.
    "delta.deletedFileRetentionDuration": "interval 1 hours",
    "delta.logRetentionDuration": "interval 30 days",
}


@dataclass(frozen=True, slots=True)
class TableIdentity:
    """Whose rows a table holds."""

    pipeline: str
    database: str
    collection: str


def protocol_for(mode: str) -> Protocol:
    """Return the protocol of a new table: deletion vectors where they are written, else the oldest that serves."""
    if mode == "deletion_vectors":
        return Protocol(3, 7, [_DELETION_VECTORS], [_DELETION_VECTORS])
    return Protocol(1, 2)


def new_metadata(identity: TableIdentity, schema: DocumentSchema, mode: str, partitions: int, now_ms: int) -> Metadata:
    """Return the metadata of a table to be made; `schema_history.change_schema` puts its schema in force."""
    configuration = dict(_PROPERTIES)
    if mode == "deletion_vectors":
        configuration["delta.enableDeletionVectors"] = "true"
    configuration |= {
        PIPELINE: identity.pipeline,
        DATABASE: identity.database,
        COLLECTION: identity.collection,
        MODE: mode,
        TOPIC_PARTITIONS: str(partitions),
    }
    return Metadata(
        id=str(uuid.uuid4()),
        format=TableFormat("parquet", {}),
        schema_string=to_delta_schema(schema, history=mode == HISTORY),
        partition_columns=[],
        configuration=configuration,
        created_time=now_ms,
    )


def with_schema(metadata: Metadata, schema: DocumentSchema) -> Metadata:
    """Return the metadata with another schema; `schema_history.change_schema` puts it in force."""
    schema_string = to_delta_schema(schema, history=metadata.configuration.get(MODE) == HISTORY)
    return msgspec.structs.replace(metadata, schema_string=schema_string)


def restored_metadata(
    then: Metadata, now: Metadata | None, restore_id: str, requests: Collection[str] = ()
) -> Metadata:
    """Return the metadata of a table restored to how it was `then`: its schema, and the properties that are ours.

    Those that people set, and `requests` of ours, stay as they are now. `schema_history.change_schema` puts it in
    force.
    """
    current = {} if now is None else now.configuration
    own = {name: value for name, value in then.configuration.items() if name not in requests}
    kept = {name: value for name, value in current.items() if name in requests or not name.startswith(OWN_PROPERTIES)}
    return msgspec.structs.replace(then, configuration=own | kept | {RESTORE_ID: restore_id})


def rows_identity(metadata: Metadata) -> str:
    """Return a name for the table's rows as one history: the table's id, and another one after each restore
    and acceptance."""
    restore_id = metadata.configuration.get(RESTORE_ID)
    return metadata.id if restore_id is None else f"{metadata.id}-{restore_id}"


def masked_by(metadata: Metadata | None) -> int:
    """Return the version of the rules whose masks all rows have; 0 when none was ever asked for."""
    return 0 if metadata is None else int(metadata.configuration.get(MASKED, "0"))


def check_masks(metadata: Metadata | None, rules_version: int, url: str) -> None:
    """Check that rows made by this version of the rules have the masks that all rows of the table have.

    Raises:
        StaleRules: they lack those of newer rules.
    """
    masked = masked_by(metadata)
    if rules_version < masked:
        raise StaleRules(
            f"all rows of {url} have the masks of version {masked} of the rules, and version {rules_version} is in "
            f"force here; nothing is written until version {masked} or a newer one is: see whether it was refused "
            "here, or publish the pipeline again"
        )


def check_key_mask(metadata: Metadata | None, key_mask: str, url: str) -> None:
    """Check that a batch's rows have keys of the same making as the table's (`Rules.key_mask`; empty: plain).

    Raises:
        Fatal: they have not: no row of the table would be found by its key.
    """
    if metadata is None or metadata.configuration.get(KEY_MASK, "") == key_mask:
        return
    raise Fatal(
        f"a hash rule for /_id, or its secret, was added, changed or taken away since {url} was made: its rows would "
        "never be found by their keys again, and each document would get a second one. Put the rule and its secret "
        "back, or publish the pipeline under another name, whose tables start anew"
    )


def owner_of(metadata: Metadata) -> TableIdentity:
    """Return whose rows a table says it holds; empty names where it says nothing."""
    return TableIdentity(*(metadata.configuration.get(key, "") for key in (PIPELINE, DATABASE, COLLECTION)))


def schema_of(metadata: Metadata | None) -> DocumentSchema:
    """Return the document schema of a table; the empty one for a table that does not exist."""
    return DocumentSchema(()) if metadata is None else from_delta_schema(metadata.schema_string)


def check_supported(snapshot: Snapshot, identity: TableIdentity, mode: str, partitions: int, url: str) -> None:
    """Check that the table is this collection's, in this mode, and has no feature that the writer would violate.

    Raises:
        Fatal: it is not, and what a person can do. Nothing was written.
    """
    metadata, protocol = snapshot.metadata, snapshot.protocol
    if metadata is None or protocol is None:
        raise Fatal(f"the log of {url} names no schema or no protocol: the table is damaged")
    configuration = metadata.configuration
    _check_owner(metadata, identity, url)
    if configuration[MODE] != mode:
        raise Fatal(
            f"the table at {url} was made with sink.mode {configuration[MODE]}, the pipeline says {mode}; "
            f"set sink.mode back, or resync into another sink.root"
        )
    if configuration[TOPIC_PARTITIONS] != str(partitions):
        raise ResyncNeeded(
            f"resync needed: the change topic of {url} had {configuration[TOPIC_PARTITIONS]} partitions and now has "
            f"{partitions}, so keys have moved between partitions; run `delta-writer resync {identity.pipeline}`"
        )
    strange = unknown_features(protocol) + _strange_properties(configuration)
    if _INVARIANTS in metadata.schema_string:
        strange.append("column invariants")
    if strange or metadata.partition_columns:
        named = strange or [f"partitioning by {', '.join(metadata.partition_columns)}"]
        raise Fatal(f"the table at {url} has features that the delta-writer does not write: {', '.join(named)}")


def unknown_features(protocol: Protocol) -> list[str]:
    """Return the table features that the writer does not know, in order."""
    return sorted({*(protocol.reader_features or ()), *(protocol.writer_features or ())} - _KNOWN_FEATURES)


def _check_owner(metadata: Metadata, identity: TableIdentity, url: str) -> None:
    owner = owner_of(metadata)
    if owner == identity and MODE in metadata.configuration and TOPIC_PARTITIONS in metadata.configuration:
        return
    whose = f"belongs to {owner}" if owner.pipeline else "was not made by the delta-writer"
    raise Fatal(
        f"the table at {url} {whose}; nothing was written. Its schema: {_summary(metadata.schema_string)}. The schema "
        f"that a table of {identity.database}.{identity.collection} starts from: "
        f"{_summary(to_delta_schema(DocumentSchema(())))}. Move that table away, or give the pipeline another "
        "sink.root"
    )


def _summary(schema_string: str) -> str:
    """Return the columns of a Delta schema as `name type, …`."""
    fields = json.loads(schema_string)["fields"]
    kinds = ((f["name"], f["type"] if isinstance(f["type"], str) else f["type"]["type"]) for f in fields)
    return ", ".join(f"{name} {kind}" for name, kind in kinds)


def _strange_properties(configuration: Mapping[str, str]) -> list[str]:
    set_properties = {
        "delta.enableChangeDataFeed": "true",
        "delta.appendOnly": "true",
        COLUMN_MAPPING: "name",
    }
    strange = [name for name, value in set_properties.items() if configuration.get(name, "").lower() == value]
    if configuration.get(COLUMN_MAPPING) == "id":
        strange.append(COLUMN_MAPPING)
    return strange + sorted(name for name in configuration if name.startswith("delta.constraints."))
