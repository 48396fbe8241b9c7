"""What went wrong with a query, said of the table and the object store instead of DuckDB's inner parts."""

import re

import duckdb

_TABLE = re.compile(r"delta_scan\(\s*'([^']*)'", re.IGNORECASE)
_NO_TABLE = ("No files in log segment", "NoSuchBucket", "InvalidTableLocation")
_NO_ANSWER = "error sending request"


def explain(error: duckdb.Error, sql: str) -> str:
    """One line with the remedy for a table that is not there or a store that does not answer; else DuckDB's text."""
    text = str(error)
    tables = " or ".join(dict.fromkeys(_TABLE.findall(sql)))
    if tables and any(sign in text for sign in _NO_TABLE):
        return f"no Delta table at {tables}: correct its address, or see `make status` whether its pipeline runs"
    if _NO_ANSWER in text:
        return "the object store does not answer: see `make status`"
    return text
