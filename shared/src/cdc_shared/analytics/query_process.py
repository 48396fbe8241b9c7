"""One statement in a process of its own: `python -m cdc_shared.analytics.query_process < request > result`.

Whatever a statement does to DuckDB (too much memory, an endless loop, a crash) it does to this process, which holds
nothing but the object store's key, and which whoever started it may kill at any time. The answer itself goes to a file.
"""

import os
import resource
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec
import pyarrow as pa

from cdc_shared.analytics.bounded_answer import AnswerBounds, BoundedFormat, write_bounded
from cdc_shared.analytics.lake import LakeLimits
from cdc_shared.analytics.query_errors import NoSuchTable, NoSuchVersion, QueryFailed, QueryTimeout, QueryTooLarge
from cdc_shared.analytics.sandbox import SandboxedLake
from cdc_shared.analytics.statement_parts import NotReadOnly
from cdc_shared.delta.time_travel import NoSuchMoment
from cdc_shared.errors import CdcError, Fatal, Transient, shown
from cdc_shared.settings import ObjectStoreSettings

BESIDES_DUCKDB_MB: Final = 2048
"""Of a process's memory: code, threads' stacks, and what Python and Arrow hold of an answer."""
ERRORS: Final[dict[str, Callable[[str], CdcError]]] = {
    each.__name__: each
    for each in (
        NoSuchTable,
        NoSuchVersion,
        NoSuchMoment,
        NotReadOnly,
        QueryFailed,
        QueryTimeout,
        QueryTooLarge,
        Transient,
        Fatal,
    )
}


class QueryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A statement, who asks, and what it may take.

    Attributes:
        stores: the fields of `ObjectStoreSettings`, secrets in plain: it is sent through a pipe.
        pipelines: those whose tables may be read; None: all.
        directory: for the answer (`ANSWER`), and for what memory cannot hold.
    """

    sql: str
    as_of: datetime | int | None
    format: BoundedFormat
    stores: dict[str, Any]
    pipelines: list[str] | None
    directory: str
    memory_mb: int
    threads: int
    timeout_s: float
    max_rows: int
    max_bytes: int


class QueryResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How it ended: with an answer in the file, or with an error, by the name of its type (`ERRORS`)."""

    rows: int = 0
    truncated: bool = False
    tables: dict[str, int] = {}
    error: str | None = None
    message: str = ""


ANSWER: Final = "answer"


def main() -> None:
    """Answer the request on standard input. The result goes to standard output, whatever it is."""
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no part of the result
    asked = sys.stdin.buffer.read()
    if not asked:  # whoever started it is gone, and has none
        return
    request = msgspec.msgpack.decode(asked, type=QueryRequest)
    limit = (request.memory_mb + BESIDES_DUCKDB_MB) * 1024**2
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with results:
        results.write(msgspec.msgpack.encode(_answer(request)))


def _answer(request: QueryRequest) -> QueryResult:
    try:
        return run_request(request)
    except (duckdb.OutOfMemoryException, MemoryError):
        return _too_large(request)
    except CdcError as error:
        kind = next(each.__name__ for each in type(error).__mro__ if each.__name__ in ERRORS or each is CdcError)
        return QueryResult(error=kind if kind in ERRORS else QueryFailed.__name__, message=str(error))
    except (duckdb.Error, pa.ArrowException, ValueError, OverflowError, OSError) as error:
        return QueryResult(error=QueryFailed.__name__, message=str(error) or shown(error))


def _too_large(request: QueryRequest) -> QueryResult:
    message = f"the query needs more memory than the {request.memory_mb} MB, and room to spill, that it may take"
    return QueryResult(error=QueryTooLarge.__name__, message=f"{message}: ask for less")


def run_request(request: QueryRequest) -> QueryResult:
    """Run the statement and write its answer. Raises what `SandboxedLake` does, and `QueryTooLarge`."""
    directory = Path(request.directory)
    lake = SandboxedLake(
        ObjectStoreSettings(**request.stores),
        None,
        LakeLimits(memory_mb=request.memory_mb, threads=request.threads, timeout_s=request.timeout_s),
        pipelines=None if request.pipelines is None else frozenset(request.pipelines),
        spill=directory / "spill",
    )
    bounds = AnswerBounds(request.max_rows, request.max_bytes)
    with lake, lake.stream(request.sql, request.as_of) as answer, (directory / ANSWER).open("wb") as file:
        tables = {each.table.view: each.version for each in lake.pinned}
        written = write_bounded(answer, request.format, tables, bounds, file)
    return QueryResult(rows=written.rows, truncated=written.truncated, tables=tables)


if __name__ == "__main__":
    main()
