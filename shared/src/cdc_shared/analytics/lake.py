"""SQL on the tables as they are called: each collection is a view `<pipeline>.<database>.<collection>`.

    with Lake(load_settings(ObjectStoreSettings)) as lake:
        lake.query("SELECT status, count(*) FROM shop.shop.orders GROUP BY status").to_pandas()
        lake.query("SELECT count(*) FROM shop.shop.orders", as_of=datetime(2026, 11, 17, tzinfo=UTC))

A statement sees one version of each table, however often it names it and whatever is committed meanwhile: its views are
made for it, of versions that are fixed first. What a query reads therefore is whole batches of the delta-writer's.
"""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Final, Self

import duckdb
import pyarrow as pa

from cdc_shared.analytics.duckdb_client import connect, delta_scan_sql, version_then
from cdc_shared.analytics.query_errors import (
    NoSuchTable,
    NoSuchVersion,
    QueryFailed,
    QueryTimeout,
    explained,
    names_of,
    version_is_not_there,
)
from cdc_shared.analytics.read_only import check_read_only
from cdc_shared.analytics.table_catalog import LakeTable, TableCatalog, quoted_name
from cdc_shared.delta.log import DeltaLog
from cdc_shared.errors import Fatal
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store, store_errors

BATCH_ROWS: Final = 65_536


@dataclass(frozen=True, slots=True)
class LakeLimits:
    """What one `Lake` may take.

    Attributes:
        memory_mb: of DuckDB; what does not fit goes to a temporary directory, or is told. None: most of the machine's.
        threads: None: one for each core.
        timeout_s: of each statement, to its last row. None: as long as it takes.
    """

    memory_mb: int | None = None
    threads: int | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class PinnedTable:
    """A table, and the version of it that a statement reads."""

    table: LakeTable
    version: int


class Lake:
    """DuckDB with the tables under a root (DELTA_ROOT when none is given). Read-only. Not for several threads at once.

    Every method that takes a statement may raise:
        NoSuchTable: it names a table that is not there; the message has those that are.
        NoSuchMoment, NoSuchVersion: a table does not go back so far; the message says how far it does.
        QueryTimeout: it took longer than allowed.
        NotReadOnly: it would change something.
        Transient, Fatal: the object store does not answer, or refuses.
        duckdb.Error, QueryFailed: DuckDB does not understand it, or cannot go on, as it says.
    """

    def __init__(
        self,
        settings: ObjectStoreSettings,
        root: str | None = None,
        limits: LakeLimits | None = None,
        *,
        pipelines: Collection[str] | None = None,
    ) -> None:
        """`pipelines`: those whose tables are there; None: all under the root."""
        self._settings = settings
        self._limits = limits or LakeLimits()
        self.catalog = TableCatalog(settings, settings.root_for(root), pipelines)
        self.pinned: tuple[PinnedTable, ...] = ()
        """The tables of the last statement."""
        self.connection = connect(settings, memory_mb=self._limits.memory_mb, threads=self._limits.threads)

    def tables(self) -> list[LakeTable]:
        """Return every table that can be asked about, by name."""
        return [table for table in self.catalog.tables() if self._versions(table.url)]

    def query(self, sql: str, as_of: datetime | int | None = None) -> pa.Table:
        """Return the whole answer.

        `as_of`: an aware datetime, a time in the source: every table as it was then (`as_of_sql`); or a version,
        for a statement about one table.
        """
        with self.stream(sql, as_of) as batches:
            return batches.read_all()

    @contextmanager
    def stream(self, sql: str, as_of: datetime | int | None = None) -> Iterator[pa.RecordBatchReader]:
        """Give the answer in batches, as it is worked out, without holding it whole."""
        with self._answering(sql), self.in_time():
            self._prepare(sql, as_of)
            yield self.connection.sql(sql).to_arrow_reader(BATCH_ROWS)

    def relation(self, sql: str, as_of: datetime | int | None = None) -> duckdb.DuckDBPyRelation:
        """Return the answer as DuckDB's relation, which is worked out when it is used: without the time limit."""
        with self._answering(sql):
            self._prepare(sql, as_of)
            return self.connection.sql(sql)

    def explain(self, sql: str, as_of: datetime | int | None = None) -> str:
        """Run the statement; return DuckDB's plan of it, with times, rows, files read and skipped, and bytes."""
        with self._answering(sql), self.in_time():
            if self._prepare(sql, as_of) > 1:
                raise Fatal("there are several statements: one can be explained at a time")
            [(_, plan)] = self.connection.execute(f"EXPLAIN ANALYZE {sql}").fetchall()
            return str(plan)

    def close(self) -> None:
        """Close DuckDB."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, sql: str, as_of: datetime | int | None) -> int:
        """Check a text and make the views that it needs; return how many statements it has."""
        statements = check_read_only(self.connection, sql)
        self.pinned = tuple(self._pin(sql, as_of))
        for each in self.pinned:
            self._make_view(each)
        return statements

    # -- views --------------------------------------------------------------------------------------------------------

    def _pin(self, sql: str, as_of: datetime | int | None) -> Iterator[PinnedTable]:
        """Fix the version of each table that the statement names."""
        tables = self.catalog.tables(named_in=sql)
        _check_distinct(tables)
        if isinstance(as_of, int) and len(tables) > 1:
            names = ", ".join(table.view for table in tables)
            raise Fatal(f"a version is one table's own, and this is about {names}: give a time instead")
        for table in tables:
            if versions := self._versions(table.url):  # else a directory, and no table
                yield PinnedTable(table, self._version(table, versions, as_of))

    def _version(self, table: LakeTable, versions: range, as_of: datetime | int | None) -> int:
        if isinstance(as_of, datetime):
            return version_then(self._settings, table.url, as_of)
        if as_of is not None and as_of not in versions:
            raise NoSuchVersion(version_is_not_there(table.view, as_of, versions))
        return versions[-1] if as_of is None else as_of

    def _make_view(self, pinned: PinnedTable) -> None:
        table = pinned.table
        pipeline, database = quoted_name(table.pipeline), quoted_name(table.database)
        self.connection.execute(f"ATTACH IF NOT EXISTS ':memory:' AS {pipeline}")
        self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {pipeline}.{database}")
        scan = delta_scan_sql(table.url, pinned.version)
        self.connection.execute(f"CREATE OR REPLACE VIEW {table.view} AS SELECT * FROM {scan}")  # nosec B608

    def those_there(self) -> str:
        """Say which tables there are, as part of a message."""
        return names_of(self.tables)

    def _versions(self, url: str) -> range:
        with store_errors(f"reading the log of {url}"):
            return DeltaLog(open_store(url, self._settings)).readable_versions()

    # -- errors and limits --------------------------------------------------------------------------------------------

    @contextmanager
    def _answering(self, sql: str) -> Iterator[None]:
        try:
            yield
        except (duckdb.Error, pa.ArrowException) as error:
            raise explained(error, sql, self.tables, self._versions) from None
        except OSError as error:
            if error.errno is not None:  # not from a batch of the answer
                raise
            raise explained(QueryFailed(str(error)), sql, self.tables, self._versions) from None

    @contextmanager
    def in_time(self) -> Iterator[None]:
        """Interrupt what runs when the time is over, and say so."""
        if self._limits.timeout_s is None:
            yield
            return
        over = threading.Event()

        def interrupt() -> None:
            over.set()
            self.connection.interrupt()

        timer = threading.Timer(self._limits.timeout_s, interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError, RuntimeError):
            if not over.is_set():
                raise
            raise QueryTimeout(
                f"the query took longer than {self._limits.timeout_s:g} s: ask for less (fewer columns, a narrower "
                "filter), or allow it more time"
            ) from None
        finally:
            timer.cancel()


def _check_distinct(tables: list[LakeTable]) -> None:
    """SQL names are alike in any case; collections of MongoDB are not."""
    seen: dict[tuple[str, str, str], LakeTable] = {}
    for table in tables:
        pipeline, database, collection = map(str.casefold, table.names)
        name = (pipeline, database, collection)
        other = seen.setdefault(name, table)
        if other is not table:
            raise NoSuchTable(
                f"{table.view} is two tables, whose names differ in case only; name one by its address: "
                f"FROM {delta_scan_sql(other.url)} or FROM {delta_scan_sql(table.url)}"
            )
