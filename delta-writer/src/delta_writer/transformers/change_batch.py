"""The two shapes that a batch of changes of one collection takes on its way from Kafka to the table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cdc_shared.delta.key_hash import KeyHashes
from cdc_shared.delta.offsets import OffsetRange
from cdc_shared.delta.schema_diff import EventPosition
from cdc_shared.documents import DocumentSchema

SNAPSHOT_READ: Final = "r"
"""The op of a document that a snapshot has read."""


@dataclass(frozen=True, slots=True)
class ChangeEvents:
    """Events of one collection in the order they apply, as parallel lists; only those that change a row.

    Attributes:
        keys: Debezium's key text of the document.
        documents: JSON text of the document after the change (Debezium's dialect); None is a delete.
        source_ts_ms: the source's time of the change, ms since the epoch.
        partitions, offsets: where in Kafka each event lies.
        ranges: everything that the batch covers, also what changes no row (tombstones, markers, dead letters).
        ops: Debezium's `op` of each (c, u, d, r), or x for a document that was re-read on request.
        must_commit: the ranges are to be committed even when no row changes.
        watermarks: partition → source time in ms: with these ranges, everything strictly before it is in.
        history_only: places of events that are rows of a history, and change nothing of the current state.
    """

    keys: list[str]
    documents: list[str | None]
    source_ts_ms: list[int]
    partitions: list[int]
    offsets: list[int]
    ops: list[str]
    ranges: Mapping[int, OffsetRange]
    must_commit: bool = False
    watermarks: Mapping[int, int] = field(default_factory=dict)
    history_only: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.keys)

    def taken(self, kept: Sequence[int]) -> "ChangeEvents":
        """Return the events at these places; the ranges stay."""
        return replace(
            self,
            keys=[self.keys[i] for i in kept],
            documents=[self.documents[i] for i in kept],
            source_ts_ms=[self.source_ts_ms[i] for i in kept],
            partitions=[self.partitions[i] for i in kept],
            offsets=[self.offsets[i] for i in kept],
            ops=[self.ops[i] for i in kept],
            history_only=self.history_only and frozenset(n for n, i in enumerate(kept) if i in self.history_only),
        )


@dataclass(frozen=True, slots=True)
class ConfirmedRows:
    """Rows that stay as they are and are to say that their event lay elsewhere; parallel. A key may have no row."""

    keys: list[str]
    hashes: KeyHashes
    partitions: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keys)


NOTHING_CONFIRMED: Final = ConfirmedRows([], np.empty((0, 2), np.uint64), np.empty(0, np.int32), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """What one commit writes: at most one row or delete for each key, the last event's.

    Attributes:
        base_schema: the table's schema that the rows were encoded against; empty for a table yet to be made.
        schema: `base_schema` widened by what the documents brought, null-only fields included.
        rows: the upserts, in the table's columns (`documents.parquet_schema(schema)`).
        row_hashes: the key hash of each row, in the order of `rows`.
        deleted_keys, deleted_hashes: keys to delete.
        ranges: the offsets that the commit covers.
        must_commit: the offsets are to be committed even when no row changes.
        watermarks: as in `ChangeEvents`.
        commit_id: names this batch's commit, so that a put that timed out but succeeded is recognised.
        rescued_values, walked_rows: of the decoder, for metrics.
        rules_version: of the rules that made the rows; 0 when there never were any.
        key_mask: how the rows' keys were made; see `table_metadata.check_key_mask`.
        confirmed: rows that are in the table and must not be taken for older than a snapshot that has read them.
        shown_by: JSON Pointer of a field that the table has no column for → the first event whose document shows it.
    """

    base_schema: DocumentSchema
    schema: DocumentSchema
    rows: pa.Table
    row_hashes: KeyHashes
    deleted_keys: list[str]
    deleted_hashes: KeyHashes
    ranges: Mapping[int, OffsetRange]
    must_commit: bool
    watermarks: Mapping[int, int]
    commit_id: str
    rescued_values: int
    walked_rows: int
    rules_version: int = 0
    key_mask: str = ""
    confirmed: ConfirmedRows = NOTHING_CONFIRMED
    shown_by: Mapping[str, EventPosition] = field(default_factory=dict)
