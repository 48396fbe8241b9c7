"""Columns taken apart and put together again: what the Arrow engine moves through.

A place of the documents is an array with a slot for each value that is there: one a row outside arrays, one an element
within them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cdc_shared.documents import types as t
from cdc_shared.rules.field_values import one_piece

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Column:
    """`array` has the storage type of `type`, and is None where that is `Null`; `rows` is the row of each slot."""

    type: t.FieldType
    array: t.ArrowArray | None
    rows: Rows

    @property
    def one_array(self) -> t.ArrowArray:
        """The values in one piece."""
        return one_piece(self.array) if isinstance(self.array, pa.ChunkedArray) else self.array

    @property
    def is_typed(self) -> bool:
        return self.array is not None

    def valid(self) -> Flags:
        """The slots that are not null."""
        if self.array is None:
            return np.zeros(len(self.rows), np.bool_)
        return flags(pc.is_valid(self.one_array))


@dataclass(frozen=True)
class Member:
    """A member of the objects of one place, and the column name it is stored under."""

    column: str
    values: Column


Members = dict[str, Member]
"""By name, in order."""


def flags(array: t.ArrowArray) -> Flags:
    """A boolean array without nulls."""
    return np.asarray(array.to_numpy(zero_copy_only=False), np.bool_)


def table_members(table: pa.Table, schema: t.DocumentSchema, rows: int) -> Members:
    """The top-level fields."""
    return _members(schema, list(table.columns), np.arange(rows))


def struct_members(column: Column) -> Members:
    """The members of a struct column; null where the struct is."""
    if not isinstance(column.type, t.Struct):
        raise TypeError("a column of structs is wanted")
    return _members(column.type, column.one_array.flatten(), column.rows)


def _members(struct: t.Struct, arrays: Sequence[t.ArrowArray], rows: Rows) -> Members:
    stored = iter(arrays)
    return {
        member.name: Member(
            member.column,
            Column(member.type, None if isinstance(member.type, t.Null) else next(stored), rows),
        )
        for member in struct.fields
    }


def fields_of(members: Members) -> tuple[t.Field, ...]:
    return tuple(t.Field(name, member.values.type, member.column) for name, member in members.items())


def arrays_of(members: Members) -> list[Any]:
    """Those of the members that have a column, in order."""
    return [member.values.array for member in members.values() if member.values.is_typed]


def with_members(column: Column, members: Members) -> Column:
    """A struct column with other members, one of them at least with a type."""
    type_ = t.Struct(fields_of(members))
    arrays = [
        Column(m.values.type, m.values.array, m.values.rows).one_array for m in members.values() if m.values.is_typed
    ]
    array = pa.StructArray.from_arrays(arrays, fields=list(type_.storage), mask=_null_mask(column))
    return Column(type_, array, column.rows)


def elements(column: Column) -> Column:
    """The elements of a list column, those of null lists left out."""
    if not isinstance(column.type, t.List):
        raise TypeError("a column of lists is wanted")
    return Column(column.type.element, column.one_array.flatten(), np.repeat(column.rows, _lengths(column)))


def with_elements(column: Column, values: Column) -> Column:
    """A list column with other elements, as many as before."""
    offsets: t.ArrowArray = pa.array(np.concatenate([[0], np.cumsum(_lengths(column))]), pa.int32())
    type_ = t.List(values.type)
    array = pa.ListArray.from_arrays(offsets, values.one_array, type=type_.storage, mask=_null_mask(column))
    return Column(type_, array, column.rows)


def merged(first: Column, second: Column) -> tuple[Column, Flags]:
    """The first column's values and, where it is null, those of the second; and the slots whose value has no place in
    the first one's type.
    """
    only_second = ~first.valid() & second.valid()
    if not only_second.any():
        return first, only_second
    if first.type != second.type:
        return first, only_second
    slots = np.arange(len(first.rows))
    both = pa.concat_arrays([first.one_array, second.one_array])
    chosen = both.take(pa.array(np.where(only_second, slots + len(slots), slots)))
    return Column(first.type, chosen, first.rows), np.zeros(len(slots), np.bool_)


def _lengths(column: Column) -> npt.NDArray[np.int64]:
    lengths: t.ArrowArray = pc.fill_null(pc.list_value_length(column.one_array), 0)  # type: ignore[type-var]
    return np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)


def _null_mask(column: Column) -> t.ArrowArray | None:
    array = column.one_array
    return pc.is_null(array) if array.null_count else None
