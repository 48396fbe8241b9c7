"""Rows of one schema as rows of another: what `decode` would have given for the same documents against that schema.

Where the two schemas have the same type for a field, its column is taken as it is. Elsewhere the values, and what is
rescued of them, are put together again and walked, row by row, unless the column can be converted as a whole.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from cdc_shared.documents import types as t
from cdc_shared.documents.canonical import bson_value
from cdc_shared.documents.conversion import NotExact, convert_column
from cdc_shared.documents.decoder import Decoded, DecodeStats, conformed
from cdc_shared.documents.inference import DEFAULT_MAX_STRUCT_FIELDS
from cdc_shared.documents.kinds import DUPLICATE_NAMES
from cdc_shared.documents.pointers import pointer_names, pointer_to
from cdc_shared.documents.policies import NONE, FieldPolicies
from cdc_shared.documents.rescued_values import (
    Conflicts,
    Entries,
    Entry,
    RescuedColumn,
    count_conflicts,
    first_failure,
    merge_conflicts,
    replaced_rows,
)
from cdc_shared.documents.walker import MembersFit, WholeField


def fit(
    decoded: Decoded,
    table: t.DocumentSchema,
    *,
    policies: FieldPolicies = NONE,
    max_struct_fields: int = DEFAULT_MAX_STRUCT_FIELDS,
) -> Decoded:
    """The same documents in the columns of `table`, widened by the fields that only `decoded` has.

    A value that its column in `table` cannot hold is rescued, as canonical Extended JSON, struct members one by one;
    a rescued value that fits there moves into the column. `stats` and `failures` have the new conflicts beside those
    of `decoded`.
    """
    target = widened(table, decoded.schema, max_struct_fields=max_struct_fields)
    if decoded.schema.typed() == target.typed():
        return decoded if decoded.schema == target else replace(decoded, schema=target)
    return _Fitting(decoded, target, policies).run()


def fit_exactly(decoded: Decoded, table: t.DocumentSchema) -> Decoded:
    """As `fit`, but `table` is not widened: what has no column there is rescued."""
    return decoded if decoded.schema == table else _Fitting(decoded, table, NONE).run()


def widened(
    table: t.DocumentSchema, other: t.DocumentSchema, *, max_struct_fields: int = DEFAULT_MAX_STRUCT_FIELDS
) -> t.DocumentSchema:
    """`table`, and a column for each typed field that only `other` has, where one can be had. No type is changed."""
    members = _merged(table, other, top_level=True, max_fields=max_struct_fields)
    result = t.DocumentSchema(members)
    return table if result.typed() == table.typed() else result


def _merged(known: t.Struct, other: t.Struct, *, top_level: bool, max_fields: int) -> tuple[t.Field, ...]:
    untyped = [member for member in known.fields if isinstance(member.type, t.Null)]
    fields = []
    for member in (*known.stored, *untyped):
        further = other.by_name.get(member.name)
        type_ = member.type if further is None else _wider(member.type, further.type, max_fields)
        fields.append(t.Field(member.name, type_, member.column))
    for member in other.stored:
        struct = t.Struct(tuple(fields))
        if member.name not in known.by_name and struct.accepts_new(
            member.name, top_level=top_level, max_fields=max_fields
        ):
            fields.append(t.Field(member.name, member.type))
    return tuple(fields)


def _wider(known: t.FieldType, other: t.FieldType, max_fields: int) -> t.FieldType:
    if isinstance(known, t.Null):
        return other
    if isinstance(known, t.Struct) and isinstance(other, t.Struct):
        return t.Struct(_merged(known, other, top_level=False, max_fields=max_fields))
    if isinstance(known, t.List) and isinstance(other, t.List):
        return t.List(_wider(known.element, other.element, max_fields))
    return known


class _Fitting:
    """One call of `fit`."""

    def __init__(self, decoded: Decoded, target: t.DocumentSchema, policies: FieldPolicies) -> None:
        self._decoded = decoded
        self._target = target
        self._policies = policies
        self._rescued = RescuedColumn(decoded.rescued)
        self._rows = len(decoded.rescued)
        self._conflicts: Conflicts = {}
        self._failures = dict(decoded.failures)

    def run(self) -> Decoded:
        decoded = self._decoded
        arrays = {member.name: decoded.table.column(member.column).combine_chunks() for member in decoded.schema.stored}
        columns = self._members(decoded.schema, self._target, arrays, "")
        rescued = self._rescued.array()
        merge_conflicts(self._conflicts, decoded.stats.conflicts)
        return replace(
            decoded,
            schema=self._target,
            table=pa.Table.from_arrays(columns, schema=pa.schema(self._target.storage)),
            rescued=rescued,
            stats=DecodeStats(
                rows=decoded.stats.rows,
                walked_rows=decoded.stats.walked_rows,
                rescued_rows=len(rescued) - rescued.null_count,
                rescued_values=decoded.stats.rescued_values + self._rescued.further_values,
                conflicts=self._conflicts,
            ),
            failures=dict(sorted(self._failures.items())),
        )

    def _members(
        self, source: t.Struct, target: t.Struct, arrays: dict[str, t.ArrowArray], pointer: str
    ) -> list[t.ArrowArray]:
        """One array a stored member of `target`. `arrays` are those of the source's, by the member's name."""
        walker = MembersFit(target, pointer)
        columns = []
        for member in target.stored:
            known = source.by_name.get(member.name)
            known_type = t.NULL if known is None else known.type
            columns.append(self._member(member, known_type, arrays.get(member.name), pointer, walker))
        for member in source.stored:
            if member.name not in target.by_name:
                self._walk(member, member.type, arrays[member.name], pointer, walker, None)
        return columns

    def _member(
        self,
        member: t.Field,
        known: t.FieldType,
        array: t.ArrowArray | None,
        pointer: str,
        walker: MembersFit,
    ) -> t.ArrowArray:
        wanted = member.type
        if array is None:
            return self._walk(member, known, None, pointer, walker, _nulls(self._rows, wanted.storage))
        if known == wanted:
            return array
        if isinstance(known, t.Struct) and isinstance(wanted, t.Struct):
            below = dict(zip([m.name for m in known.stored], array.flatten(), strict=True))
            children = self._members(known, wanted, below, pointer_to(pointer, member.name))
            return pa.StructArray.from_arrays(children, fields=list(wanted.storage), mask=array.is_null())
        if _holds(wanted, known):
            return self._walk(
                member, known, None, pointer, walker, conformed(_unsliced(array), wanted.storage, self._rows)
            )
        if wanted != t.TEXT or known == t.STRING:
            try:
                converted = convert_column(array, known, wanted)
            except NotExact:
                converted = None
            if converted is not None:
                return self._walk(member, known, None, pointer, walker, converted)
        return self._walk(member, known, array, pointer, walker, _nulls(self._rows, wanted.storage))

    def _walk(
        self,
        member: t.Field,
        known: t.FieldType,
        array: t.ArrowArray | None,
        pointer: str,
        walker: MembersFit,
        fitted: t.ArrowArray | None,
    ) -> t.ArrowArray:
        """`fitted` (None if the target has no such member), and in it the values of rows that were walked again: those
        that have a value in `array`, and those with something rescued below the member.
        """
        at = pointer_to(pointer, member.name)
        rows = self._rescued.rows_below(at)
        source: t.ArrowArray = fitted if array is None else array
        if array is not None:
            rows = np.union1d(rows, np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False)))
        if not len(rows):
            return fitted
        stored_type = known if array is not None else member.type
        values = []
        for row, stored in zip(rows.tolist(), source.take(pa.array(rows)).to_pylist(), strict=True):
            before = self._rescued.taken_below(row, at)
            value = _with_entries(bson_value(stored, stored_type), before, at)
            entries: Entries = []
            try:
                values.append(walker.fit({member.name: value}, entries).get(member.column))
            except WholeField:
                entries = [Entry(at, value, at, DUPLICATE_NAMES)]
                values.append(None)
            self._add(row, entries, before)
        return None if fitted is None else replaced_rows(fitted, rows, pa.array(values, fitted.type))

    def _add(self, row: int, entries: Entries, before: dict[str, Any]) -> None:
        self._rescued.add(row, [entry[:2] for entry in entries])
        new = [entry for entry in entries if entry.pointer not in before]
        if new:
            count_conflicts(new, self._conflicts)
            failure = first_failure(new, self._policies)
            if failure is not None:
                self._failures.setdefault(row, failure)


def _holds(wanted: t.FieldType, known: t.FieldType) -> bool:
    """Whether every column of type `known` is one of type `wanted`, once members it does not know are null."""
    if isinstance(wanted, t.Struct) and isinstance(known, t.Struct):
        return all(
            member.name in wanted.by_name and _holds(wanted.by_name[member.name].type, member.type)
            for member in known.stored
        )
    if isinstance(wanted, t.List) and isinstance(known, t.List):
        return _holds(wanted.element, known.element)
    return wanted == known


def _with_entries(value: Any, entries: dict[str, Any], at: str) -> Any:
    """A column's value and what was rescued of it, put together."""
    for pointer, rescued in entries.items():
        names = pointer_names(pointer[len(at) :])
        if not names:
            value = rescued
            continue
        value = {} if value is None else value
        target = value
        for name in names[:-1]:
            target = target.setdefault(name, {})
        target[names[-1]] = rescued
    return value


def _nulls(rows: int, type_: Any) -> t.ArrowArray:
    return pa.nulls(rows, type_)


def _unsliced(array: t.ArrowArray) -> t.ArrowArray:
    """The array, without an offset anywhere within: a copy if it had one."""
    return pa.concat_arrays([array, array.slice(0, 0)]) if _has_offset(array) else array


def _has_offset(array: t.ArrowArray) -> bool:
    if array.offset:
        return True
    return any(_has_offset(child) for child in _children(array))


def _children(array: t.ArrowArray) -> Iterable[t.ArrowArray]:
    if pa.types.is_struct(array.type):
        return [array.field(index) for index in range(array.type.num_fields)]
    return [array.values] if pa.types.is_list(array.type) else []
