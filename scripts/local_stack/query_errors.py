"""What went wrong with a query, said of the table and the object store instead of DuckDB's inner parts."""

import re
from collections.abc import Callable

import duckdb
from obstore.exceptions import BaseError

from cdc_shared.errors import CdcError

_TABLE = re.compile(r"delta_scan\(\s*'([^']*)'", re.IGNORECASE)
_NO_TABLE = ("No files in log segment", "NoSuchBucket", "InvalidTableLocation")
_AT_VERSION = re.compile(r"delta_scan\(\s*'([^']*)'\s*,\s*version\s*=>?\s*(\d+)", re.IGNORECASE)
_NO_VERSION = (*_NO_TABLE, "not the same as the specified end version", "File not found", "404 Not Found")
_NO_ANSWER = "error sending request"


def explain(error: duckdb.Error, sql: str, readable: Callable[[str], range]) -> str:
    """One line with the remedy for a table or a version that is not there, or a store that does not answer; else
    DuckDB's text. `readable`: the versions that a table's log leads to; it may raise `CdcError`, or the store's errors.
    """
    text = str(error)
    if any(sign in text for sign in _NO_VERSION) and (gone := _version_gone(sql, readable)):
        return gone
    tables = " or ".join(dict.fromkeys(_TABLE.findall(sql)))
    if tables and any(sign in text for sign in _NO_TABLE):
        return f"no Delta table at {tables}: correct its address, or see `make status` whether its pipeline runs"
    if _NO_ANSWER in text:
        return "the object store does not answer: see `make status`"
    return text


def _version_gone(sql: str, readable: Callable[[str], range]) -> str | None:
    for table, version in _AT_VERSION.findall(sql):
        try:
            versions = readable(table)
        except (CdcError, BaseError, OSError):  # what DuckDB says is all that is known
            continue
        if versions and int(version) not in versions:
            why = "is not there any more" if int(version) < versions.start else "is not there yet"
            return f"version {version} of {table} {why}: versions {versions[0]} to {versions[-1]} can be read"
    return None
