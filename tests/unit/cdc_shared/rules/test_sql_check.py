"""What sql rules say of documents: of types, of what is missing, of what fails."""

from __future__ import annotations

import duckdb
import pytest

from cdc_shared.documents import DocumentSchema, decode, parse_document
from cdc_shared.documents import types as t
from cdc_shared.errors import Fatal
from cdc_shared.models.data_quality import Sql
from cdc_shared.rules import sql_check
from cdc_shared.rules.validation import Validation

pytestmark = pytest.mark.unit


def failing(expression: str, texts: list[str], schema: DocumentSchema | None = None) -> list[int]:
    """The rows that fail, of which each document alone says the same."""
    validation = Validation.compile([Sql(rule="sql", expression=expression)], "c", "dlq")
    rejected = validation.check(
        decode(texts, schema or DocumentSchema()), texts, [str(row) for row in range(len(texts))]
    )
    alone = [row for row, text in enumerate(texts) if validation.check_document(parse_document(text))]
    assert list(rejected) == alone
    return alone


def test_false_fails_and_null_passes() -> None:
    assert failing("a > 1", ['{"a": 2}', '{"a": 1}', '{"a": null}', "{}"]) == [1]


def test_a_column_that_is_not_there_is_null() -> None:
    assert failing("missing > 1", ['{"a": 2}']) == []
    assert failing("o.missing IS NOT NULL", ['{"o": {"x": 1}}', '{"o": 5}', "{}"]) == [0, 1, 2]
    assert failing("year(missing) = 2024 AND missing + INTERVAL 1 DAY > a", ['{"a": {"$date": 0}}']) == []
    assert failing("len(missing) > 0 AND list_contains(missing, 1) AND missing[1] = 5", ["{}"]) == []


def test_without_a_column_at_all() -> None:
    assert failing("1 = 1", ['{"a": 2}']) == []
    assert failing("1 = 2", ['{"a": 2}', "{}"]) == [0, 1]


def test_columns_have_their_stored_names_in_either_case() -> None:
    assert failing("Unit_Price > 1 AND unit_price < 9", ['{"unit price": 5}', '{"unit price": 0}']) == [1]
    assert failing("a['b c'] IS NULL AND a.b_c = 1", ['{"a": {"b c": 1}}', '{"a": {"b c": 2}}']) == [1]


def test_a_cast_that_fails_fails_its_row_alone() -> None:
    assert failing("CAST(a AS INTEGER) > 5", ['{"a": "7"}', '{"a": "x"}', '{"a": "3"}', "{}"]) == [1, 2]


def test_an_overflow_fails_its_row_alone() -> None:
    largest = '{"a": {"$numberLong": "9223372036854775807"}}'
    assert failing("a * 2 > a", [largest, '{"a": 1}']) == [0]


def test_dividing_by_zero_is_infinite_or_null() -> None:
    """DuckDB's answer, not an error."""
    assert failing("1 / a > 0", ['{"a": 0}', '{"a": 2}']) == []
    assert failing("5 % a = 1", ['{"a": 0}', '{"a": 2}', '{"a": 5}']) == [2]


def test_a_try_of_ones_own_may_pass() -> None:
    assert failing("TRY(CAST(a AS INTEGER)) IS NULL", ['{"a": "x"}', '{"a": "3"}']) == [1]


def test_an_operation_that_the_type_does_not_have_fails() -> None:
    assert failing("a + 1 > 0", ['{"a": "x"}', "{}"]) == [0]
    assert failing("a > 5", ['{"a": {"x": 1}}', '{"a": null}']) == [0]


def test_a_constant_that_the_type_does_not_have_fails_only_what_has_a_value() -> None:
    """With a column of longs DuckDB makes a long of 'x', or fails to, for every row."""
    assert failing("a = 'x'", ['{"a": 0}', "{}", '{"a": null}']) == [0]


def test_a_value_that_does_not_fit_its_column_has_its_own_type() -> None:
    texts = ['{"a": 7}', '{"a": "7"}', '{"a": 7.5}', '{"a": [7]}', '{"a": 3}', '{"a": {"$date": 7}}']
    assert failing("a > 5", texts, DocumentSchema((t.Field("a", t.LONG),))) == [1, 3, 4, 5]
    assert failing("a = '7'", texts[:2], DocumentSchema((t.Field("a", t.LONG),))) == []


@pytest.mark.parametrize("type_", [t.JSON, t.TEXT, t.STRING, t.DOUBLE, t.Number(4), t.NULL])
def test_an_answer_does_not_depend_on_the_column(type_: t.FieldType) -> None:
    texts = ['{"a": 7}', '{"a": 7.5}', '{"a": 3}', '{"a": "x"}', "{}"]
    assert failing("a > 5", texts, DocumentSchema((t.Field("a", type_),))) == [2, 3]


def test_an_empty_array_is_one() -> None:
    assert failing("len(a) > 0", ['{"a": []}', '{"a": [1]}', "{}"]) == [0]
    assert failing("len(a) = 0", ['{"a": []}']) == []


def test_dates_are_utc() -> None:
    texts = ['{"a": {"$date": 1704067199999}}', '{"a": {"$date": 1704067200000}}']
    assert failing("a >= TIMESTAMP '2024-01-01'", texts) == [0]
    assert failing("year(a) = 2024", texts) == [0]
    assert failing("a::DATE = DATE '2024-01-01' AND hour(a) = 0", texts) == [0]


def test_a_document_that_repeats_a_name_counts_its_last_value() -> None:
    assert failing("a > 1", ['{"a": 5,"a": 1}', '{"a": 1,"a": 5}']) == [0]


def test_a_column_named_like_a_wrapper() -> None:
    assert failing("_oid = 'x'", ['{"$oid": "x","b": 1}', '{"$oid": "y","b": 1}']) == [1]


def test_a_fault_of_duckdb_itself_stops_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault of the documents: they are not to become dead letters for it."""
    check = sql_check.SqlCheck.of("a > 1")

    def broken(*_: object) -> None:
        raise duckdb.InternalException("with a value: SECRET")

    monkeypatch.setattr(sql_check, "_query", broken)
    with pytest.raises(Fatal) as fault:
        check.passes({"a": 5})
    assert "InternalException" in str(fault.value)
    assert "SECRET" not in str(fault.value)


def test_running_out_of_memory_fails_the_row_it_happens_for(monkeypatch: pytest.MonkeyPatch) -> None:
    query = sql_check._query

    def small(expression: str, arrays: list[t.ArrowArray], rows: int) -> t.ArrowArray:
        if any("huge" in array.to_pylist() for array in arrays):
            raise duckdb.OutOfMemoryException("out of memory")
        return query(expression, arrays, rows)

    texts = [f'{{"a": "{text}"}}' for text in ("x", "x", "huge", "x", "y")]
    monkeypatch.setattr(sql_check, "_query", small)
    assert failing("a = 'x'", texts) == [2, 4]
