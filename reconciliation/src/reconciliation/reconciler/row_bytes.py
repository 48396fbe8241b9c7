"""Rows as bytes that tell them apart: equal bytes are equal rows, and the other way round.

A row's bytes begin with a part that has the same width in every row of a schema: each value of fixed width with a byte
that says whether it is there, and of each text, binary or array its length (-1 for null). Behind it stand those texts,
binaries and arrays one after the other; an array is the bytes of its elements. So bytes can be read again, from left to
right, and no two rows share theirs. They are made to be hashed, by machines that are all little-endian.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cdc_shared.documents import types as t
from reconciliation.reconciler.comparable_json import comparable_json

Values = npt.NDArray[Any]


def row_bytes(columns: Sequence[t.ArrowArray], types: Sequence[t.FieldType], rows: int) -> t.ArrowArray:
    """A binary array: the bytes of each row of these columns, whose Arrow types are the storage of `types`.

    Together the columns must be well below 2 GB. NaNs count as one value, and JSON texts as `comparable_json` says.
    """
    parts = _Parts(rows)
    for array, type_ in zip(columns, types, strict=True):
        parts.add(array, type_)
    return parts.joined()


class _Parts:
    """What the rows' bytes consist of, column by column."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._fixed: list[Values] = []
        self._variable: list[t.ArrowArray] = []

    def add(self, array: t.ArrowArray, type_: t.FieldType) -> None:
        if isinstance(type_, t.Struct):
            self._fixed.append(_validity(array))
            for child, member in zip(array.flatten(), type_.stored, strict=True):
                self.add(child, member.type)
        elif isinstance(type_, t.List):
            self._add_variable(_list_bytes(array, type_.element), array)
        elif type_ == t.JSON:
            self._add_variable(comparable_json(array), array)
        elif pa.types.is_string(array.type) or pa.types.is_binary(array.type):
            self._add_variable(array, array)
        elif pa.types.is_struct(array.type):  # a regex, a timestamp
            self._fixed.append(_validity(array))
            for child in array.flatten():
                self.add(child, t.STRING if pa.types.is_string(child.type) else t.LONG)
        else:
            self._fixed += [_validity(array), _fixed_width(array)]

    def joined(self) -> t.ArrowArray:
        head = _records(self._fixed, self._rows)
        if not self._variable or not self._rows:
            return head
        # Arrow's own join takes twice as long as putting the pieces in order.
        pieces = pa.concat_arrays([head, *self._variable])
        count = 1 + len(self._variable)
        order = np.arange(self._rows)[:, None] + np.arange(count) * self._rows
        ordered: t.ArrowArray = pc.take(pieces, pa.array(order.ravel()), boundscheck=False)
        _, offsets, content = ordered.buffers()
        ends = np.frombuffer(offsets, np.int32, len(ordered) + 1)[::count]
        return pa.Array.from_buffers(pa.binary(), self._rows, [None, _buffer(np.ascontiguousarray(ends)), content], 0)

    def _add_variable(self, values: t.ArrowArray, array: t.ArrowArray) -> None:
        values = values.cast(pa.binary())
        lengths = np.diff(np.frombuffer(values.buffers()[1], np.int32, len(values) + 1, values.offset * 4))
        if array.null_count:
            lengths = np.where(_validity(array), lengths, np.int32(-1))
        self._fixed.append(lengths)
        self._variable.append(values)


def _validity(array: t.ArrowArray) -> Values:
    if not array.null_count:
        return np.ones(len(array), np.bool_)
    valid: Values = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _fixed_width(array: t.ArrowArray) -> Values:
    """The values, zero where null."""
    if pa.types.is_decimal(array.type):
        values = np.frombuffer(array.buffers()[1], "V16", len(array), array.offset * 16)
        if array.null_count:
            values = values.copy()
            values[~_validity(array)] = np.zeros((), "V16")
        return values
    if pa.types.is_timestamp(array.type):
        array = array.view(pa.int64())
    filled: Values = array.fill_null(False if pa.types.is_boolean(array.type) else 0).to_numpy(zero_copy_only=False)
    if filled.dtype == np.float64 and (no_numbers := np.isnan(filled)).any():
        filled = np.where(no_numbers, np.nan, filled)
    return filled


def _list_bytes(array: t.ArrowArray, element: t.FieldType) -> t.ArrowArray:
    """A binary array: the bytes of each list's elements, one after the other; none of a null."""
    values = array.flatten()  # without what may lie behind nulls
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    ends = np.append(np.int32(0), np.cumsum(lengths, dtype=np.int32))
    elements = row_bytes([values], [element], len(values))
    offsets = np.frombuffer(elements.buffers()[1], np.int32, len(values) + 1, elements.offset * 4)
    return pa.Array.from_buffers(pa.binary(), len(array), [None, _buffer(offsets[ends]), elements.buffers()[2]], 0)


def _records(fixed: Sequence[Values], rows: int) -> t.ArrowArray:
    """The values side by side, row by row, as a binary array."""
    record = np.dtype([(f"f{number}", values.dtype) for number, values in enumerate(fixed)])
    records = np.empty(rows, record)
    for number, values in enumerate(fixed):
        records[f"f{number}"] = values
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(record.itemsize)
    return pa.Array.from_buffers(pa.binary(), rows, [None, _buffer(offsets), _buffer(records)], 0)


def _buffer(values: Values) -> pa.Buffer:
    return pa.py_buffer(values)  # type: ignore[arg-type]  # the stubs do not know arrays for buffers
