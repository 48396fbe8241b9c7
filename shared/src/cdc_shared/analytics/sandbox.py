"""SQL of people who hold no key to the object store: the tables that they may read, and nothing else.

DuckDB's `enable_external_access=false` keeps a statement from most of this, and not from all: `delta_scan` reads any
table that the secret can, and any address on the network; `write_blob`, a scalar function, writes files; and
`json_serialize_plan` binds a statement that it is given as a text. So each statement is taken apart first, by DuckDB's
own parser, and what it may name is listed here. The settings are the second wall, the process that runs it
(`query_process`) the third.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

import duckdb

from cdc_shared.analytics.duckdb_client import literal
from cdc_shared.analytics.lake import Lake, LakeLimits
from cdc_shared.analytics.query_errors import NoSuchTable
from cdc_shared.analytics.statement_parts import NotReadOnly, StatementParts, statement_parts
from cdc_shared.analytics.table_catalog import quoted_name
from cdc_shared.errors import Fatal
from cdc_shared.settings import ObjectStoreSettings

REVIEWED_DUCKDB: Final = "1.5.5"
"""The functions of this version were looked at; another one may bring some that reach further."""
TABLE_FUNCTIONS: Final = frozenset({"generate_series", "json_each", "json_tree", "range", "unnest"})
REFUSED_FUNCTIONS: Final = frozenset(
    {
        "write_blob",  # writes a file
        "write_log",
        "json_serialize_plan",  # binds the statement in its argument
        "json_deserialize_sql",
        "current_setting",  # paths of this machine
        "getvariable",
        "sleep_ms",
        "combine",  # of aggregates' states, which are trusted to be what they say
        "finalize",
        "variant_bytes_to_variant",
        "get_delta_test_expression",
        "parse_delta_filter_logline",
        "col_description",
        "obj_description",
        "shobj_description",
        "nextval",
        "currval",
    }
)
_REFUSED_FAMILIES: Final = re.compile(r"(__|pg_(?!typeof$|size_pretty$)|has_.*_privilege|inet_)")
MAX_SPILL: Final = "10GiB"


class SandboxedLake(Lake):
    """A `Lake` for one statement of somebody who may read some pipelines' tables, and is not trusted otherwise.

    Beyond what `Lake` refuses: more than one statement, functions that reach outside, tables that are none of the
    pipelines'. Raises `NotReadOnly` and `NoSuchTable` for these.
    """

    def __init__(
        self,
        settings: ObjectStoreSettings,
        root: str | None,
        limits: LakeLimits,
        *,
        pipelines: Collection[str] | None,
        spill: Path,
    ) -> None:
        """`pipelines`: those whose tables may be read; None: all. `spill`: a directory for what memory cannot hold."""
        if duckdb.__version__ != REVIEWED_DUCKDB:
            raise Fatal(f"the sandbox knows DuckDB {REVIEWED_DUCKDB}, and {duckdb.__version__} is installed")
        super().__init__(settings, root, limits, pipelines=pipelines)
        self._spill = spill

    def _prepare(self, sql: str, as_of: object) -> int:
        parts = check_sandboxed(self.connection, sql)
        statements = super()._prepare(sql, as_of)  # type: ignore[arg-type]
        if statements > 1:
            raise NotReadOnly("there are several statements: send one at a time")
        self._check_tables(parts)
        self._lock_down()
        return statements

    def _check_tables(self, parts: StatementParts) -> None:
        there = {tuple(map(str.casefold, each.table.names)) for each in self.pinned}
        for names in sorted(parts.tables):
            if not names[0] and not names[1] and names[2].casefold() in parts.ctes:
                continue
            if tuple(map(str.casefold, names)) not in there:
                asked = ".".join(quoted_name(name) for name in names if name)
                raise NoSuchTable(f"there is no table {asked}. {self.those_there()}")

    def _lock_down(self) -> None:
        urls = ", ".join(literal(f"{each.table.url}/") for each in self.pinned)
        for setting in (
            f"temp_directory = {literal(str(self._spill))}",
            f"max_temp_directory_size = '{MAX_SPILL}'",
            f"allowed_directories = [{urls}]",
            "python_enable_replacements = false",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self.connection.execute(f"SET {setting}")


def check_sandboxed(connection: duckdb.DuckDBPyConnection, sql: str) -> StatementParts:
    """Check that a text uses nothing that reaches beyond the tables that it names; return what it is made of.

    Raises `NotReadOnly`, and `duckdb.ParserException` for what is no SQL.
    """
    parts = statement_parts(connection, sql)
    if parts.shows:
        raise NotReadOnly(
            "SHOW is not allowed here: name a table that is not there, and the answer names those that are"
        )
    if further := sorted(parts.table_functions - TABLE_FUNCTIONS):
        raise NotReadOnly(
            f"{further[0]}() is not allowed here after FROM: name tables as pipeline.database.collection, or use "
            f"{', '.join(sorted(TABLE_FUNCTIONS))}"
        )
    refused = parts.functions & REFUSED_FUNCTIONS | {each for each in parts.functions if _REFUSED_FAMILIES.match(each)}
    if refused:
        raise NotReadOnly(f"{min(refused)}() is not allowed here: it reaches beyond the tables")
    return parts
