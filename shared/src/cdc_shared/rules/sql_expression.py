"""One boolean SQL expression: taken apart by DuckDB's own parser, and let through only where every part is known.

What is let through are constants, columns, operators, CASE, casts and the functions listed here: nothing that reads
anything but the row, gives another answer when asked again, or makes a large value of a small one. What is run
is never the text that somebody wrote, but DuckDB's rendering of the parts that were let through.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import duckdb

from cdc_shared.documents import types as t
from cdc_shared.rules.checks import check_pattern
from cdc_shared.rules.sql_functions import (
    DATE_FUNCTIONS,
    FUNCTIONS,
    INTERVAL_FUNCTIONS,
    NOW,
    OPERATORS,
    REGULAR_EXPRESSIONS,
    TYPES,
)

MEMORY_LIMIT: Final = "512MB"
ColumnPath = tuple[str, ...]

_OPERATIONS: Final = frozenset(
    [
        "OPERATOR_NOT",
        "OPERATOR_IS_NULL",
        "OPERATOR_IS_NOT_NULL",
        "OPERATOR_COALESCE",
        "OPERATOR_TRY",
        "COMPARE_IN",
        "COMPARE_NOT_IN",
        "ARRAY_EXTRACT",
        "ARRAY_SLICE",
        "ARRAY_CONSTRUCTOR",
        "STRUCT_EXTRACT",
    ]
)
_EXTRACTS: Final = ("STRUCT_EXTRACT", "ARRAY_EXTRACT")
_ADDS: Final = ("+", "-")
_CARRIES_DATES: Final = frozenset(["+", "-", "ifnull", "nullif", "greatest", "least"])
_MAX_DEPTH: Final = 100
_HOW_IT_IS_SAID: Final = {
    "SUBQUERY": "a sub-query",
    "WINDOW": "a window function",
    "LAMBDA": "a lambda (or `->`)",
    "STAR": "*",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a column by number",
    "COLLATE": "a collation",
}


class RefusedExpression(ValueError):
    """The text is not an expression that a rule may have. The message says why and what to do."""


@dataclass(frozen=True)
class SqlExpression:
    """`sql` is the expression over columns `c0`, `c1`, …, which stand for `columns`: paths of column names.

    `dates` are the positions of columns that are given to functions of dates: the type that they have while they are
    missing, because DuckDB must choose between a date's and a time's `year`.
    """

    sql: str
    columns: tuple[ColumnPath, ...]
    dates: frozenset[int]


def parse_expression(text: str) -> SqlExpression:
    """Take an expression apart. Raises RefusedExpression."""
    reading = _Reading()
    tree = _only_expression(_parsed(text))
    reading.take(tree["select_list"][0], 0)
    rendered = _render(tree)
    return SqlExpression(rendered, tuple(reading.columns), frozenset(reading.dates))


def first_line(error: duckdb.Error) -> str:
    """What DuckDB says, without the piece of the statement below it."""
    return str(error).splitlines()[0].partition(": ")[2] or type(error).__name__


@cache
def database() -> duckdb.DuckDBPyConnection:
    """An empty database that can reach nothing: no files, no network, no extensions, no Python variables; and whose
    settings cannot be changed any more. Take a `cursor()` for each use.
    """
    connection = duckdb.connect(
        config={
            "enable_external_access": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
            "memory_limit": MEMORY_LIMIT,
            "threads": 1,
        }
    )
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute("SET GLOBAL lock_configuration = true")
    return connection


# --- the tree ---------------------------------------------------------------------------------------------------------


def _parsed(text: str) -> dict[str, Any]:
    if "\x00" in text:
        raise RefusedExpression("has a null character")
    with database().cursor() as cursor:
        try:
            row = cursor.execute("SELECT json_serialize_sql(?)", [f"SELECT {text}"]).fetchone()
        except duckdb.Error as error:
            raise RefusedExpression(f"is no SQL that DuckDB understands: {first_line(error)}") from None
    parsed: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
    if parsed["error"]:
        raise RefusedExpression(f"is no SQL expression: {parsed.get('error_message', '')}".rstrip(": "))
    return parsed


def _only_expression(parsed: dict[str, Any]) -> dict[str, Any]:
    """The SELECT, if there is nothing in it but one expression."""
    node = parsed["statements"][0]["node"] if len(parsed["statements"]) == 1 else {}
    bare = (
        node.get("type") == "SELECT_NODE"
        and len(node["select_list"]) == 1
        and node["from_table"]["type"] == "EMPTY"
        and not node["cte_map"]["map"]
        and node["aggregate_handling"] == "STANDARD_HANDLING"
        and not any(
            node.get(part)
            for part in ("modifiers", "where_clause", "group_expressions", "group_sets", "having", "sample", "qualify")
        )
        and not node["select_list"][0]["alias"]
    )
    if not bare:
        raise RefusedExpression("is not one expression: give one that is true or false for a row, such as total >= 0")
    return dict(node)


def _render(node: dict[str, Any]) -> str:
    statement = {"error": False, "statements": [{"node": node, "named_param_map": []}]}
    with database().cursor() as cursor:
        row = cursor.execute("SELECT json_deserialize_sql(?)", [json.dumps(statement)]).fetchone()
    prefix = "SELECT "
    if row is None or not row[0].startswith(prefix):
        raise RefusedExpression("cannot be rendered by DuckDB")
    return str(row[0][len(prefix) :])


class _Reading:
    """Walks a tree, lets through what is known, and gives each column the name that it is run under."""

    def __init__(self) -> None:
        self.columns: list[ColumnPath] = []
        self.dates: set[int] = set()

    def take(self, node: dict[str, Any], depth: int, *, is_date: bool = False) -> None:
        """Check a node and everything below. Raises RefusedExpression."""
        if depth > _MAX_DEPTH:
            raise RefusedExpression(f"nests deeper than {_MAX_DEPTH} levels")
        if node.get("alias"):
            raise RefusedExpression(f"gives a part of it a name ({node['alias']}): leave it out")
        path = _column_path(node)
        if path is not None:
            self._take_column(node, path, is_date)
            return
        for child, child_is_date in self._children(node, is_date):
            self.take(child, depth + 1, is_date=child_is_date)

    def _children(self, node: dict[str, Any], is_date: bool) -> Iterator[tuple[dict[str, Any], bool]]:
        match node["class"]:
            case "CONSTANT":
                return
            case "COMPARISON":
                yield from ((node[side], False) for side in ("left", "right"))
            case "BETWEEN":
                yield from ((node[part], False) for part in ("input", "lower", "upper"))
            case "CONJUNCTION":
                yield from ((child, False) for child in node["children"])
            case "CASE":
                for check in node["case_checks"]:
                    yield check["when_expr"], False
                    yield check["then_expr"], is_date
                yield node["else_expr"], is_date
            case "CAST" if node["cast_type"]["id"] in TYPES:
                yield node["child"], False
            case "CAST":
                raise RefusedExpression(f"casts to {node['cast_type']['id']}: cast to a plain type")
            case "OPERATOR" if node["type"] in _OPERATIONS:
                is_coalesce = node["type"] == "OPERATOR_COALESCE"
                yield from ((child, is_date and is_coalesce) for child in node["children"])
            case "FUNCTION":
                yield from self._arguments(node, is_date)
            case other:
                kind = _HOW_IT_IS_SAID.get(other, f"{other.lower()} {node['type'].lower()}")
                raise RefusedExpression(f"has {kind}: only the row's own values can be asked")

    def _arguments(self, node: dict[str, Any], is_date: bool) -> Iterator[tuple[dict[str, Any], bool]]:
        name = node["function_name"].lower()
        if name not in FUNCTIONS and not (node["is_operator"] and name in OPERATORS):
            raise RefusedExpression(
                f"calls {name}, which is not one of the functions that a rule may call: "
                "docs/architecture/data-quality.md lists them"
            )
        plain = node["schema"] in ("", "main") and not node["catalog"] and not node["distinct"] and not node["filter"]
        if not plain or node["order_bys"]["orders"]:
            raise RefusedExpression(f"calls {name} with more than arguments")
        if name in REGULAR_EXPRESSIONS and len(node["children"]) > 1:
            _check_constant_pattern(node["children"][1])
        of_dates = (
            name in DATE_FUNCTIONS
            or (is_date and name in _CARRIES_DATES)
            or (name in _ADDS and any(_is_interval(child) for child in node["children"]))
        )
        yield from ((child, of_dates) for child in node["children"])

    def _take_column(self, node: dict[str, Any], path: ColumnPath, is_date: bool) -> None:
        if path[0].casefold().startswith(t.RESERVED_PREFIX):
            raise RefusedExpression(f"asks for {path[0]}, which is the platform's own column and not the document's")
        if len(path) == 1 and path[0].casefold() in NOW:
            raise RefusedExpression(f"asks for {path[0]}: a document must get the same answer whenever it is asked")
        if path not in self.columns:
            self.columns.append(path)
        position = self.columns.index(path)
        if is_date:
            self.dates.add(position)
        location = node.get("query_location", 0)
        node.clear()
        node.update({"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": location})
        node["column_names"] = [f"c{position}"]


def _column_path(node: dict[str, Any]) -> ColumnPath | None:
    """The column, or the member of a struct column, that a node is: `a`, `a.b`, `(a).b`, `a['b']`."""
    if node["class"] == "COLUMN_REF":
        return tuple(node["column_names"])
    if node["class"] != "OPERATOR" or node["type"] not in _EXTRACTS or node.get("alias"):
        return None
    struct, member = node["children"]
    above = _column_path(struct)
    if above is None or member["class"] != "CONSTANT" or member["value"]["type"]["id"] != "VARCHAR":
        return None
    return None if member["value"]["is_null"] else (*above, str(member["value"]["value"]))


def _is_interval(node: dict[str, Any]) -> bool:
    """Whether what stands beside it is a date."""
    called = node["class"] == "FUNCTION" and node["function_name"].lower() in INTERVAL_FUNCTIONS
    return called or (node["class"] == "CAST" and node["cast_type"]["id"] == "INTERVAL")


def _check_constant_pattern(node: dict[str, Any]) -> None:
    """A pattern that is not a constant could be refused for one row and not for another, and is compiled for each."""
    if node["class"] != "CONSTANT" or node["value"]["type"]["id"] != "VARCHAR" or node["value"]["is_null"]:
        raise RefusedExpression("has a regular expression that is not a constant text")
    try:
        check_pattern(node["value"]["value"])
    except ValueError as error:
        raise RefusedExpression(str(error)) from None
