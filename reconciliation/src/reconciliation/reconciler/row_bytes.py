"""Rows as bytes that tell them apart: equal bytes are equal rows, and the other way round.

A row's bytes begin with a part that has the same width in every row of a schema: each value of fixed width with a byte
that says whether it is there, and of each text, binary or array its length (-1 for null). Behind it stand those texts,
binaries and arrays, one after the other. An array is, column by column, what its elements are: all their parts of fixed
width, then all their first texts, and so on, which takes no order but Arrow's own. The lengths come before what they
measure, so bytes can be read again, from left to right, and no two rows share theirs. They are made to be hashed, by
machines that are all little-endian.
"""

from collections.abc import Iterator, Sequence
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
    level = _Level(np.arange(rows + 1, dtype=np.int32))
    for array, type_ in zip(columns, types, strict=True):
        level.add(array, type_)
    head, *behind = level.pieces()
    filled = [head, *(piece for piece in behind if piece.total_values_length)]
    return _in_turns(filled, rows) if len(filled) > 1 else head


class _Level:
    """Values of the rows themselves, or the elements of an array of theirs: those of a row lie between two borders."""

    def __init__(self, borders: npt.NDArray[np.int32]) -> None:
        self._borders = borders
        self._fixed: list[Values] = []
        self._behind: list[t.ArrowArray] = []

    def add(self, array: t.ArrowArray, type_: t.FieldType) -> None:
        if isinstance(type_, t.Struct):
            self._fixed.append(_validity(array))
            for child, member in zip(array.flatten(), type_.stored, strict=True):
                self.add(child, member.type)
        elif isinstance(type_, t.List):
            self._add_elements(array, type_.element)
        elif type_ == t.JSON:
            self._add_contents(comparable_json(array))
        elif pa.types.is_string(array.type) or pa.types.is_binary(array.type):
            self._add_contents(array)
        elif pa.types.is_struct(array.type):  # a regex, a timestamp
            self._fixed.append(_validity(array))
            for child in array.flatten():
                self.add(child, t.STRING if pa.types.is_string(child.type) else t.LONG)
        else:
            self._fixed += [_validity(array), _fixed_width(array)]

    def pieces(self) -> Iterator[t.ArrowArray]:
        """Yield binary arrays, each with a value for each row, which follow each other in the row's bytes."""
        records = _records(self._fixed, int(self._borders[-1]))
        yield _binary(self._borders * np.int32(records.dtype.itemsize), pa.py_buffer(records))  # type: ignore[arg-type]
        yield from self._behind

    def _add_contents(self, array: t.ArrowArray) -> None:
        offsets = _offsets(array)
        lengths = np.diff(offsets)
        if array.null_count:
            valid = _validity(array)
            if lengths[~valid].any():  # bytes behind a null
                array = array.fill_null("" if pa.types.is_string(array.type) else b"")
                offsets = _offsets(array)
            lengths[~valid] = -1
        self._fixed.append(lengths)
        self._behind.append(_binary(offsets[self._borders], array.buffers()[2]))

    def _add_elements(self, array: t.ArrowArray, element: t.FieldType) -> None:
        lengths = array.value_lengths().fill_null(-1).to_numpy()
        ends = np.zeros(len(array) + 1, np.int32)
        np.cumsum(np.maximum(lengths, 0), out=ends[1:])
        self._fixed.append(lengths)
        elements = _Level(ends[self._borders])
        elements.add(array.flatten(), element)  # without what may lie behind nulls
        self._behind += elements.pieces()


def _in_turns(pieces: Sequence[t.ArrowArray], rows: int) -> t.ArrowArray:
    """Each row's pieces one after the other. Arrow's own join takes twice as long as putting them in order."""
    count = len(pieces)
    order = np.arange(rows)[:, None] + np.arange(count) * rows
    ordered: t.ArrowArray = pc.take(pa.concat_arrays(pieces), pa.array(order.ravel()), boundscheck=False)
    return _binary(_offsets(ordered)[::count], ordered.buffers()[2])


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
    if array.null_count:
        array = array.fill_null(False if pa.types.is_boolean(array.type) else 0)
    filled: Values = array.to_numpy(zero_copy_only=False)
    if filled.dtype == np.float64 and (no_numbers := np.isnan(filled)).any():
        filled = np.where(no_numbers, np.nan, filled)
    return filled


def _records(fixed: Sequence[Values], rows: int) -> Values:
    """The values side by side, row by row."""
    records = np.empty(rows, np.dtype([(f"f{number}", values.dtype) for number, values in enumerate(fixed)]))
    for number, values in enumerate(fixed):
        records[f"f{number}"] = values
    return records


def _offsets(array: t.ArrowArray) -> npt.NDArray[np.int32]:
    if not len(array):  # may have no buffer at all
        return np.zeros(1, np.int32)
    return np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, array.offset * 4)


def _binary(offsets: npt.NDArray[np.int32], content: pa.Buffer | None) -> t.ArrowArray:
    offsets = np.ascontiguousarray(offsets)
    return pa.Array.from_buffers(pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), content])  # type: ignore[arg-type]
