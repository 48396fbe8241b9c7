"""Which SQL texts are an expression that a rule may have; whatever reaches beyond the row's own values is refused."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from cdc_shared.rules import sql_functions
from cdc_shared.rules.sql_check import SqlCheck
from cdc_shared.rules.sql_expression import RefusedExpression, database, parse_expression

pytestmark = pytest.mark.unit

DOCUMENTATION = Path(__file__).parents[4] / "docs" / "architecture" / "data-quality.md"


@pytest.mark.parametrize(
    ("text", "columns", "sql"),
    [
        ("a.b > 1 AND x['b'] = 'q'", (("a", "b"), ("x", "b")), "((c0 > 1) AND (c1 = 'q'))"),
        ('(a).b IS NULL OR "Unit Price" > a.b', (("a", "b"), ("Unit Price",)), "((c0 IS NULL) OR (c1 > c0))"),
        ("a BETWEEN 1 AND 2 -- comment", (("a",),), "(c0 BETWEEN 1 AND 2)"),
        ("a /* ); DROP TABLE x */ > 1", (("a",),), "(c0 > 1)"),
        ("status IN ('new', 'paid; --')", (("status",),), "(c0 IN ('new', 'paid; --'))"),
    ],
)
def test_an_expression_is_taken_apart(text: str, columns: tuple[tuple[str, ...], ...], sql: str) -> None:
    expression = parse_expression(text)
    assert (expression.columns, expression.sql) == (columns, sql)


@pytest.mark.parametrize(
    "text",
    [
        "a + INTERVAL 1 DAY > b",
        "a::DATE > DATE '2024-01-01'",
        "CASE WHEN a THEN b > 1 ELSE NOT c END",
        "regexp_matches(a, '^x') AND a ILIKE 'x%' AND a SIMILAR TO 'x.*' AND a NOT LIKE 'y' ESCAPE '!'",
        "extract(year FROM a) = 2024 AND date_trunc('month', a) = b AND date_diff('day', a, b) < 3",
        "len(l) > 0 AND l[1] = 5 AND l[1:2] = [5, 6] AND list_contains(l, 5) AND 5 IN l",
        "coalesce(a, b, 0) >= 0 AND nullif(a, 0) IS DISTINCT FROM b AND a % 2 = 0 AND -a < abs(b)",
        "TRY(a::INTEGER) > 5 OR TRY_CAST(b AS DECIMAL(10,2)) > 1",
        "a AT TIME ZONE 'UTC' > b",
        "a IS TRUE",
        "TRUE",
    ],
)
def test_what_a_rule_may_say(text: str) -> None:
    SqlCheck.of(text)


@pytest.mark.parametrize(
    "text",
    [
        # more than one expression
        "1=1; SELECT 2", "a > 1; DROP TABLE row_values", "a, b", "a > 1 AS x", "a > 1 FROM row_values", "1=1 LIMIT 1",
        "a > 1 FROM row_values WHERE 1=1", "DISTINCT a", "a > 1 UNION SELECT true", "1=1 ORDER BY 1", "*", "a.*",
        "true FROM read_csv('/etc/passwd')", "1=1 GROUP BY ALL", "1=1 QUALIFY true", "1=1 USING SAMPLE 1", "",
        "a > 1) OR (SELECT true", ") , (1", "a > 1 INTO x", "/* a",
        # sub-queries
        "(SELECT true)", "EXISTS (FROM row_values)", "a IN (SELECT 1)", "a = ANY (SELECT 1)", "a > ALL (SELECT 1)",
        "a = ANY([1, 2])", "(FROM duckdb_secrets() SELECT count(*)) > 0", "(WITH x AS (SELECT 1) SELECT true FROM x)",
        "(VALUES (true))", "ARRAY(SELECT 1) = [1]", "CASE WHEN (SELECT true) THEN true END", "lower((FROM x)) = 'x'",
        # reading, and asking about the machine
        "read_text('/etc/passwd') = 'x'", "read_blob('/etc/passwd') IS NULL", "read_csv('x') = 1", "glob('*') = 'x'",
        "getenv('HOME') = 'x'", "query('SELECT 1') = 1", "query_table('x') = 1", "pragma_version() = 'x'",
        "current_setting('home_directory') = 'x'", "version() = 'x'", "current_database() = 'x'", "getvariable('x')",
        "duckdb_settings() = 1", "sniff_csv('x') = 1", "parquet_scan('x') = 1", "json_serialize_sql('SELECT 1') = 'x'",
        "json_execute_serialized_sql('x') = 1", "write_log('x') = 1", "in_search_path('x', 'y')", "txid_current() = 1",
        "main.read_text('x') = 'x'", "system.main.read_text('x') = 'x'", '"read_text"(\'x\') = \'x\'', "READ_TEXT('x')",
        # statements
        "COPY x TO 'y'", "ATTACH 'x'", "PRAGMA version", "SET threads = 1", "INSTALL httpfs", "LOAD httpfs", "CALL x()",
        "EXPORT DATABASE 'x'", "CREATE TABLE x (a int)", "DELETE FROM x", "EXPLAIN SELECT 1",
        # aggregates, windows, lambdas, parameters
        "max(a) > 1", "count(*) > 1", "sum(a) OVER () > 1", "row_number() OVER () = 1", "list_transform(a, x -> x) = b",
        "list_filter(a, lambda x: x > 1) = b", "[x FOR x IN a] = b", "list_aggregate(a, 'sum') = 1", "a = $1", "a = ?",
        "#1 > 1", "COLUMNS('a') > 1", "COLUMNS(*) > 1", "unnest(a) = 1", "list_reduce(a, lambda x, y: x + y) > 1",
        # another answer tomorrow
        "a < now()", "a < current_date", "a < CURRENT_TIMESTAMP", "a < today()", "random() < 0.5", "uuid() = a",
        "gen_random_uuid() = a", "nextval('x') = 1", "a < get_current_timestamp()", "age(a) > INTERVAL 1 DAY",
        # large values from small ones
        "repeat(a, 1000000000) = b", "lpad(a, 1000000000, 'x') = b", "range(1000000000) = a", "replace(a, 'x', a) = b",
        "generate_series(1, 1000000000) = a", "list_resize(a, 1000000000) = b", "printf('%1000000000d', a) = b",
        "format('{:1000000000}', a) = b", "string_agg(a, b) = c", "bar(a, 1, 2, 100000) = b", "sleep_ms(1000) = 1",
        # casts beyond plain types
        "a::JSON = b", "a::regclass = b", "a::ENUM ('x') = 'x'", "a::INTEGER[] = b", "a::STRUCT(x INTEGER) = b",
        "a::x.y.z = 1",
        # the rest
        "a COLLATE nocase = 'x'", "_cdc_key = 'x'", "_CDC_OFFSET > 5", "a -> '$.x' = 1", "{'x': a} = b", "row(a) = b",
        "lower(x := a) = 'x'", "lower(DISTINCT a) = 'x'", "DEFAULT", "GROUPING(a) = 1", "regexp_matches(a, b)",
        "regexp_matches(a, '(')", "regexp_matches(a, NULL)", "error('x')", "a = '\x00'", "NOT " * 150 + "a",
        # no condition, or none that could ever be evaluated
        "lower(a)", "a + 1", "5", "'true'", "lower(a, b, c) = 'x'", "5 > 'x'", "year(a, b) = 1",
    ],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(RefusedExpression) as refused:
        SqlCheck.of(text)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(SELECT 1) = 1", "has a sub-query: only the row's own values can be asked"),
        ("read_text('x') = 'x'", "calls read_text, which is not one of the functions that a rule may call"),
        ("a > 1; SELECT 1", "is not one expression"),
        ("a >", "is no SQL expression: syntax error at end of input"),
        ("lower(a)", "gives a VARCHAR: compare it with something"),
        ("_cdc_key = 'x'", "asks for _cdc_key, which is the platform's own column"),
        ("a < current_date", "a document must get the same answer whenever it is asked"),
    ],
)
def test_a_refusal_says_why(text: str, reason: str) -> None:
    with pytest.raises(RefusedExpression) as refused:
        SqlCheck.of(text)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "COPY (SELECT 1) TO '/tmp/never.csv'",
        "ATTACH '/tmp/never.duckdb'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET memory_limit = '100GB'",
        "SELECT * FROM DOCUMENTATION",
    ],
)
def test_the_database_could_not_reach_anything_either(statement: str) -> None:
    """If something slipped through the parts that are let through."""
    with database().cursor() as cursor, pytest.raises(duckdb.Error):
        cursor.execute(statement)


def test_the_database_is_in_utc() -> None:
    with database().cursor() as cursor:
        assert cursor.execute("SELECT TIMESTAMPTZ '2024-01-01'::VARCHAR").fetchone() == ("2024-01-01 00:00:00+00",)


def test_no_function_that_is_let_through_can_change_its_answer() -> None:
    """DuckDB calls functions volatile, or consistent within a query, that may answer otherwise when asked again."""
    with database().cursor() as cursor:
        found = cursor.execute(
            "SELECT DISTINCT function_name, function_type, coalesce(stability, 'CONSISTENT') FROM duckdb_functions() "
            "WHERE function_type IN ('scalar', 'macro') AND list_contains(?, function_name)",
            [sorted(sql_functions.FUNCTIONS)],
        ).fetchall()
    special_syntax = {"ifnull", "position"}
    assert {name for name, _, _ in found} | special_syntax >= sql_functions.FUNCTIONS
    assert {stability for _, _, stability in found} == {"CONSISTENT"}


def test_the_documentation_lists_what_may_be_called() -> None:
    text = DOCUMENTATION.read_text()
    assert [name for name in sorted(sql_functions.FUNCTIONS) if f"`{name}`" not in text] == []
