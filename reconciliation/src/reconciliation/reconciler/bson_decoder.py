"""Raw BSON → what `decode` gives for the texts of the same documents: columns at once, and what they refuse by texts.

A field's value that its column does not hold is cut out of the document and decoded alone, as the writer decodes it;
so a JSON column, or a field that mixes types, costs what it costs the writer, and the others next to nothing.
"""

import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np
import pyarrow as pa

from cdc_shared.documents import (
    Decoded,
    DecodeStats,
    DocumentSchema,
    FieldPolicies,
    InvalidBson,
    decode,
    document_text,
    fit_exactly,
)
from cdc_shared.documents.rescued_values import Rows, replaced_rows
from reconciliation.reconciler.bson_columns import Columns, read_columns, table_of


class DocumentTexts(Sequence[str]):
    """The texts of documents, each made when it is asked for; empty for what is no document."""

    def __init__(self, raw: Sequence[bytes]) -> None:
        self._raw = raw

    def __len__(self) -> int:
        return len(self._raw)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [_text(raw) for raw in self._raw[place]]
        return _text(self._raw[place])


def _text(raw: bytes) -> str:
    try:
        return document_text(raw)
    except InvalidBson:
        return ""


def decode_raw(raw: Sequence[bytes], schema: DocumentSchema, policies: FieldPolicies) -> Decoded:
    """As `decode(texts, schema, policies=policies)` with the texts of these documents; no document raises.

    The statistics count only what was decoded by its text, and the rows rescued.
    """
    columns = read_columns(raw, schema)
    pieces = _pieces(raw, columns)
    if not pieces:
        nothing: pa.StringArray = pa.nulls(len(raw), pa.string())
        return Decoded(schema, columns.table, nothing, stats=DecodeStats(rows=len(raw)))
    rows = np.array(sorted(pieces), np.int64)
    odd = decode([_text(pieces[row]) for row in rows.tolist()], schema, policies=policies)
    return _together(columns, odd, rows, schema)


def _pieces(raw: Sequence[bytes], columns: Columns) -> Mapping[int, bytes]:
    """Row → the document, or what of it is not in its columns."""
    members: dict[int, list[bytes]] = defaultdict(list)
    for rows, values in columns.odd.values():
        for row, value in zip(rows.tolist(), values, strict=True):
            members[row].append(value)
    pieces = {row: _document(its) for row, its in members.items()}
    return pieces | {row: raw[row] for row in np.flatnonzero(columns.refused).tolist()}


def _document(members: Sequence[bytes]) -> bytes:
    body = b"".join(members)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def _together(columns: Columns, odd: Decoded, rows: Rows, schema: DocumentSchema) -> Decoded:
    count = len(columns.refused)
    rescued: pa.StringArray = replaced_rows(pa.nulls(count, pa.string()), rows, odd.rescued)
    table = columns.table
    if odd.schema.typed() != schema.typed():
        table = fit_exactly(Decoded(schema, table, pa.nulls(count, pa.string())), odd.schema).table
    whole = np.flatnonzero(columns.refused[rows])
    arrays = []
    for member in odd.schema.stored:
        its = columns.odd.get(member.name, (np.empty(0, np.int64), []))[0]
        places = np.sort(np.concatenate([whole, np.searchsorted(rows, its)]))
        array = table.column(member.column).combine_chunks()
        if len(places):
            values = odd.table.column(member.column).combine_chunks().take(pa.array(places))
            array = replaced_rows(array, rows[places], values)
        arrays.append(array)
    return Decoded(
        odd.schema,
        table_of(arrays, odd.schema, count),
        rescued,
        {int(rows[place]): reason for place, reason in odd.invalid.items()},
        odd.stats,
        {int(rows[place]): pointer for place, pointer in odd.failures.items()},
    )
