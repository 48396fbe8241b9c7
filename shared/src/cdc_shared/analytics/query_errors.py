"""What went wrong with a query, said of tables and the object store instead of DuckDB's inner parts."""

import re
from collections.abc import Callable, Sequence
from typing import Final

import duckdb

from cdc_shared.analytics.table_catalog import LakeTable
from cdc_shared.errors import CdcError, Fatal, Transient

NAMES_SHOWN: Final = 20
_SCANNED: Final = re.compile(r"delta_scan\(\s*'([^']*)'", re.IGNORECASE)
_SCANNED_VERSION: Final = re.compile(r"delta_scan\(\s*'([^']*)'\s*,\s*version\s*=>?\s*(\d+)", re.IGNORECASE)
_NO_TABLE: Final = ("No files in log segment", "NoSuchBucket", "InvalidTableLocation")
_NO_NAME: Final = re.compile(r"(Table|Catalog|Schema) .*does not exist", re.IGNORECASE)
_NO_FILE: Final = ("404 Not Found", "File not found", "No such file or directory")
_NO_VERSION: Final = (*_NO_TABLE, *_NO_FILE, "not the same as the specified end version")
_NO_ANSWER: Final = "error sending request"


class NoSuchTable(Fatal):
    """The statement names a table that is not there. The message has those that are."""


class NoSuchVersion(Fatal):
    """A table cannot be read at the version asked for. The message says which it can be read at."""


class QueryFailed(CdcError):
    """DuckDB could not go on with a statement; the message is its own."""


class QueryTooLarge(CdcError):
    """The statement, or its answer, takes more memory or room than allowed."""


class QueryTimeout(CdcError):
    """The statement took longer than allowed."""


def explained(
    error: Exception, sql: str, tables: Callable[[], Sequence[LakeTable]], readable: Callable[[str], range]
) -> Exception:
    """Return the error to raise instead of DuckDB's: the same one when there is nothing better to say.

    `tables` are those that can be asked about; `readable`, the versions that the log of the table at a URL leads to.
    Both are called when something is missing, and may raise `CdcError`.
    """
    text = str(error)
    if any(sign in text for sign in _NO_VERSION) and (gone := _version_gone(sql, readable)):
        return NoSuchVersion(gone)
    if any(sign in text for sign in _NO_TABLE):
        scanned = " or ".join(dict.fromkeys(_SCANNED.findall(sql))) or "one of the addresses"
        return NoSuchTable(f"no Delta table at {scanned}: correct its address, or see whether its pipeline runs")
    if isinstance(error, duckdb.CatalogException | duckdb.BinderException) and _NO_NAME.search(text):
        return NoSuchTable(f"there is no such table ({text.splitlines()[0]}). {names_of(tables)}")
    if any(sign in text for sign in _NO_FILE):
        return Transient(
            "a file is not there: its address is wrong, or vacuum has deleted it while the query ran. Ask again; if it "
            "stays, ask as of a later time"
        )
    if _NO_ANSWER in text:
        return Transient("the object store does not answer: see whether it runs, and S3_ENDPOINT")
    return error


def _version_gone(sql: str, readable: Callable[[str], range]) -> str | None:
    for table, version in _SCANNED_VERSION.findall(sql):
        try:
            versions = readable(table)
        except CdcError:  # what DuckDB says is all that is known
            continue
        if versions and int(version) not in versions:
            return version_is_not_there(table, int(version), versions)
    return None


def version_is_not_there(table: str, version: int, versions: range) -> str:
    """Say of a version outside those that can be read which side it lies on, and which can."""
    why = "is not there any more" if version < versions.start else "is not there yet"
    return f"version {version} of {table} {why}: versions {versions[0]} to {versions[-1]} can be read"


def names_of(tables: Callable[[], Sequence[LakeTable]]) -> str:
    """Say which tables there are, the first twenty by name, or why that cannot be told."""
    try:
        names = [table.view for table in tables()]
    except CdcError as error:
        return f"Which tables there are cannot be told: {error}"
    if not names:
        return "There is no table yet: a pipeline makes one for each collection that has documents."
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return f"There are: {', '.join(names[:NAMES_SHOWN])}{more}"
