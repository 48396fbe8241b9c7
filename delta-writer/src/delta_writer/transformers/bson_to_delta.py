"""Events of one collection → the rows and deletes of one commit, in the table's columns."""

import uuid
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cdc_shared.documents import DocumentSchema, decode, parquet_schema
from delta_writer.transformers.change_batch import ChangeEvents, EncodedBatch
from delta_writer.writer.key_hash import hash_keys, last_of_each_key

_TIMESTAMP: Final = pa.timestamp("us", "UTC")


def encode_batch(
    events: ChangeEvents, table_schema: DocumentSchema, known_schema: DocumentSchema
) -> tuple[EncodedBatch, Mapping[int, str]]:
    """Encode the last event of each key; return the batch, and why (by position in `events`) documents are no JSON.

    A key whose last document is invalid takes the state of the event before it. `known_schema` is `table_schema` or a
    wider one that an earlier batch came back with, which saves looking for types again.
    """
    hashes = hash_keys(events.keys)
    valid = np.ones(len(events), np.bool_)
    invalid: dict[int, str] = {}
    is_delete = np.array([document is None for document in events.documents], np.bool_)
    while True:
        candidates = np.flatnonzero(valid)
        last = candidates[last_of_each_key(hashes[candidates])]
        upserts, deletes = last[~is_delete[last]], last[is_delete[last]]
        decoded = decode([events.documents[i] or "" for i in upserts], known_schema)
        if not decoded.invalid:
            break
        rejected = {int(upserts[row]): reason for row, reason in decoded.invalid.items()}
        invalid |= rejected
        valid[list(rejected)] = False
    batch = EncodedBatch(
        base_schema=table_schema,
        schema=decoded.schema,
        rows=_rows(events, upserts, decoded.table, decoded.rescued, decoded.schema),
        row_hashes=hashes[upserts],
        deleted_keys=[events.keys[i] for i in deletes],
        deleted_hashes=hashes[deletes],
        ranges=events.ranges,
        must_commit=events.must_commit,
        commit_id=str(uuid.uuid4()),
        rescued_values=decoded.stats.rescued_values,
        walked_rows=decoded.stats.walked_rows,
    )
    return batch, invalid


def _rows(
    events: ChangeEvents,
    upserts: npt.NDArray[np.intp],
    documents: pa.Table,
    rescued: pa.StringArray,
    schema: DocumentSchema,
) -> pa.Table:
    """Return the documents with the `_cdc_` columns, in the order of the table's schema."""
    columns: dict[str, Any] = {name: documents.column(name) for name in documents.column_names}
    source_ts = pa.array(np.asarray(events.source_ts_ms, np.int64)[upserts] * 1000)
    columns |= {
        "_cdc_key": pa.array([events.keys[i] for i in upserts], pa.string()),
        "_cdc_source_ts": source_ts.cast(_TIMESTAMP),
        "_cdc_partition": pa.array(np.asarray(events.partitions, np.int32)[upserts]),
        "_cdc_offset": pa.array(np.asarray(events.offsets, np.int64)[upserts]),
        "_cdc_rules_version": pa.nulls(len(upserts), pa.int32()),
        "_cdc_rescued": rescued,
    }
    target = parquet_schema(schema)
    return pa.Table.from_arrays([columns[field.name] for field in target], schema=target)
