"""128 bits for what a row says of its document: its columns and its rescued values.

Each row becomes bytes from which its values could be read again, and those are hashed (xxh3-128). So rows of one schema
have the same digest, but for one chance in 2**128 a comparison, only if they hold the same document. Rows that hold the
same document may have different digests where the columns leave a choice: those are candidates, and the canonical form
decides about them.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
from xxhash import xxh3_128_digest

from cdc_shared.delta.key_hash import KeyHashes
from cdc_shared.documents import DocumentSchema
from cdc_shared.documents import types as t
from reconciliation.reconciler.row_bytes import row_bytes

RESCUED: Final = "_cdc_rescued"
BLOCK_ROWS: Final = 8_192
BLOCK_BYTES: Final = 64 * 2**20
"""Blocks stay in a processor's cache, and far below Arrow's 32-bit offsets."""
_DIGEST: Final = np.dtype(">u8")


def row_digests(table: pa.Table, schema: DocumentSchema) -> KeyHashes:
    """The digest of each row, shape (n, 2): high and low 64 bits.

    `table` has the stored columns of `schema` and `_cdc_rescued`, in any order, and others that are passed over; a
    column of another Arrow type (`large_string`, a dictionary) is cast. Digests of different schemas do not compare.
    Raises ValueError when a column is missing, `pa.ArrowInvalid` when one cannot be cast.
    """
    names = [member.column for member in schema.stored] + [RESCUED]
    if missing := [name for name in names if name not in table.column_names]:
        raise ValueError(f"rows without the column {missing[0]!r} of their schema cannot be compared")
    rows = table.select(names)
    wanted = pa.schema([*schema.storage, pa.field(RESCUED, pa.string())])
    if not rows.schema.equals(wanted):
        rows = rows.cast(wanted)
    types: list[t.FieldType] = [*(member.type for member in schema.stored), t.JSON]
    digests = b"".join(b"".join(map(xxh3_128_digest, _encoded(block, types))) for block in _blocks(rows))
    return np.frombuffer(digests, _DIGEST).astype(np.uint64).reshape(-1, 2)


def _encoded(block: pa.RecordBatch, types: list[t.FieldType]) -> Any:
    return row_bytes(block.columns, types, len(block)).to_numpy(zero_copy_only=False)


def _blocks(rows: pa.Table) -> Iterator[pa.RecordBatch]:
    for batch in rows.to_batches(max_chunksize=BLOCK_ROWS):
        start = 0
        while start < len(batch):
            block = batch.slice(start)
            while block.nbytes > BLOCK_BYTES and len(block) > 1:
                block = block.slice(0, len(block) // 2)
            yield block
            start += len(block)
