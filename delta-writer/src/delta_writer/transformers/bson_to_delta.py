"""Events of one collection → the rows and deletes of one commit, in the table's columns."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cdc_shared.dead_letters.rejection import ReasonCode, Rejection
from cdc_shared.delta.key_hash import KeyHashes, hash_keys, last_of_each_key
from cdc_shared.delta.offsets import OffsetRange
from cdc_shared.delta.schema_diff import EventPosition
from cdc_shared.documents import DELETE, Decoded, DocumentSchema, decode, parquet_schema
from cdc_shared.documents.policies import NONE, FieldPolicies
from delta_writer.transformers.change_batch import (
    NOTHING_CONFIRMED,
    SNAPSHOT_READ,
    ChangeEvents,
    ConfirmedRows,
    EncodedBatch,
)
from delta_writer.validators.dirty_data_detector import malformed_documents

_TIMESTAMP: Final = pa.timestamp("us", "UTC")
_NO_HASHES: Final[KeyHashes] = np.empty((0, 2), np.uint64)
_NOT_REJECTED: Final[Mapping[int, Rejection]] = {}

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DecodedEvents:
    """Events with all of their documents decoded; rules may then have rejected and changed some.

    Attributes:
        known_schema: what the decoder was given.
        source_schema: what became of it: the schema of the documents as they came.
        texts: the documents as they came, by row.
        decoded: the documents; in a schema of their own once rules have changed them.
        rows: the decoder's row of each event; -1 for a delete, and for a document that was not decoded.
        rejected: why documents are not applied, by position in `events`.
        rules_version: of the rules that were applied; 0 when there never were any.
        key_mask: `Rules.key_mask`.
        changed_values: (kind of rule, field) → the values that it changed.
        shown_by: as in `EncodedBatch`, once they are fitted into the table's columns.
    """

    events: ChangeEvents
    known_schema: DocumentSchema
    source_schema: DocumentSchema
    texts: list[str]
    decoded: Decoded
    rows: Positions
    rejected: Mapping[int, Rejection]
    rules_version: int = 0
    key_mask: str = ""
    changed_values: Mapping[tuple[str, str], int] = field(default_factory=dict)
    shown_by: Mapping[str, EventPosition] = field(default_factory=dict)

    def events_of_rows(self) -> Positions:
        """Return the event of each row."""
        return np.flatnonzero(self.rows >= 0)

    def without(self, rejected: Mapping[int, Rejection]) -> "DecodedEvents":
        """Return the events with all of these rejected, and no rows of theirs. None of the rows may have conflicts."""
        events = self.events_of_rows()
        left = np.flatnonzero(~np.isin(events, list(rejected)))
        rows = np.full(len(self.events), -1, np.int64)
        rows[events[left]] = np.arange(len(left))
        taken = pa.array(left, pa.int64())
        decoded = replace(
            self.decoded, table=self.decoded.table.take(taken), rescued=self.decoded.rescued.take(taken), invalid={}
        )
        texts = [self.texts[row] for row in left.tolist()]
        return replace(self, texts=texts, decoded=decoded, rows=rows, rejected=rejected)


def decode_events(
    events: ChangeEvents,
    known_schema: DocumentSchema,
    rejected: Mapping[int, Rejection] = _NOT_REJECTED,
    policies: FieldPolicies = NONE,
) -> DecodedEvents:
    """Decode every document that is not `rejected` already, also one that a later event supersedes.

    Which columns come to be, and what is a dead letter, must not depend on where a batch happens to end.
    `known_schema` is a table's, or a wider one that an earlier batch came back with, which saves looking for types
    again.
    """
    documents = [i for i, document in enumerate(events.documents) if document is not None and i not in rejected]
    texts = [events.documents[i] or "" for i in documents]
    decoded = decode(texts, known_schema, policies=policies)
    rows = np.full(len(events), -1, np.int64)
    rows[documents] = np.arange(len(documents))
    malformed = malformed_documents({documents[row]: reason for row, reason in decoded.invalid.items()})
    return DecodedEvents(events, known_schema, decoded.schema, texts, decoded, rows, {**rejected, **malformed})


def encode_batch(
    source: DecodedEvents,
    table_schema: DocumentSchema,
    stands: Mapping[int, int] | None = None,
    *,
    history: bool = False,
    rejected_deletes: bool = False,
) -> EncodedBatch:
    """Encode the last event of each key for the table of the current state, or with `history` every event.

    `stands` tells of partitions where the table stood when they were assigned: what lies before that is in it already.
    A key whose last document is rejected takes the state of the event before it, or with `rejected_deletes` has no row;
    one whose last document does not match a filter has no row.
    """
    events, decoded = source.events, source.decoded
    ranges, beyond = _beyond(source.events, stands or {})
    rejected = np.zeros(len(events), np.bool_)
    rejected[list(source.rejected)] = True
    if not history:  # to the current state a document that does not match is as good as deleted
        rejected[[i for i, why in source.rejected.items() if why.code is ReasonCode.FILTERED]] = False
    if events.history_only and not history:
        beyond = np.setdiff1d(beyond, list(events.history_only))
    taken = beyond if rejected_deletes and not history else beyond[~rejected[beyond]]
    upserts, deletes, hashes = taken, taken[:0], _NO_HASHES
    stamps: Mapping[int, int] = {}
    confirmed = NOTHING_CONFIRMED
    if not history:
        hashes = hash_keys(events.keys)
        last = taken[last_of_each_key(hashes[taken])]
        has_row = (source.rows[last] >= 0) & ~rejected[last]
        upserts, deletes = last[has_row], last[~has_row]
        if source.rejected and not rejected_deletes:
            stamps, confirmed = _confirmations(events, hashes, beyond[rejected[beyond]], last)
    return EncodedBatch(
        base_schema=table_schema,
        schema=decoded.schema,
        rows=_rows(source, upserts, stamps, history=history),
        row_hashes=_NO_HASHES if history else hashes[upserts],
        deleted_keys=[events.keys[i] for i in deletes],
        deleted_hashes=_NO_HASHES if history else hashes[deletes],
        ranges=ranges,
        must_commit=events.must_commit,
        watermarks={p: time_ms for p, time_ms in events.watermarks.items() if p in ranges},
        commit_id=str(uuid.uuid4()),
        rescued_values=decoded.stats.rescued_values,
        walked_rows=decoded.stats.walked_rows,
        rules_version=source.rules_version,
        key_mask=source.key_mask,
        confirmed=confirmed,
        shown_by=source.shown_by,
    )


def _confirmations(
    events: ChangeEvents, hashes: KeyHashes, rejected: Positions, last: Positions
) -> tuple[dict[int, int], ConfirmedRows]:
    """A snapshot has read these documents, so they exist: the rows of their keys must outlast its sweep.

    The sweep deletes rows whose event lies before the snapshot. `last` are the events that decide a key's row in this
    batch. Returns which of them are to stand at a later, rejected read; and the keys whose row, if it has one, is in
    the table.
    """
    reads = rejected[[events.ops[i] == SNAPSHOT_READ for i in rejected]]
    reads = reads[last_of_each_key(hashes[reads])]
    if not len(reads):
        return {}, NOTHING_CONFIRMED
    deciding = {hashes[i].tobytes(): int(i) for i in last}
    stamps, confirmed = {}, []
    for read in reads.tolist():
        event = deciding.get(hashes[read].tobytes())
        if event is None:
            confirmed.append(read)
        elif event < read:
            stamps[event] = read
    partitions = np.array([events.partitions[i] for i in confirmed], np.int32)
    offsets = np.array([events.offsets[i] for i in confirmed], np.int64)
    return stamps, ConfirmedRows([events.keys[i] for i in confirmed], hashes[confirmed], partitions, offsets)


def _beyond(events: ChangeEvents, stands: Mapping[int, int]) -> tuple[dict[int, OffsetRange], Positions]:
    """Return what the ranges cover from where the table stood on, and the positions of the events there."""
    if all(stands.get(partition, 0) <= part.start for partition, part in events.ranges.items()):
        return dict(events.ranges), np.arange(len(events))
    starts = np.array([stands.get(partition, 0) for partition in events.partitions], np.int64)
    ranges = {
        partition: OffsetRange(max(part.start, stands.get(partition, 0)), part.end)
        for partition, part in events.ranges.items()
        if stands.get(partition, 0) <= part.end
    }
    return ranges, np.flatnonzero(np.asarray(events.offsets, np.int64) >= starts)


def _rows(source: DecodedEvents, taken: Positions, stamps: Mapping[int, int], *, history: bool) -> pa.Table:
    """Return the rows of the events `taken`, with the `_cdc_` columns; a delete's has no document.

    An event in `stamps` says where it lay as the other event there does.
    """
    events, decoded = source.events, source.decoded
    documents, rescued = decoded.table, decoded.rescued
    rows = source.rows[taken]
    if len(rows) != len(rescued) or (rows < 0).any():
        chosen = pa.array(rows, pa.int64(), mask=rows < 0)
        documents, rescued = documents.take(chosen), rescued.take(chosen)
    columns: dict[str, Any] = {name: documents.column(name) for name in documents.column_names}
    places = np.array([stamps.get(i, i) for i in taken.tolist()], np.int64) if stamps else taken
    source_ts = pa.array(np.asarray(events.source_ts_ms, np.int64)[taken] * 1000)
    columns |= {
        "_cdc_key": pa.array([events.keys[i] for i in taken], pa.string()),
        "_cdc_source_ts": source_ts.cast(_TIMESTAMP),
        "_cdc_partition": pa.array(np.asarray(events.partitions, np.int32)[places]),
        "_cdc_offset": pa.array(np.asarray(events.offsets, np.int64)[places]),
        "_cdc_rules_version": _version_column(source.rules_version, len(taken)),
        "_cdc_rescued": rescued,
    }
    if history:
        # A re-read that found no document is a delete like any other: what counts is that the document was gone.
        ops = [DELETE if source.rows[i] < 0 else events.ops[i] for i in taken]
        columns["_cdc_op"] = pa.array(ops, pa.string())
    target = parquet_schema(decoded.schema, history=history)
    return pa.Table.from_arrays([columns[field.name] for field in target], schema=target)


def _version_column(rules_version: int, rows: int) -> Any:
    return pa.array(np.full(rows, rules_version, np.int32)) if rules_version else pa.nulls(rows, pa.int32())
