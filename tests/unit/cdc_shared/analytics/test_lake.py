"""Tables by name: one version a statement, as of a version or a time, read-only, within its time, with plain errors."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, write_deltalake

from cdc_shared.analytics.answer_files import AnswerFormat, write_answer
from cdc_shared.analytics.lake import Lake, LakeLimits
from cdc_shared.analytics.query_errors import NoSuchTable, NoSuchVersion, QueryFailed, QueryTimeout
from cdc_shared.analytics.read_only import NotReadOnly
from cdc_shared.delta.time_travel import NoSuchMoment
from cdc_shared.errors import Fatal
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import table_url

pytestmark = pytest.mark.unit

LOCAL = ObjectStoreSettings(endpoint=None, access_key_id=None, secret_access_key=None)
LARGE = "SELECT count(*) FROM range(100_000_000_000) a WHERE hash(range) % 7 = 3"


def append(root: Path, name: str, values: list[int], watermark: datetime | None = None) -> None:
    told = {"cdcTopic": "t"} | ({} if watermark is None else {"cdcWatermark": str(int(watermark.timestamp() * 1000))})
    write_deltalake(
        table_url(str(root), "shop", "shop", name),
        pa.table({"n": values}),
        mode="append",
        commit_properties=CommitProperties(custom_metadata=told),
    )


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    append(tmp_path, "orders", [1, 2], datetime(2026, 11, 1, tzinfo=UTC))
    append(tmp_path, "orders", [3], datetime(2026, 11, 2, tzinfo=UTC))
    append(tmp_path, "people", [10], datetime(2026, 11, 1, 12, tzinfo=UTC))
    with Lake(LOCAL, str(tmp_path)) as lake:
        yield lake


def numbers(lake: Lake, sql: str, as_of: datetime | int | None = None) -> list[int]:
    return [value for row in lake.query(sql, as_of).to_pylist() for value in row.values()]


def test_tables_are_asked_by_their_names(lake: Lake) -> None:
    assert numbers(lake, "SELECT sum(n)::INT FROM shop.shop.orders") == [6]
    assert numbers(lake, "SELECT o.n + p.n FROM shop.shop.orders o, shop.shop.people p ORDER BY 1") == [11, 12, 13]
    assert [table.view for table in lake.tables()] == ["shop.shop.orders", "shop.shop.people"]


def test_each_statement_sees_what_is_there_when_it_begins(lake: Lake, tmp_path: Path) -> None:
    assert numbers(lake, "SELECT count(*) FROM shop.shop.orders") == [3]

    append(tmp_path, "orders", [4])

    assert numbers(lake, "SELECT count(*) FROM shop.shop.orders") == [4]


def test_a_statement_reads_one_version_whatever_is_committed_meanwhile(lake: Lake, tmp_path: Path) -> None:
    answer = lake.relation("SELECT count(*) FROM shop.shop.orders a JOIN shop.shop.orders b USING (n)")
    append(tmp_path, "orders", [4, 5])

    assert answer.fetchall() == [(3,)]


def test_a_table_is_read_at_a_version_and_then_again_as_it_is(lake: Lake) -> None:
    assert numbers(lake, "SELECT sum(n)::INT FROM shop.shop.orders", as_of=0) == [3]
    assert numbers(lake, "SELECT sum(n)::INT FROM shop.shop.orders") == [6]


def test_every_table_of_a_statement_is_read_as_of_one_time_in_the_source(lake: Lake) -> None:
    sql = "SELECT (SELECT sum(n) FROM shop.shop.orders)::INT, (SELECT sum(n) FROM shop.shop.people)::INT"

    assert numbers(lake, sql, datetime(2026, 11, 1, 18, tzinfo=UTC)) == [3, 10]
    assert numbers(lake, sql, datetime(2026, 11, 3, tzinfo=UTC)) == [6, 10]
    with pytest.raises(NoSuchMoment, match=r"shop/shop/people as of 2026-11-01T06.*no watermark before .*01T12"):
        lake.query(sql, datetime(2026, 11, 1, 6, tzinfo=UTC))


def test_a_version_that_is_not_there_is_told_with_those_that_are(lake: Lake) -> None:
    with pytest.raises(NoSuchVersion, match=r"version 9 of shop\.shop\.orders is not there yet: versions 0 to 1 can"):
        lake.query("FROM shop.shop.orders", as_of=9)


def test_a_version_is_of_one_table(lake: Lake) -> None:
    with pytest.raises(Fatal, match=r"shop\.shop\.orders, shop\.shop\.people: give a time instead"):
        lake.query("FROM shop.shop.orders, shop.shop.people", as_of=0)


@pytest.mark.parametrize("sql", ["FROM shop.shop.nothing", "FROM shop.nothing.orders", "FROM nothing.shop.orders"])
def test_a_table_that_is_not_there_is_told_with_those_that_are(lake: Lake, sql: str) -> None:
    with pytest.raises(NoSuchTable, match=r"no such table .*There are: shop\.shop\.orders, shop\.shop\.people"):
        lake.query(sql)
    lake.query("FROM shop.shop.people")
    with pytest.raises(NoSuchTable, match="There are: "):
        lake.query(sql)


def test_an_empty_lake_says_so(tmp_path: Path) -> None:
    with Lake(LOCAL, str(tmp_path)) as lake, pytest.raises(NoSuchTable, match="There is no table yet: "):
        lake.query("FROM shop.shop.orders")


def test_collections_whose_names_differ_in_case_only_are_never_mixed_up(lake: Lake, tmp_path: Path) -> None:
    append(tmp_path, "Orders", [99])

    with pytest.raises(NoSuchTable, match="two tables, whose names differ in case only"):
        lake.query("FROM shop.shop.orders")


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{path}'",
        "CREATE TABLE t (n INT)",
        "SELECT 1; COPY (SELECT 1) TO '{path}'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{path}'",
        "/* */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{path}'",
        "EXPLAIN (ANALYZE, FORMAT json) COPY (SELECT 1) TO '{path}'",
        "EXPLAIN SELECT 1; COPY (SELECT 1) TO '{path}'",
        "ATTACH '{path}' AS x",
        "SET memory_limit = '1GB'",
        "INSTALL json",
        "DROP VIEW shop.shop.orders",
        "EXPORT DATABASE '{path}'",
        "CALL pragma_version()",
    ],
)
def test_what_does_more_than_read_is_refused(lake: Lake, tmp_path: Path, sql: str) -> None:
    path = tmp_path / "written"

    for ask in (lake.query, lake.relation, lake.explain):
        with pytest.raises((NotReadOnly, duckdb.ParserException)):
            ask(sql.format(path=path))
    assert not path.exists()


@pytest.mark.parametrize(
    "sql",
    [
        "VALUES (1)",
        "WITH t AS (SELECT 1) FROM t",
        "DESCRIBE shop.shop.orders",
        "SUMMARIZE shop.shop.orders",
        "EXPLAIN FROM shop.shop.orders",
        "explain analyze FROM shop.shop.orders",
        "EXPLAIN (ANALYZE, FORMAT json) FROM shop.shop.orders",
        "PIVOT shop.shop.orders ON n IN (1, 2) USING count(*)",
    ],
)
def test_what_reads_is_answered(lake: Lake, sql: str) -> None:
    assert lake.query(sql).num_columns


def test_a_statement_that_takes_too_long_is_ended_and_the_next_is_answered(tmp_path: Path) -> None:
    append(tmp_path, "orders", [1])
    with Lake(LOCAL, str(tmp_path), LakeLimits(timeout_s=0.3, threads=1)) as lake:
        for ask in (lake.query, lake.explain):
            with pytest.raises(QueryTimeout, match=r"longer than 0\.3 s"):
                ask(LARGE)
        assert numbers(lake, "SELECT n FROM shop.shop.orders") == [1]


def test_a_long_answer_is_ended_too_when_its_time_is_over(tmp_path: Path) -> None:
    with (
        Lake(LOCAL, str(tmp_path), LakeLimits(timeout_s=0.3)) as lake,
        pytest.raises(QueryTimeout),
        lake.stream("SELECT hash(range) FROM range(1_000_000_000_000)") as batches,
    ):
        for _ in batches:
            pass


def test_limits_are_duckdbs(tmp_path: Path) -> None:
    with Lake(LOCAL, str(tmp_path), LakeLimits(memory_mb=100, threads=1)) as lake:
        [row] = lake.query("SELECT current_setting('threads') AS t, current_setting('memory_limit') AS m").to_pylist()
        assert row == {"t": 1, "m": "100.0 MiB"}
        with pytest.raises(duckdb.OutOfMemoryException):
            lake.query("SELECT list(range) FROM range(100_000_000)")


def test_a_plan_says_which_files_were_read(lake: Lake) -> None:
    assert "Scanning Files: 1/2" in lake.explain("FROM shop.shop.orders WHERE n = 3")


def test_no_statement_and_several_to_explain_are_told(lake: Lake) -> None:
    with pytest.raises(NotReadOnly, match="there is no statement"):
        lake.query(" -- nothing")
    with pytest.raises(Fatal, match="several statements"):
        lake.explain("FROM shop.shop.orders; FROM shop.shop.people")


def test_a_mistake_stays_as_duckdb_says_it(lake: Lake) -> None:
    with pytest.raises(duckdb.BinderException, match='"nope" not found'):
        lake.query("SELECT nope FROM shop.shop.orders")


ODD = """SELECT 1.50::DECIMAL(9,2) AS d, TIMESTAMPTZ '2026-11-01 12:00:00+00' AS t, {'a': [1, NULL]} AS s, 'x,"y' AS q,
'ab'::BLOB AS b, 'nan'::DOUBLE AS f, NULL::INT AS n, DATE '2026-11-01' AS day, sum(3)::HUGEINT AS h"""


@pytest.mark.parametrize("form", list(AnswerFormat))
def test_an_answer_becomes_a_file_with_every_type(lake: Lake, tmp_path: Path, form: AnswerFormat) -> None:
    path = tmp_path / "answer"
    with lake.stream(ODD) as answer:
        write_answer(answer, form, path)

    if form is AnswerFormat.PARQUET:
        assert pq.read_table(path).to_pylist()[0]["s"] == {"a": [1, None]}
    elif form is AnswerFormat.JSON:
        text = path.read_text()
        assert '"d":1.50' in text
        row = json.loads(text)
        assert datetime.fromisoformat(row["t"]) == datetime(2026, 11, 1, 12, tzinfo=UTC)
        assert (row["s"], row["b"], row["f"], row["n"], row["h"]) == ({"a": [1, None]}, "YWI=", None, None, 3)
    else:
        [read] = duckdb.sql(f"FROM read_csv('{path}', all_varchar = true)").fetchall()
        assert read[0] == "1.50"
        assert read[2:5] == ('{"a":[1,null]}', 'x,"y', '"YWI="')
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_an_answer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "answer.csv"
    path.write_text("old")
    with Lake(LOCAL, str(tmp_path)) as lake, pytest.raises(QueryFailed, match="no"):  # noqa: SIM117
        with lake.stream("SELECT CASE WHEN range > 200000 THEN error('no') ELSE 'x' END FROM range(300000)") as answer:
            write_answer(answer, AnswerFormat.CSV, path)

    assert path.read_text() == "old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["answer.csv"]
