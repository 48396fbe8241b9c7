"""A statement of somebody who is not trusted reads the tables that they may read, and reaches nothing else."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from cdc_shared.analytics.duckdb_client import connect
from cdc_shared.analytics.lake import Lake, LakeLimits
from cdc_shared.analytics.query_errors import NoSuchTable
from cdc_shared.analytics.sandbox import REFUSED_FUNCTIONS, TABLE_FUNCTIONS, SandboxedLake
from cdc_shared.analytics.statement_parts import NotReadOnly
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import table_url

pytestmark = pytest.mark.unit

LOCAL = ObjectStoreSettings(endpoint=None, access_key_id=None, secret_access_key=None)
ELSEWHERE = "http://127.0.0.1:9/x"
SECRET_TEXT = "nobody may read this"
REACHING = re.compile(
    r"write|read|file|secret|setting|sql|plan|log$|log_|_log|sleep|query|execute|glob|dir|blob|plan|path"
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with tables of two pipelines, `shop` and `bank`, and a file."""
    directory = tmp_path_factory.mktemp("sandbox")
    rows = pa.table({"n": [1, 2], "s": ["a", "b"]})
    for pipeline in ("shop", "bank"):
        write_deltalake(table_url(str(directory / "lake"), pipeline, "db", "c"), rows)
    (directory / "note.csv").write_text(SECRET_TEXT)
    return directory


@contextmanager
def lake_of_shop(here: Path) -> Iterator[SandboxedLake]:
    """For somebody who may touch `shop`, and nothing of `bank`."""
    limits = LakeLimits(memory_mb=512, threads=1, timeout_s=30)
    with SandboxedLake(LOCAL, str(here / "lake"), limits, pipelines={"shop"}, spill=here / "spill") as lake:
        yield lake


@pytest.fixture(scope="module")
def untouched(here: Path) -> Iterator[SandboxedLake]:
    """One for all statements that are refused before anything is run."""
    with lake_of_shop(here) as lake:
        yield lake


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("SELECT sum(n)::INT AS x FROM shop.db.c", [3]),
        ('FROM "shop"."db"."c" SELECT n ORDER BY n DESC LIMIT 1', [2]),
        ("WITH big AS (SELECT n FROM shop.db.c WHERE n > 1) SELECT b.n FROM big b JOIN SHOP.DB.C USING (n)", [2]),
        ("SELECT x FROM shop.db.c, unnest([n, n * 10]) AS t(x) WHERE n = 2 ORDER BY x", [2, 20]),
        ("SELECT count(*) FROM range(5) r, generate_series(1, 2) g", [10]),
        ("SELECT list_transform([n], lambda v: v + 1)[1] FROM shop.db.c ORDER BY 1", [2, 3]),
        ("SELECT row_number() OVER (ORDER BY n DESC) FROM shop.db.c ORDER BY n", [2, 1]),
        ("SELECT count(*) FROM (PIVOT shop.db.c ON s IN ('a', 'b') USING sum(n))", [1]),
        ("SELECT column_name FROM (DESCRIBE shop.db.c) ORDER BY 1", ["n", "s"]),
        ("""SELECT value FROM json_each('["q"]')""", ['"q"']),
        ("WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t WHERE a < 3) SELECT max(a) FROM t", [3]),
        ("SELECT pg_typeof(n) FROM shop.db.c LIMIT 1", ["bigint"]),
    ],
)
def test_what_a_question_needs_is_there(here: Path, sql: str, answer: list[object]) -> None:
    with lake_of_shop(here) as lake:
        assert [next(iter(row.values())) for row in lake.query(sql).to_pylist()] == answer


@pytest.mark.parametrize(
    "sql",
    [
        "FROM bank.db.c",
        "SELECT * FROM shop.db.c WHERE n IN (SELECT n FROM bank.db.c)",
        "FROM shop.db.nothing",
        "FROM '$HERE/note.csv'",
        "FROM 'http://127.0.0.1:9/x.parquet'",
        "SELECT 1 FROM (WITH \"$HERE/note.csv\" AS (SELECT 1) SELECT 1), '$HERE/nothing/note.csv'",
        "FROM duckdb_settings",
        "FROM duckdb_views",
        "FROM system.main.duckdb_logs",
        "FROM information_schema.tables",
        "FROM pg_catalog.pg_tables",
        "FROM sqlite_master",
        "SUMMARIZE '$HERE/note.csv'",
    ],
)
def test_no_other_table_is_there(untouched: SandboxedLake, here: Path, sql: str) -> None:
    with pytest.raises(NoSuchTable) as refused:
        untouched.query(sql.replace("$HERE", str(here)))
    assert SECRET_TEXT not in str(refused.value)
    assert str(refused.value).endswith("There are: shop.db.c")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM delta_scan('$HERE/lake/bank/db/c')",
        f"SELECT * FROM delta_list_files('{ELSEWHERE}')",
        "SELECT content FROM read_text('$HERE/note.csv')",
        "FROM read_csv('$HERE/note.csv')",
        "FROM parquet_metadata('$HERE/x.parquet')",
        "FROM glob('/**')",
        "FROM sniff_csv('$HERE/note.csv')",
        "FROM query('SELECT 1')",
        "FROM query_table('shop.db.c')",
        "FROM duckdb_secrets()",
        "FROM which_secret('s3://x', 's3')",
        "FROM duckdb_settings()",
        "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
        "SELECT write_blob('$HERE/written', 'x'::BLOB)",
        "SELECT ('$HERE/written' || s).\"WRITE_BLOB\"('x'::BLOB) FROM shop.db.c",
        "SELECT system.main.write_blob('$HERE/written', 'x'::BLOB)",
        "SELECT list_transform(['$HERE/written'], lambda p: write_blob(p, 'x'::BLOB))",
        "SELECT n FROM shop.db.c QUALIFY write_blob('$HERE/written', s::BLOB)",
        f"SELECT json_serialize_plan('SELECT * FROM delta_scan(''{ELSEWHERE}'')')",
        "SELECT write_log('x')",
        "SELECT current_setting('temp_directory')",
        "SELECT pg_sleep(1)",
        "SELECT sleep_ms(1000)",
        "SELECT pg_get_viewdef(1)",
        "SHOW TABLES",
        "FROM (SHOW ALL TABLES)",
        "SHOW DATABASES",
        "SELECT 1; SELECT 2",
        "SELECT 1; SET memory_limit = '100GB'",
        "SET enable_external_access = true",
        "ATTACH '$HERE/x.db'",
        "COPY (SELECT 1) TO '$HERE/written'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '$HERE/written'",
        "EXPLAIN SELECT 1",
        "INSTALL spatial",
        "LOAD '$HERE/x.duckdb_extension'",
        "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
        "CREATE TABLE t AS SELECT 1",
        "DELETE FROM shop.db.c",
        "CALL enable_logging()",
        "PRAGMA database_list",
        "PREPARE p AS SELECT 1",
        "",
        "-- nothing",
    ],
)
def test_nothing_reaches_beyond_the_tables(untouched: SandboxedLake, here: Path, sql: str) -> None:
    with pytest.raises(NotReadOnly):
        untouched.query(sql.replace("$HERE", str(here)))
    assert not (here / "written").exists()


def test_the_settings_hold_what_the_parser_may_overlook(here: Path) -> None:
    """The second wall, by itself: the connection of a statement that was let through."""
    with lake_of_shop(here) as lake:
        lake.query("FROM shop.db.c")
        for sql in (
            f"FROM read_text('{here / 'note.csv'}')",
            f"FROM '{here / 'note.csv'}'",
            f"COPY (SELECT 1) TO '{here / 'written'}'",
            f"ATTACH '{here / 'x.db'}' AS x",
            "SET enable_external_access = true",
            "SET memory_limit = '100GB'",
            "RESET lock_configuration",
            "INSTALL spatial",
        ):
            with pytest.raises(duckdb.Error):
                lake.connection.execute(sql)
    assert not (here / "written").exists()


def test_every_function_that_may_reach_outside_was_looked_at() -> None:
    """A new DuckDB brings new functions; those of such names, and those with effects, are here on purpose."""
    database = connect(LOCAL)
    named = database.execute(
        "SELECT DISTINCT function_name, function_type, coalesce(has_side_effects, false) OR stability = 'VOLATILE'"
        " FROM duckdb_functions() WHERE function_type IN ('scalar', 'macro')"
    ).fetchall()
    suspects = {name for name, _, effects in named if effects or REACHING.search(name)}
    harmless = {
        "current_connection_id current_query current_query_id current_transaction_id error gen_random_uuid random",
        "setseed stats uuid uuidv4 uuidv7 json_serialize_sql json_extract_path json_extract_path_text parse_dirname",
        "parse_dirpath parse_filename parse_path parse_duckdb_log_message in_search_path log",
        "current_catalog",
        "pg_sleep",  # of a family that is refused
    }
    assert suspects - REFUSED_FUNCTIONS - {name for line in harmless for name in line.split()} == set()
    tables = {
        name
        for (name,) in database.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type IN ('table', 'table_macro')"
        ).fetchall()
    }
    assert tables >= TABLE_FUNCTIONS


def test_a_query_for_people_with_the_key_writes_no_file_either(tmp_path: Path) -> None:
    with Lake(LOCAL, str(tmp_path)) as lake, pytest.raises(NotReadOnly, match=r"write_blob\(\) is not allowed"):
        lake.query(f"EXPLAIN ANALYZE SELECT write_blob('{tmp_path / 'written'}', 'x'::BLOB)")
    assert not (tmp_path / "written").exists()
