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
from cdc_shared.documents.extended_json import dump, string_text
from cdc_shared.documents.inference import infer
from cdc_shared.documents.pointers import pointer_token
from cdc_shared.documents.walker import walk
from cdc_shared.errors import Fatal
from cdc_shared.rules.batch import Batch, nested_pattern
from cdc_shared.rules.field_values import Mask, mask_of
from cdc_shared.rules.sql_expression import (
    ColumnPath,
    RefusedExpression,
    SqlExpression,
    database,
    first_line,
    parse_expression,
)

_TYPE_ERRORS: Final = (
    duckdb.BinderException,
    duckdb.InvalidInputException,
    duckdb.InvalidTypeException,
    duckdb.NotImplementedException,
    duckdb.TypeMismatchException,
)
"""The expression cannot be evaluated for columns of these types."""
_VALUE_ERRORS: Final = (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.OutOfMemoryException)
"""It cannot be evaluated for some row."""
_PLACEHOLDERS: Final = ("_cdc_1", "_cdc_2")
"""Names that never become columns. With them an object has too many members to be an Extended JSON wrapper."""


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
        """Which rows pass; a column of None is missing in all of them."""
        try:
            return self._run(columns, rows)
        except _TYPE_ERRORS:
            return self._evaluate_by_nulls(columns, rows)

    def _evaluate_by_nulls(self, columns: Sequence[t.ArrowArray | None], rows: int) -> Mask:
        """As `_evaluate`, for types that the expression does not take: it may take a row whose value is missing."""
        passing: Mask = np.zeros(rows, np.bool_)
        present = [np.zeros(rows, np.bool_) if each is None else mask_of(each.is_valid()) for each in columns]
        patterns, of_row = np.unique(np.stack(present), axis=1, return_inverse=True)
        for number, pattern in enumerate(patterns.T):
            if all(pattern[index] for index, column in enumerate(columns) if column is not None):
                continue
            group = np.flatnonzero(of_row == number)
            picked = [
                column.take(group) if column is not None and is_present else None
                for column, is_present in zip(columns, pattern, strict=True)
            ]
            try:
                passing[group] = self._run(picked, len(group))
            except _TYPE_ERRORS:
                continue
        return passing

    def _run(self, columns: Sequence[t.ArrowArray | None], rows: int) -> Mask:
        """One query; in halves when DuckDB gives up for a single row's sake. Raises one of _TYPE_ERRORS, or Fatal."""
        arrays = [self._missing(index, rows) if column is None else column for index, column in enumerate(columns)]
        try:
            return mask_of(_query(f"TRY(coalesce(CAST({self.expression.sql} AS BOOLEAN), true))", arrays, rows))
        except _TYPE_ERRORS:
            raise
        except _VALUE_ERRORS:
            if rows == 1:
                return np.zeros(1, np.bool_)
            half = rows // 2
            parts = [(0, half), (half, rows)]
            return np.concatenate([self._run([_slice(c, *part) for c in columns], part[1] - part[0]) for part in parts])
        except duckdb.Error as error:
            # Its message may hold values of documents.
            raise Fatal(f"DuckDB failed on a validation rule's expression ({type(error).__name__})") from None

    def _missing(self, position: int, rows: int) -> t.ArrowArray:
        nulls: t.ArrowArray = pa.nulls(rows)
        return nulls.cast(pa.timestamp("us", "UTC")) if position in self.expression.dates else nulls

    def _try_out(self) -> None:
        """Evaluate it for a row without any value: finds wrong arguments, wrong constants, and what is no condition."""
        nulls = [self._missing(index, 1) for index in range(len(self.expression.columns))]
        try:
            type_ = _query(f"typeof({self.expression.sql})", nulls, 1)[0].as_py()
            _query(f"TRY(coalesce(CAST({self.expression.sql} AS BOOLEAN), true))", nulls, 1)
        except duckdb.Error as error:
            raise RefusedExpression(f"has an expression that DuckDB refuses: {first_line(error)}") from None
        if type_ not in ("BOOLEAN", '"NULL"'):
            raise RefusedExpression(f"has an expression that gives a {type_}: compare it with something")

    # --- documents alone ----------------------------------------------------------------------------------------------

    def _passing(self, documents: Iterable[Any]) -> Mask:
        """Which documents pass, each with the types that its own values call for."""
        texts: dict[t.DocumentSchema, list[tuple[int, str]]] = defaultdict(list)
        count = 0
        for count, document in enumerate(documents, start=1):
            text = self._text_of(document)
            texts[infer([text], t.DocumentSchema())].append((count - 1, text))
        passing: Mask = np.zeros(count, np.bool_)
        for schema, found in texts.items():
            arrays = walk([text for _, text in found], schema).columns(schema)
            by_name = {field.name: array for field, array in zip(schema.stored, arrays, strict=True)}
            columns = [by_name.get(f"c{index}") for index in range(len(self.expression.columns))]
            passing[[row for row, _ in found]] = self._evaluate(columns, len(found))
        return passing

    def _text_of(self, document: Any) -> str:
        """A document of the values that the expression's columns have, under the names that it is run with."""
        values: dict[str, Any] = dict.fromkeys(_PLACEHOLDERS)
        for index, path in enumerate(self.expression.columns):
            values[f"c{index}"] = _without_repeats(_member(document, path))
        return dump(values)


def _query(expression: str, arrays: Sequence[t.ArrowArray], rows: int) -> t.ArrowArray:
    """The expression's value for each row. Raises duckdb.Error."""
    names = [f"c{index}" for index in range(len(arrays))]
    if not arrays:  # a table must have a column
        names, arrays = ["none"], [pa.nulls(rows)]
    with database().cursor() as cursor:
        cursor.register("row_values", pa.table(list(arrays), names=names))
        result = cursor.execute(f"SELECT {expression} AS result FROM row_values").to_arrow_table()["result"]
    return result.chunk(0) if result.num_chunks == 1 else result.combine_chunks()


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


def _without_repeats(value: Any) -> Any:
    """The last of several members of one name, as every reader of JSON takes it."""
    if type(value) is DuplicateKeys:
        value = dict(value.pairs)
    if type(value) is dict:
        return {name: _without_repeats(member) for name, member in value.items()}
    return [_without_repeats(element) for element in value] if type(value) is list else value


def _pattern(path: ColumnPath) -> str:
    """Matches rescued pointers to fields of which the column may be: whatever stands for `_`, in either case."""
    return "(?i)" + nested_pattern([_name_pattern(name) for name in path])


def _name_pattern(name: str) -> str:
    if not name.isascii():
        return '[^"/]*'
    escaped = re.escape(string_text(pointer_token(name))[1:-1])
    return escaped.replace("_", r"(?:\\.[0-9a-f]{0,4}|.)?")
