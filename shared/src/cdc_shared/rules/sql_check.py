"""The sql rule: a boolean expression, evaluated by DuckDB over whole columns.

What an expression says of a document depends on that document alone. Columns have the types that the batch gives them;
a row that has a value which does not fit its column, or which is in a JSON column, is evaluated with the types that its
own values call for. A part of the expression that fails for a row (a cast, an overflow, an operation that the row's
types do not have) fails the row, and no other.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bson import Timestamp

from cdc_shared.documents import types as t
from cdc_shared.documents.bson_values import DuplicateKeys, RegularExpression
from cdc_shared.documents.extended_json import string_text
from cdc_shared.documents.inference import infer_documents
from cdc_shared.documents.pointers import pointer_token
from cdc_shared.documents.walker import walk_documents
from cdc_shared.errors import Fatal
from cdc_shared.rules.batch import Batch, nested_pattern
from cdc_shared.rules.field_values import Mask, Positions, mask_of, one_piece
from cdc_shared.rules.sql_expression import (
    ColumnPath,
    RefusedExpression,
    SqlExpression,
    database,
    first_line,
    parse_expression,
)

_EXPRESSION_ERRORS: Final = (
    duckdb.BinderException,
    duckdb.ConversionException,
    duckdb.InvalidInputException,
    duckdb.InvalidTypeException,
    duckdb.NotImplementedException,
    duckdb.OutOfMemoryException,
    duckdb.OutOfRangeException,
    duckdb.TypeMismatchException,
)
"""The expression cannot be evaluated: for columns of these types, or for some row, though it is tried (SQL's TRY)."""
_NO_MEMBER: Final = {"_cdc_none": None}
"""What an object without members is to DuckDB, which has no type for it."""


@dataclass(frozen=True)
class SqlCheck:
    expression: SqlExpression
    failure: str = "its expression is false, or fails, for the document"

    @classmethod
    def of(cls, text: str) -> "SqlCheck":
        """Raises RefusedExpression, with the reason, for a text that is no expression that a rule may have."""
        check = cls(parse_expression(text))
        check._try_out()
        return check

    def passes(self, document: Any) -> bool:
        return bool(self._passing([document])[0])

    def failing(self, batch: Batch) -> Mask:
        """The rows that fail. Those that are not open may be wrong."""
        columns: list[t.ArrowArray | None] = []
        unsure = batch.none()
        for path in self.expression.columns:
            values, opaque = _column(batch, path)
            columns.append(values)
            unsure |= opaque | batch.touched(_pattern(path))
        failing = ~self._evaluate(columns, batch.rows)
        alone = np.flatnonzero(unsure & batch.is_open)
        if len(alone):
            failing[alone] = ~self._passing([batch.document(int(row)) for row in alone])
        return failing

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def _evaluate(self, columns: Sequence[t.ArrowArray | None], rows: int) -> Mask:
        """Which rows pass; a column of None is missing in all of them.

        A row for which the expression fails is asked again without the types of the values that it does not have:
        `name = 'x'` fails for a column of numbers, and says nothing of a row without a name.
        """
        try:
            answers = self._run(columns, rows)
        except _EXPRESSION_ERRORS:
            return self._evaluate_by_nulls(columns, np.arange(rows))
        passing = mask_of(answers)
        failed = ~mask_of(answers.is_valid())
        lacking = failed & np.logical_or.reduce([_is_null(column, rows) for column in columns] or [failed & False])
        if lacking.any():
            passing[lacking] = self._evaluate_by_nulls(columns, np.flatnonzero(lacking))
        return passing

    def _evaluate_by_nulls(self, columns: Sequence[t.ArrowArray | None], rows: Positions) -> Mask:
        """Which of these rows pass, rows that lack the same values together, and those columns without a type."""
        passing: Mask = np.zeros(len(rows), np.bool_)
        columns = [None if column is None else column.take(rows) for column in columns]
        lacks = np.stack([_is_null(column, len(rows)) for column in columns] or [passing])
        patterns, pattern_of = np.unique(lacks, axis=1, return_inverse=True)
        for number, lacking in enumerate(patterns.T):
            group = np.flatnonzero(pattern_of.reshape(-1) == number)
            picked = [
                None if column is None or is_lacking else column.take(group)
                for column, is_lacking in zip(columns, lacking, strict=False)
            ]
            passing[group] = self._evaluate_group(picked, len(group))
        return passing

    def _evaluate_group(self, columns: Sequence[t.ArrowArray | None], rows: int) -> Mask:
        """Which rows pass. If DuckDB gives up for the types, all fail; if for a row, that one, which halving finds."""
        try:
            return mask_of(self._run(columns, rows))
        except _EXPRESSION_ERRORS:
            if rows == 1 or not self._takes_types(columns):
                return np.zeros(rows, np.bool_)
        half = rows // 2
        first = self._evaluate_group([_slice(column, 0, half) for column in columns], half)
        return np.append(first, self._evaluate_group([_slice(column, half, rows) for column in columns], rows - half))

    def _takes_types(self, columns: Sequence[t.ArrowArray | None]) -> bool:
        try:
            self._run([_slice(column, 0, 0) for column in columns], 0)
        except _EXPRESSION_ERRORS:
            return False
        return True

    def _run(self, columns: Sequence[t.ArrowArray | None], rows: int) -> t.ArrowArray:
        """Whether each row passes, null for one that the expression fails for. Raises one of _EXPRESSION_ERRORS, or
        Fatal when DuckDB itself fails.
        """
        arrays = [self._missing(index, rows) if column is None else column for index, column in enumerate(columns)]
        try:
            return _query(self._condition, arrays, rows)
        except _EXPRESSION_ERRORS:
            raise
        except duckdb.Error as error:
            # Its message may hold values of documents.
            raise Fatal(f"DuckDB failed on a validation rule's expression ({type(error).__name__})") from None

    @property
    def _condition(self) -> str:
        return f"TRY(coalesce(CAST({self.expression.sql} AS BOOLEAN), true))"

    def _missing(self, position: int, rows: int) -> t.ArrowArray:
        nulls: t.ArrowArray = pa.nulls(rows)
        return nulls.cast(pa.timestamp("us", "UTC")) if position in self.expression.dates else nulls

    def _try_out(self) -> None:
        """Evaluate it for a row without any value: finds wrong arguments, wrong constants, and what is no condition."""
        nulls = [self._missing(index, 1) for index in range(len(self.expression.columns))]
        try:
            type_ = _query(f"typeof({self.expression.sql})", nulls, 1)[0].as_py()
            _query(self._condition if nulls else self.expression.sql, nulls, 1)
        except duckdb.Error as error:
            raise RefusedExpression(f"has an expression that DuckDB refuses: {first_line(error)}") from None
        if type_ not in ("BOOLEAN", '"NULL"'):
            raise RefusedExpression(f"has an expression that gives a {type_}: compare it with something")

    # --- documents alone ----------------------------------------------------------------------------------------------

    def _passing(self, documents: Sequence[Any]) -> Mask:
        """Which documents pass, each with the types that its own values call for."""
        of_types: dict[_Types, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        for row, document in enumerate(documents):
            values = {f"c{n}": _plain(_member(document, path)) for n, path in enumerate(self.expression.columns)}
            of_types[_types(values)].append((row, values))
        passing: Mask = np.zeros(len(documents), np.bool_)
        for (schema, empty), found in of_types.items():
            arrays = walk_documents((values for _, values in found), schema).columns(schema)
            columns = {field.name: array for field, array in zip(schema.stored, arrays, strict=True)}
            columns |= {name: pa.array([values[name] for _, values in found], type_) for name, type_ in empty}
            in_order = [columns.get(f"c{n}") for n in range(len(self.expression.columns))]
            passing[[row for row, _ in found]] = self._evaluate(in_order, len(found))
        return passing


_Types = tuple[t.DocumentSchema, tuple[tuple[str, pa.DataType], ...]]


def _types(values: dict[str, Any]) -> _Types:
    """The columns that values call for, and the Arrow types of those with nothing typed in them: empty arrays."""
    schema = infer_documents([values], t.DocumentSchema())
    typed = {field.name for field in schema.stored}
    empty = [(name, value) for name, value in values.items() if value is not None and name not in typed]
    return schema, tuple((name, pa.array([value]).type) for name, value in empty)


def _query(expression: str, arrays: Sequence[t.ArrowArray], rows: int) -> t.ArrowArray:
    """The expression's value for each row. Raises duckdb.Error."""
    names = [f"c{index}" for index in range(len(arrays))]
    if not arrays:  # a table must have a column
        names, arrays = ["none"], [pa.nulls(rows)]
    with database().cursor() as cursor:
        cursor.register("row_values", pa.table(list(arrays), names=names))
        query = f"SELECT {expression} AS result FROM row_values"  # nosec B608 # rendered from parts let through
        result = cursor.execute(query).to_arrow_table()["result"]
    return one_piece(result)


def _is_null(column: t.ArrowArray | None, rows: int) -> Mask:
    return np.ones(rows, np.bool_) if column is None else mask_of(column.is_null())


def _slice(column: t.ArrowArray | None, start: int, stop: int) -> t.ArrowArray | None:
    return None if column is None else column.slice(start, stop - start)


# --- columns ----------------------------------------------------------------------------------------------------------


def _column(batch: Batch, path: ColumnPath) -> tuple[t.ArrowArray | None, Mask]:
    """A column, or the member of a struct column, None if there is none; and rows where JSON stands in its place."""
    opaque = batch.none()
    index = _find([field.column for field in batch.schema.stored], path[0])
    if index is None:
        return None, opaque
    type_, values = batch.schema.stored[index].type, batch.column(index)
    for name in path[1:]:
        members = _members(type_)
        index = None if members is None else _find([column for column, _ in members], name)
        if index is None or members is None:
            values = None if type_ != t.JSON else values
            break
        type_, values = members[index][1], pc.struct_field(values, index)
    if type_ == t.JSON:
        return None, mask_of(values.is_valid())
    return values, opaque


def _members(type_: t.FieldType) -> list[tuple[str, t.FieldType]] | None:
    if isinstance(type_, t.Struct):
        return [(field.column, field.type) for field in type_.stored]
    if type_ == t.REGEX:
        return [("pattern", t.STRING), ("options", t.STRING)]
    return [("t", t.LONG), ("i", t.LONG)] if type_ == t.TIMESTAMP else None


def _find(columns: Iterable[str], name: str) -> int | None:
    """SQL does not tell upper from lower case."""
    folded = name.casefold()
    return next((index for index, column in enumerate(columns) if column.casefold() == folded), None)


def _member(value: Any, path: ColumnPath) -> Any:
    """A document's value in a column, or in a member of a struct column."""
    for name in path:
        if type(value) is DuplicateKeys:
            value = dict(value.pairs)
        elif type(value) is RegularExpression:
            value = {"pattern": value.pattern, "options": value.options}
        elif type(value) is Timestamp:
            value = {"t": value.time, "i": value.inc}
        if type(value) is not dict:
            return None
        names = [each for each, member in value.items() if member is not None]
        index = _find([t.column_name(each) for each in names], name)
        value = None if index is None else value[names[index]]
    return value


def _plain(value: Any, *, in_array: bool = False) -> Any:
    """A value without what has no type by itself: of several members of one name only the last, as readers of JSON take
    it; an object without members has one that is null; and an empty array within an array is null.
    """
    if type(value) is DuplicateKeys:
        value = dict(value.pairs)
    if type(value) is dict:
        return {name: _plain(member, in_array=in_array) for name, member in value.items()} or dict(_NO_MEMBER)
    if type(value) is list:
        return [_plain(element, in_array=True) for element in value] or (None if in_array else [])
    return value


def _pattern(path: ColumnPath) -> str:
    """Matches rescued pointers to fields of which the column may be: whatever stands for `_`, in either case."""
    return "(?i)" + nested_pattern([_name_pattern(name) for name in path])


def _name_pattern(name: str) -> str:
    if not name.isascii():
        return '[^"/]*'
    escaped = re.escape(string_text(pointer_token(name))[1:-1])
    return escaped.replace("_", r"(?:\\.[0-9a-f]{0,4}|.)?")
