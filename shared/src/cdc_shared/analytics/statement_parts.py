"""What a statement is made of, as DuckDB's own parser has it: the tables, functions and names in it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from cdc_shared.errors import Fatal


class NotReadOnly(Fatal):
    """The statement would change something, or might, or reach beyond the tables. The message says what is allowed."""


@dataclass(frozen=True, slots=True)
class StatementParts:
    """All that the SELECTs of a text name, wherever it stands in them; functions in lower case.

    Attributes:
        tables: (catalog, schema, name) as written, each "" where it is not given.
        table_functions: after FROM.
        functions: everywhere else, operators as well.
        ctes: names that WITH gives.
        shows: what SHOW lists (tables, databases …), other than the columns of a table or a query.
    """

    tables: frozenset[tuple[str, str, str]]
    table_functions: frozenset[str]
    functions: frozenset[str]
    ctes: frozenset[str]
    shows: frozenset[str]


def statement_parts(connection: duckdb.DuckDBPyConnection, sql: str) -> StatementParts:
    """Take a text apart, without running it or looking for its tables.

    Raises `NotReadOnly` for what is no SELECT, or nested too deeply, and `duckdb.ParserException`.
    """
    [(text,)] = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    try:
        tree = json.loads(text)
    except RecursionError:
        raise NotReadOnly("the statement is nested too deeply: take it apart, WITH names its parts") from None
    if tree["error"]:
        if tree["error_type"] == "parser":
            raise duckdb.ParserException(f"Parser Error: {tree['error_message']}")
        raise NotReadOnly(
            f"only SELECT, FROM, WITH, VALUES, DESCRIBE and SUMMARIZE are allowed: {tree['error_message']}"
        )
    return _parts_of(tree["statements"])


def _parts_of(statements: list[Any]) -> StatementParts:
    tables: set[tuple[str, str, str]] = set()
    found: dict[str, set[str]] = {"table_functions": set(), "functions": set(), "ctes": set(), "shows": set()}
    for node in _nodes(statements):
        match node:
            case {"type": "BASE_TABLE"}:
                tables.add((node["catalog_name"], node["schema_name"], node["table_name"]))
            case {"type": "SHOW_REF", "query": None, "table_name": str(name)}:
                found["shows"].add(name.strip('"'))
            case {"type": "TABLE_FUNCTION", "function": {"function_name": str(name)}}:
                found["table_functions"].add(name.lower())
            case {"function_name": str(name)}:
                found["functions"].add(name.lower())
            case {"cte_map": {"map": list(named)}}:
                found["ctes"].update(each["key"].casefold() for each in named)
    return StatementParts(tables=frozenset(tables), **{name: frozenset(each) for name, each in found.items()})


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of the tree. A table function's own call is part of its node, and not given again."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            if node.get("type") == "TABLE_FUNCTION":
                call = node["function"]
                waiting.extend(value for key, value in call.items() if key != "function_name")
                waiting.extend(value for key, value in node.items() if key != "function")
            else:
                waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
