"""What a statement may do: read."""

import re
from typing import Final

import duckdb

from cdc_shared.analytics.statement_parts import NotReadOnly, statement_parts

_READS: Final = frozenset({duckdb.StatementType.SELECT})
_WRITE: Final = frozenset({"write_blob", "write_log"})
"""Scalar functions that DuckDB runs within a SELECT."""
_EXPLAIN: Final = re.compile(r"\s*EXPLAIN(\s+ANALYZE)?(\s*\(\s*(ANALYZE|FORMAT\s+\w+|[\s,])+\))?\s", re.IGNORECASE)


def check_read_only(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    """Check that every statement of a text only reads: SELECT, FROM, WITH, VALUES, DESCRIBE, SHOW, SUMMARIZE, a PIVOT
    that names its values, and EXPLAIN of those; return how many there are. Nothing is run.

    Raises:
        NotReadOnly: one does not, or there is none.
        duckdb.Error: DuckDB does not understand it.
    """
    explained = _EXPLAIN.match(sql)
    # What EXPLAIN ANALYZE explains it also runs; DuckDB does not say what that is.
    inner = sql[explained.end() :] if explained else sql
    statements = connection.extract_statements(inner)
    if not statements:
        raise NotReadOnly("there is no statement: give one, such as SELECT count(*) FROM shop.shop.orders")
    for statement in statements:
        if statement.type not in _READS:
            raise NotReadOnly(
                f"{statement.type.name} is not allowed here: the tables are the delta-writer's, and a query reads. "
                "Begin with SELECT, FROM, WITH, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN; a PIVOT names its values "
                "(ON … IN (…))"
            )
    if writing := sorted(statement_parts(connection, inner).functions & _WRITE):
        raise NotReadOnly(f"{writing[0]}() is not allowed here: it writes, and a query reads")
    return len(statements)
