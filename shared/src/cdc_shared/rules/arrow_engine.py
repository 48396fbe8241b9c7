"""Transformation rules on whole columns. It agrees with `transformation`, which says what the rules mean.

Whatever a column cannot show is left to documents: rows whose rescued values a rule may touch, values that have no
place in a column's new type, names that cannot have a column. Such rows are marked and taken no notice of from then on.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc_shared.documents import types as t
from cdc_shared.documents.decoder import Decoded
from cdc_shared.documents.extended_json import dump, parse
from cdc_shared.models import data_quality as q
from cdc_shared.rules.arrow_columns import (
    Column,
    Flags,
    Member,
    Members,
    arrays_of,
    elements,
    fields_of,
    flags,
    merged,
    struct_members,
    table_members,
    with_elements,
    with_members,
)
from cdc_shared.rules.arrow_values import Edited, converted, masked
from cdc_shared.rules.paths import EVERY, Tokens
from cdc_shared.rules.transformation import Counts, Step, Transform, flattening_rank, include_tree, kept, transform_of

_EMPTY_COLUMN = Column(t.NULL, None, np.zeros(0, np.int64))
EditMembers = Callable[[Members, Flags], Members]
"""Members of a place's objects, and which of its slots are objects → the members that a rule leaves."""


class ArrowEngine:
    """One batch. `by_document` marks the rows that must be transformed as documents instead."""

    def __init__(self, decoded: Decoded, by_document: Flags) -> None:
        self.by_document = by_document
        self._rows = len(decoded.rescued)
        self._members = table_members(decoded.table, decoded.schema, self._rows)
        self._changes: list[tuple[tuple[str, str], Any]] = []

    def apply(self, step: Step) -> None:
        """Apply a rule to every row."""
        rule = step.rule
        if isinstance(rule, q.Include):
            self._members = self._included(self._members, include_tree(step.paths))
        elif isinstance(rule, q.Convert | q.MaskRule):
            self._members = self._below(self._members, step.tokens, step, None)
        else:
            edit = self._edit_of(rule, step.tokens[-1], top_level=len(step.tokens) == 1)
            self._members = self._below(self._members, step.tokens, step, edit)

    def result(self) -> tuple[t.DocumentSchema, pa.Table]:
        """The schema after the rules applied so far, and its columns."""
        schema = t.DocumentSchema(fields_of(self._members))
        arrays = arrays_of(self._members)
        if not arrays:
            return schema, _no_columns(self._rows)
        return schema, pa.Table.from_arrays(arrays, schema=pa.schema(schema.storage))

    def counts(self) -> Counts:
        """What the rules changed in the rows that are not left to documents."""
        counts = Counts()
        for counted, changes in self._changes:
            counts[counted] += int(changes[~self.by_document].sum())
        return counts

    # -- places -------------------------------------------------------------------------------------------------------

    def _below(self, members: Members, tokens: Tokens, step: Step, edit: EditMembers | None) -> Members:
        """The rule applied to the objects that have these members; all of a table's rows are objects."""
        if edit is not None and len(tokens) == 1:
            return edit(members, np.ones(self._rows, np.bool_))
        member = members.get(tokens[0])
        if member is None:
            return members
        values = self._at(member.values, tokens[1:], step, edit)
        return members if values is member.values else _put(members, tokens[0], replace(member, values=values))

    def _at(self, column: Column, tokens: Tokens, step: Step, edit: EditMembers | None) -> Column:
        """The rule applied where the path leads from here. With `edit` its last token is the name of a member."""
        if not column.is_typed:
            return column
        if not tokens:
            return self._edited(column, step)
        if isinstance(column.type, t.List):
            is_last = edit is not None and len(tokens) == 1
            below = tokens[1:] if tokens[0] == EVERY and not is_last else tokens
            return self._with_elements(column, lambda values: self._at(values, below, step, edit))
        if column.type == t.JSON:
            return self._json_edited(column, transform_of(step, tokens), step)
        if tokens[0] == EVERY and not (edit is not None and len(tokens) == 1):
            return self._at(column, tokens[1:], step, edit)
        if not isinstance(column.type, t.Struct):
            return self._ended_early(column, step)
        members = struct_members(column)
        if edit is not None and len(tokens) == 1:
            return self._with_members(column, edit(members, column.valid()))
        left = self._below(members, tokens, step, edit)
        return column if left is members else self._with_members(column, left)

    def _ended_early(self, column: Column, step: Step) -> Column:
        """Values that end the rule's path: masks reach them. A text column stays one: it shows objects too."""
        if not isinstance(step.rule, q.MaskRule):
            return column
        masked_column = self._edited(column, step)
        return replace(masked_column, type=t.TEXT) if column.type == t.TEXT else masked_column

    def _with_elements(self, column: Column, edit: Callable[[Column], Column]) -> Column:
        values = elements(column)
        edited = edit(values)
        if edited is values:
            return column
        return with_elements(column, edited) if edited.is_typed else self._given_up(column)

    def _with_members(self, column: Column, members: Members) -> Column:
        if any(member.values.is_typed for member in members.values()):
            return with_members(column, members)
        return self._given_up(column)  # an object without members has no column

    def _given_up(self, column: Column) -> Column:
        self._leave_to_documents(column, column.valid())
        return replace(_EMPTY_COLUMN, rows=column.rows)

    def _leave_to_documents(self, column: Column, slots: Flags) -> None:
        self.by_document[column.rows[slots]] = True

    # -- values -------------------------------------------------------------------------------------------------------

    def _edited(self, column: Column, step: Step) -> Column:
        if isinstance(step.rule, q.Convert):
            edited = converted(column, step.rule.to)
        elif isinstance(step.rule, q.MaskRule):
            edited = masked(column, step.rule, step.key)
        else:
            raise TypeError(f"a rule {step.rule.rule} edits no values")
        self._changed(edited, step)
        return edited.column

    def _changed(self, edited: Edited, step: Step) -> None:
        self._leave_to_documents(edited.column, edited.misfits)
        self._count(step, edited.column.rows[edited.changed])

    def _count(self, step: Step, rows: Any, weights: Any = None) -> None:
        self._changes.append((step.counted, np.bincount(rows, weights, minlength=self._rows)))

    def _json_edited(self, column: Column, transform: Transform, step: Step | None = None) -> Column:
        """A rule that looks into the values of a JSON column, each distinct text once."""
        distinct = column.one_array.dictionary_encode()
        texts: list[str | None] = []
        changes: list[int] = []
        for text in distinct.dictionary.to_pylist():
            counts = Counts()
            value = transform(parse(text), counts)
            texts.append(None if value is None else dump(value))
            changes.append(counts.total())
        if step is not None and any(changes):
            valid = column.valid()
            indices = np.asarray(distinct.indices.filter(pa.array(valid)).to_numpy(zero_copy_only=False))
            self._count(step, column.rows[valid], np.asarray(changes)[indices])
        return replace(column, array=pa.array(texts, pa.string()).take(distinct.indices))

    # -- members ------------------------------------------------------------------------------------------------------

    def _edit_of(self, rule: q.TransformationRule, name: str, *, top_level: bool) -> EditMembers:
        match rule:
            case q.Rename(to=to):
                return lambda members, _: self._renamed(members, name, to, top_level)
            case q.Constant(value=value):
                return lambda members, objects: self._with_constant(members, objects, name, value, top_level)
            case q.Flatten(separator=separator):
                return lambda members, _: self._flattened(members, name, separator, top_level)
            case _:
                return _without(name)

    def _put(self, members: Members, name: str, values: Column, top_level: bool) -> Members:
        """A further member, or none when its name can have no column beside the others."""
        others = t.Struct(fields_of(members))
        if others.accepts_new(name, top_level=top_level, max_fields=len(members) + 1):
            return members | {name: Member(t.column_name(name), values)}
        self._leave_to_documents(values, values.valid())
        return members

    def _merged(self, first: Column, second: Column) -> Column:
        if not second.is_typed:
            return first
        if not first.is_typed:
            return second
        column, misfits = merged(first, second)
        self._leave_to_documents(column, misfits)
        return column

    def _renamed(self, members: Members, name: str, to: str, top_level: bool) -> Members:
        if name not in members:
            return members
        values = members[name].values
        if to in members:
            values = self._merged(values, members[to].values)
        others = {each: member for each, member in members.items() if each not in (name, to)}
        return self._put(others, to, values, top_level)

    def _with_constant(
        self, members: Members, objects: Flags, name: str, value: str | float, top_level: bool
    ) -> Members:
        type_ = _CONSTANT_TYPES[type(value)]
        rows = next((member.values.rows for member in members.values()), np.arange(self._rows))
        array = pc.if_else(pa.array(objects), pa.scalar(value, type_.storage), pa.scalar(None, type_.storage))
        column = Column(type_, array, rows)
        if name in members:
            return _put(members, name, replace(members[name], values=column))
        return self._put(members, name, column, top_level)

    def _flattened(self, members: Members, name: str, separator: str, top_level: bool) -> Members:
        values = members[name].values if name in members else _EMPTY_COLUMN
        self._leave_objects_in_json(values)
        if not isinstance(values.type, t.Struct):
            return members
        by_name: dict[str, Column] = {}
        for path, column in sorted(self._leaves(values, (name,)), key=lambda leaf: flattening_rank(leaf[0])):
            flat = separator.join(path)
            by_name[flat] = self._merged(by_name[flat], column) if flat in by_name else column
        left = {each: member for each, member in members.items() if each != name}
        for flat, column in by_name.items():
            if flat in left:
                left = _put(left, flat, replace(left[flat], values=self._merged(column, left[flat].values)))
            else:
                left = self._put(left, flat, column, top_level)
        return left

    def _leaves(self, column: Column, path: Tokens) -> list[tuple[Tokens, Column]]:
        """Path and values of each typed member at any depth that is no struct."""
        leaves = []
        for name, member in struct_members(column).items():
            below = (*path, name)
            if isinstance(member.values.type, t.Struct):
                leaves += self._leaves(member.values, below)
            elif member.values.is_typed:
                self._leave_objects_in_json(member.values)
                leaves.append((below, member.values))
        return leaves

    def _leave_objects_in_json(self, column: Column) -> None:
        """What is an object in a JSON column would be flattened too."""
        if column.type == t.JSON:
            is_object: t.ArrowArray = pc.fill_null(pc.starts_with(column.one_array, "{"), False)  # type: ignore[type-var]
            self._leave_to_documents(column, flags(is_object))

    # -- include ------------------------------------------------------------------------------------------------------

    def _included(self, members: Members, tree: Mapping[str, Any]) -> Members:
        left = {}
        for name, member in members.items():
            if name not in tree:
                continue
            values = member.values
            if tree[name] is not None:
                values = self._included_part(values, tree[name])
            if values.is_typed or not member.values.is_typed:
                left[name] = replace(member, values=values)
        return left

    def _included_part(self, column: Column, tree: Mapping[str, Any]) -> Column:
        if isinstance(column.type, t.Struct):
            return self._with_members(column, self._included(struct_members(column), tree))
        if isinstance(column.type, t.List):
            return self._with_elements(column, lambda values: self._included_part(values, tree))
        if column.type == t.JSON:
            return self._json_edited(column, lambda value, _: kept(value, tree))
        return replace(_EMPTY_COLUMN, rows=column.rows)


_CONSTANT_TYPES: dict[type, t.Scalar] = {str: t.STRING, bool: t.BOOLEAN, int: t.LONG, float: t.DOUBLE}


def _put(members: Members, name: str, member: Member) -> Members:
    return members | {name: member}


def _without(name: str) -> EditMembers:
    return lambda members, _: {each: member for each, member in members.items() if each != name}


def _no_columns(rows: int) -> pa.Table:
    return pa.table({"_": pa.nulls(rows)}).select([])
