"""Events of one collection → the rows and deletes of one commit, in the table's columns."""

import uuid
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cdc_shared.documents import Decoded, DocumentSchema, decode, parquet_schema
from delta_writer.transformers.change_batch import ChangeEvents, EncodedBatch
from delta_writer.writer.key_hash import hash_keys, last_of_each_key

_TIMESTAMP: Final = pa.timestamp("us", "UTC")


def encode_batch(
    events: ChangeEvents, table_schema: DocumentSchema, known_schema: DocumentSchema
) -> tuple[EncodedBatch, Mapping[int, str]]:
    """Encode the last event of each key; return the batch, and why (by position in `events`) documents are no JSON.

    Every document is decoded, also one that a later event supersedes: which columns come to be, and what is a dead
    letter, must not depend on where a batch happens to end. A key whose last document is invalid takes the state of
    the event before it. `known_schema` is `table_schema` or a wider one that an earlier batch came back with, which
    saves looking for types again.
    """
    documents = [i for i, document in enumerate(events.documents) if document is not None]
    decoded = decode([events.documents[i] or "" for i in documents], known_schema)
    invalid = {documents[row]: reason for row, reason in decoded.invalid.items()}
    row_of = np.full(len(events), -1, np.int64)  # the decoder's row of each event; -1 for a delete
    row_of[documents] = np.arange(len(documents))
    hashes = hash_keys(events.keys)
    valid = np.delete(np.arange(len(events)), list(invalid))
    last = valid[last_of_each_key(hashes[valid])]
    upserts, deletes = last[row_of[last] >= 0], last[row_of[last] < 0]
    batch = EncodedBatch(
        base_schema=table_schema,
        schema=decoded.schema,
        rows=_rows(events, upserts, decoded, row_of[upserts]),
        row_hashes=hashes[upserts],
        deleted_keys=[events.keys[i] for i in deletes],
        deleted_hashes=hashes[deletes],
        ranges=events.ranges,
        must_commit=events.must_commit,
        watermarks=events.watermarks,
        commit_id=str(uuid.uuid4()),
        rescued_values=decoded.stats.rescued_values,
        walked_rows=decoded.stats.walked_rows,
    )
    return batch, invalid


def _rows(
    events: ChangeEvents, upserts: npt.NDArray[np.int64], decoded: Decoded, rows: npt.NDArray[np.int64]
) -> pa.Table:
    """Return the decoder's `rows`, which belong to the events `upserts`, with the `_cdc_` columns."""
    documents, rescued = decoded.table, decoded.rescued
    if len(rows) < len(rescued):
        documents, rescued = documents.take(rows), rescued.take(rows)
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
    target = parquet_schema(decoded.schema)
    return pa.Table.from_arrays([columns[field.name] for field in target], schema=target)
