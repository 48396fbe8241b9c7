"""Raw BSON → the columns of a schema, for documents that fit it exactly: twenty times faster than through their texts.

Whole columns are read at once (`bson_layout`). A field's value is refused when it, or anything in it, is not of the
type that the column has, is not known to the schema, or is of a kind that is rare; a document is when it has fields
that are not known. Those go the way of the writer. What is accepted has the row that the writer makes, and is made by
other code: so most faults of the writer's decoder show as rows that differ.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc_shared.documents import DocumentSchema
from cdc_shared.documents import types as t
from cdc_shared.documents.inference import EXACT_DOUBLE_MAX
from cdc_shared.documents.scalar_fits import DATE_MAX_MS, DATE_MIN_MS
from reconciliation.reconciler import bson_layout as layout
from reconciliation.reconciler.bson_decimals import decimals
from reconciliation.reconciler.bson_layout import BsonBlock, Cells, Mask, Positions

Read = tuple[t.ArrowArray, Mask]
"""A column's values, null where the cell is null, missing or refused; and which cells are refused."""

_HEX: Final = np.array([f"{byte:02x}".encode() for byte in range(256)]).view("<u2")
_UUID_BYTES: Final = 16
_UUID_SUBTYPE: Final = 4
_UUID_PIECES: Final = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))


@dataclass(frozen=True, slots=True)
class Columns:
    """What of the documents is in columns.

    Attributes:
        table: the stored columns of the schema, a row a document.
        refused: the documents of which nothing is; their rows say nothing.
        odd: field → the documents, of the others, in which its value is refused, and the bytes of that member, name
            included. It is null in the column.
    """

    table: pa.Table
    refused: Mask
    odd: dict[str, tuple[Positions, list[bytes]]]


def read_columns(raw: Sequence[bytes], schema: DocumentSchema) -> Columns:
    """Read documents; together they are below 2 GB."""
    block = BsonBlock(raw)
    cells, known = block.members(block.documents, [member.name for member in schema.fields])
    for member, its in zip(schema.fields, cells, strict=True):
        if member.name in t.WRAPPER_NAMES:  # in a text the document may stand for something else
            known &= its.codes == layout.MISSING
    columns, odd = [], {}
    for member, its in zip(schema.fields, cells, strict=True):
        column, not_read = _member(block, its, member)
        if column is not None:
            columns.append(_without(column, not_read))
        rows = np.flatnonzero(not_read & known)
        if len(rows):
            starts = (its.starts[rows] - len(member.name.encode()) - 2).tolist()
            ends = its.ends[rows].tolist()
            odd[member.name] = rows, [block.bytes(start, end) for start, end in zip(starts, ends, strict=True)]
    return Columns(table_of(columns, schema, len(raw)), ~known, odd)


def table_of(columns: Sequence[t.ArrowArray], schema: DocumentSchema, rows: int) -> pa.Table:
    """The stored columns of the schema as a table, which has its rows even if it has no column."""
    array: t.ArrowArray = pa.Array.from_buffers(schema.storage, rows, [None], 0, children=columns)
    return pa.Table.from_batches([pa.RecordBatch.from_struct_array(array)], pa.schema(schema.storage))


def _without(column: t.ArrowArray, rows: Mask) -> t.ArrowArray:
    """The column with nulls in these rows."""
    return pc.if_else(pa.array(~rows), column, pa.scalar(None, column.type)) if rows.any() else column


def _members(block: BsonBlock, documents: Cells, struct: t.Struct) -> tuple[list[t.ArrowArray], Mask]:
    """The columns of the struct's stored members, and which of the documents are refused."""
    cells, known = block.members(documents, [member.name for member in struct.fields])
    refused = ~known
    columns = []
    for member, its in zip(struct.fields, cells, strict=True):
        column, not_read = _member(block, its, member)
        if column is not None:
            columns.append(column)
        refused |= not_read
    return columns, refused


def _member(block: BsonBlock, cells: Cells, member: t.Field) -> tuple[t.ArrowArray | None, Mask]:
    """The column of a member, None if it has none, and which of its cells are refused."""
    if isinstance(member.type, t.Null):
        return None, _is_typed(cells)
    column, refused = _values(block, cells, member.type)
    if member.name in t.WRAPPER_NAMES:  # in a text its object may stand for something else
        refused = cells.codes != layout.MISSING
    return column, refused


def _is_typed(cells: Cells) -> Mask:
    is_typed: Mask = (cells.codes != layout.MISSING) & (cells.codes != layout.NULL)
    return is_typed


def _values(block: BsonBlock, cells: Cells, type_: t.FieldType) -> Read:
    if isinstance(type_, t.Struct):
        return _structs(block, cells, type_)
    if isinstance(type_, t.List):
        return _lists(block, cells, type_)
    if isinstance(type_, t.Decimal):
        return _decimals(block, cells, type_)
    if isinstance(type_, t.Binary):
        return _binaries(block, cells, type_)
    reader = _SCALARS.get(type_.kind) if isinstance(type_, t.Scalar) else None
    if reader is None:
        return _nulls(len(cells), type_.storage), _is_typed(cells)
    return reader(block, cells)


def _of_code(cells: Cells, *codes: int) -> tuple[Mask, Mask]:
    """Which cells are of these types, and which are refused because they are of others."""
    is_wanted = cells.codes == codes[0]
    for code in codes[1:]:
        is_wanted |= cells.codes == code
    return is_wanted, _is_typed(cells) & ~is_wanted


def _structs(block: BsonBlock, cells: Cells, struct: t.Struct) -> Read:
    valid, refused = _of_code(cells, layout.DOCUMENT)
    if valid.all():
        children, not_read = _members(block, cells, struct)
        return _struct_array(struct, children, None), refused | not_read
    rows = np.flatnonzero(valid)
    children, not_read = _members(block, cells.of(rows), struct)
    refused[rows] |= not_read
    places = _places(rows, len(cells))
    return _struct_array(struct, [child.take(places) for child in children], ~valid), refused


def _struct_array(struct: t.Struct, children: list[t.ArrowArray], null: Mask | None) -> t.ArrowArray:
    mask = None if null is None else pa.array(null)
    return pa.StructArray.from_arrays(children, fields=list(struct.storage), mask=mask)


def _places(rows: Positions, count: int) -> t.ArrowArray:
    """For `take`: where the values of `rows` come to stand among `count`; null elsewhere."""
    places = np.zeros(count, np.int64)
    places[rows] = np.arange(len(rows))
    is_null = np.ones(count, np.bool_)
    is_null[rows] = False
    return pa.array(places, mask=is_null)


def _lists(block: BsonBlock, cells: Cells, list_: t.List) -> Read:
    valid, refused = _of_code(cells, layout.ARRAY)
    rows = np.flatnonzero(valid)
    elements, counts, right = block.elements(cells.of(rows))
    refused[rows[~right]] = True
    values, not_read = _values(block, elements, list_.element)
    refused[np.repeat(rows, counts)[not_read]] = True
    lengths = np.zeros(len(cells), np.int32)
    lengths[rows] = counts
    offsets = np.append(np.int32(0), np.cumsum(lengths, dtype=np.int32))
    return (
        pa.Array.from_buffers(list_.storage, len(cells), [_validity(valid), _buffer(offsets)], children=[values]),
        refused,
    )


def _longs(block: BsonBlock, cells: Cells) -> Read:
    valid, refused = _of_code(cells, layout.INT32, layout.INT64)
    return _array(pa.int64(), _integers(block, cells), valid), refused


def _integers(block: BsonBlock, cells: Cells) -> Any:
    words = block.words(cells.starts)
    is_short = cells.codes == layout.INT32
    if not is_short.any():
        return words.view(np.int64)
    return np.where(is_short, words.astype(np.uint32).view(np.int32).astype(np.int64), words.view(np.int64))


def _doubles(block: BsonBlock, cells: Cells) -> Read:
    valid, refused = _of_code(cells, layout.DOUBLE, layout.INT32, layout.INT64)
    values = block.words(cells.starts).view(np.float64)
    whole = valid & (cells.codes != layout.DOUBLE)
    if whole.any():
        integers = _integers(block, cells)
        refused |= whole & ((integers > EXACT_DOUBLE_MAX) | (integers < -EXACT_DOUBLE_MAX))
        values = np.where(whole, integers.astype(np.float64), values)
    return _array(pa.float64(), values, valid & ~refused), refused


def _booleans(block: BsonBlock, cells: Cells) -> Read:
    valid, refused = _of_code(cells, layout.BOOLEAN)
    values = block.data[cells.starts]
    refused |= valid & (values > 1)
    return pa.array(values == 1, pa.bool_(), mask=~valid), refused


def _dates(block: BsonBlock, cells: Cells) -> Read:
    valid, refused = _of_code(cells, layout.DATE)
    milliseconds = block.words(cells.starts).view(np.int64)
    refused |= valid & ((milliseconds < DATE_MIN_MS) | (milliseconds > DATE_MAX_MS))
    valid &= ~refused
    return _array(pa.timestamp("us", "UTC"), np.where(valid, milliseconds, 0) * 1000, valid), refused


def _decimals(block: BsonBlock, cells: Cells, type_: t.Decimal) -> Read:
    valid, refused = _of_code(cells, layout.DECIMAL)
    rows = np.flatnonzero(valid)
    starts = cells.starts[rows]
    stored, held = decimals(block.words(starts), block.words(starts + 8), type_.scale)
    refused[rows[~held]] = True
    values = np.zeros((len(cells), 2), np.uint64)
    values[rows] = stored
    return _array(type_.storage, values, valid & ~refused), refused


def _object_ids(block: BsonBlock, cells: Cells) -> Read:
    valid, refused = _of_code(cells, layout.OBJECT_ID)
    return _fixed_texts(_hex(block, cells.starts[valid], 12), valid), refused


def _uuids(block: BsonBlock, cells: Cells) -> Read:
    valid, refused = _binary_cells(block, cells, _UUID_SUBTYPE)
    odd = valid & (cells.ends - cells.starts != _UUID_BYTES + 5)
    refused |= odd
    valid &= ~odd
    digits = _hex(block, cells.starts[valid] + 5, _UUID_BYTES)
    dash = np.full((len(digits), 1), ord("-"), np.uint8)
    pieces = [piece for start, end in _UUID_PIECES for piece in (digits[:, start:end], dash)][:-1]
    return _fixed_texts(np.hstack(pieces), valid), refused


def _hex(block: BsonBlock, starts: Positions, length: int) -> Any:
    """The bytes as characters, two each; shape (n, 2 * length)."""
    return _HEX[block.data[starts[:, None] + np.arange(length)]].view(np.uint8)


def _fixed_texts(characters: Any, valid: Mask) -> t.ArrowArray:
    lengths = np.where(valid, np.int32(characters.shape[1]), np.int32(0))
    offsets = np.append(np.int32(0), np.cumsum(lengths, dtype=np.int32))
    content = _buffer(np.ascontiguousarray(characters))
    return pa.Array.from_buffers(pa.string(), len(valid), [_validity(valid), _buffer(offsets), content])


def _strings(block: BsonBlock, cells: Cells) -> Read:
    valid, refused = _of_code(cells, layout.STRING)
    odd = valid & ((cells.ends - cells.starts < 5) | (block.data[np.maximum(cells.ends - 1, 0)] != 0))
    refused |= odd
    valid &= ~odd
    texts = _slices(block, cells.starts + 4, cells.ends - 1, valid)
    try:
        return texts.cast(pa.string()), refused
    except pa.ArrowInvalid:
        unreadable = np.array([not _is_utf8(value) for value in texts.to_pylist()], np.bool_)
        return _slices(block, cells.starts + 4, cells.ends - 1, valid & ~unreadable).cast(pa.string()), (
            refused | unreadable
        )


def _is_utf8(value: bytes | None) -> bool:
    try:
        return value is None or bool(value.decode() or True)
    except UnicodeDecodeError:
        return False


def _binaries(block: BsonBlock, cells: Cells, type_: t.Binary) -> Read:
    valid, refused = _binary_cells(block, cells, type_.subtype)
    return _slices(block, cells.starts + 5, cells.ends, valid), refused


def _binary_cells(block: BsonBlock, cells: Cells, subtype: int) -> Read:
    """The cells that are binary of this subtype. In subtype 2 the length stands twice: such values are refused."""
    valid, refused = _of_code(cells, layout.BINARY)
    odd = valid & (block.data[cells.starts + 4] != subtype)
    if subtype == _OLD_SUBTYPE:
        odd = valid
    return valid & ~odd, refused | odd


def _slices(block: BsonBlock, starts: Positions, ends: Positions, valid: Mask) -> t.ArrowArray:
    """The bytes between, as a binary array. The valid ones lie one behind the other."""
    offsets = np.empty(2 * int(valid.sum()) + 1, np.int32)
    offsets[0:-1:2], offsets[1:-1:2], offsets[-1] = starts[valid], ends[valid], block.size
    pieces = pa.Array.from_buffers(pa.binary(), len(offsets) - 1, [None, _buffer(offsets), _buffer(block.data)])
    places = np.cumsum(valid) - 1
    return pieces.take(pa.array(2 * places, mask=~valid))


def _array(type_: pa.DataType, values: Any, valid: Mask) -> t.ArrowArray:
    return pa.Array.from_buffers(type_, len(valid), [_validity(valid), _buffer(np.ascontiguousarray(values))])


def _nulls(count: int, type_: Any) -> t.ArrowArray:
    return pa.nulls(count, type_)


def _validity(valid: Mask) -> pa.Buffer | None:
    return None if valid.all() else _buffer(np.packbits(valid, bitorder="little"))


def _buffer(values: Any) -> pa.Buffer:
    return pa.py_buffer(values)


_OLD_SUBTYPE: Final = 2
_SCALARS: Final[dict[t.Kind, Callable[[BsonBlock, Cells], Read]]] = {
    t.Kind.STRING: _strings,
    t.Kind.TEXT: _strings,
    t.Kind.LONG: _longs,
    t.Kind.DOUBLE: _doubles,
    t.Kind.BOOLEAN: _booleans,
    t.Kind.DATE: _dates,
    t.Kind.OBJECT_ID: _object_ids,
    t.Kind.UUID: _uuids,
}
