"""`fit`: rows of one schema in the columns of another, as if the documents had been decoded against that one."""

import json
from typing import Any

import pyarrow as pa
import pytest
from tests.support.decoding import column, decoded, known, rescued, row_of

from cdc_shared.documents import Decoded, DocumentSchema, FieldPolicies, canonical_document, canonical_row, fit
from cdc_shared.documents import types as t
from cdc_shared.documents.fitting import fit_exactly, widened

pytestmark = pytest.mark.unit


def fitted(*texts: str, source: DocumentSchema, table: DocumentSchema, **options: Any) -> Decoded:
    """Decode against `source`, fit into `table`, and check that every row still holds its document."""
    result = fit(decoded(*texts, schema=source), table, **options)
    result.table.validate(full=True)
    assert result.table.schema.names == [field.column for field in result.schema.stored]
    for row, text in enumerate(texts):
        assert canonical_row(row_of(result, row), result.schema, result.rescued[row].as_py()) == canonical_document(
            text
        )
    return result


def test_equal_schemas_leave_everything_as_it_is() -> None:
    schema = known(a=t.LONG)
    rows = decoded('{"a": 1}', '{"a": "x"}', schema=schema)
    assert fit(rows, schema) is rows


def test_a_field_that_the_table_does_not_have_is_added_behind_its_columns() -> None:
    result = fitted('{"b": 1,"a": 2}', source=known(b=t.LONG, a=t.LONG), table=known(a=t.LONG, c=t.STRING))
    assert result.table.schema.names == ["a", "c", "b"]
    assert rescued(result) == [None]


def test_a_value_of_another_type_is_rescued() -> None:
    result = fitted('{"a": "x"}', '{"a": null}', source=known(a=t.STRING), table=known(a=t.LONG))
    assert column(result, "a") == [None, None]
    assert rescued(result) == [{"/a": "x"}, None]
    assert result.stats.rescued_values == result.stats.rescued_rows == 1
    assert result.stats.conflicts == {"/a": {"string": 1}}


def test_a_number_that_the_other_type_holds_stays_in_the_column() -> None:
    result = fitted('{"a": 5}', '{"a": 9007199254740993}', source=known(a=t.LONG), table=known(a=t.DOUBLE))
    assert column(result, "a") == [5.0, None]
    assert rescued(result) == [None, {"/a": {"$numberLong": "9007199254740993"}}]


def test_members_of_a_struct_are_rescued_one_by_one() -> None:
    inner = t.Struct((t.Field("x", t.LONG), t.Field("y", t.STRING)))
    table = t.Struct((t.Field("y", t.LONG), t.Field("x", t.LONG)))
    result = fitted(
        '{"s": {"x": 1,"y": "a"}}', '{"s": null}', '{"s": {}}', '{"s": {"y": 7}}',
        source=known(s=inner), table=known(s=table),
    )  # fmt: skip
    assert column(result, "s") == [{"y": None, "x": 1}, None, {"y": None, "x": None}, {"y": 7, "x": None}]
    assert rescued(result) == [{"/s/y": "a"}, None, None, None]


def test_what_was_rescued_moves_into_a_column_that_holds_it_and_the_rest_stays() -> None:
    result = fitted(
        '{"a": "x","b": true}', '{"a": 1,"b": "y"}', source=known(a=t.LONG, b=t.LONG), table=known(a=t.JSON, b=t.LONG)
    )
    assert column(result, "a") == ['"x"', '{"$numberInt":"1"}']
    assert rescued(result) == [{"/b": True}, {"/b": "y"}]
    assert result.stats.conflicts == {"/a": {"string": 1}, "/b": {"boolean": 1, "string": 1}}  # as they were decoded


def test_a_partly_rescued_object_is_put_together_again() -> None:
    inner = t.Struct((t.Field("x", t.LONG), t.Field("y", t.LONG)))
    result = fitted('{"s": {"x": 1,"y": "a"}}', source=known(s=inner), table=known(s=t.STRING))
    assert rescued(result) == [{"/s": {"x": {"$numberInt": "1"}, "y": "a"}}]


def test_an_array_is_rescued_whole() -> None:
    result = fitted('{"a": [1,2]}', '{"a": []}', source=known(a=t.List(t.LONG)), table=known(a=t.List(t.STRING)))
    assert column(result, "a") == [None, []]
    assert rescued(result) == [{"/a": [{"$numberInt": "1"}, {"$numberInt": "2"}]}, None]


def test_an_array_of_structs_gets_the_members_of_the_table() -> None:
    narrow, wide = t.Struct((t.Field("x", t.LONG),)), t.Struct((t.Field("y", t.LONG), t.Field("x", t.LONG)))
    result = fitted('{"a": [{"x": 1},null]}', source=known(a=t.List(narrow)), table=known(a=t.List(wide)))
    assert column(result, "a") == [[{"y": None, "x": 1}, None]]


def test_a_field_that_can_have_no_column_is_rescued() -> None:
    result = fitted('{"a.b": 1}', source=DocumentSchema((t.Field("a.b", t.LONG),)), table=known(a_b=t.LONG))
    assert result.schema == known(a_b=t.LONG)
    assert rescued(result) == [{"/a.b": {"$numberInt": "1"}}]


def test_text_shows_what_it_cannot_hold() -> None:
    result = fitted('{"a": 5}', '{"a": "x"}', source=known(a=t.LONG), table=known(a=t.TEXT))
    assert column(result, "a") == ["5", "x"]
    assert rescued(result) == [{"/a": {"$numberInt": "5"}}, None]


def test_new_conflicts_are_told_from_old_ones_and_may_be_failures() -> None:
    fail = FieldPolicies(default="fail")
    result = fitted('{"a": true}', '{"a": 5}', source=known(a=t.LONG), table=known(a=t.STRING), policies=fail)
    assert result.stats.conflicts == {"/a": {"boolean": 1, "long": 1}}
    assert result.failures == {1: "/a"}


def test_rows_may_be_slices_of_chunks() -> None:
    inner = t.Struct((t.Field("x", t.LONG), t.Field("l", t.List(t.LONG))))
    texts = [json.dumps({"s": {"x": i, "l": [i] * (i % 3)}, "t": str(i)}) for i in range(20)]
    whole = decoded(*texts, schema=known(s=inner, t=t.STRING))
    table = pa.concat_tables([whole.table.slice(3, 4), whole.table.slice(11, 5)])
    part = Decoded(whole.schema, table, pa.concat_arrays([whole.rescued.slice(3, 4), whole.rescued.slice(11, 5)]))
    wide = t.Struct((t.Field("x", t.DOUBLE), t.Field("l", t.List(t.DOUBLE)), t.Field("z", t.LONG)))
    result = fit(part, known(t=t.STRING, s=wide))
    for row, i in enumerate([*range(3, 7), *range(11, 16)]):
        assert canonical_row(row_of(result, row), result.schema, result.rescued[row].as_py()) == canonical_document(
            texts[i]
        )
    assert result.rescued.null_count == len(result.rescued)
    sliced = Decoded(whole.schema, whole.table.slice(5, 2), whole.rescued.slice(5, 2))
    assert fit(sliced, known(t=t.STRING, s=wide)).table["t"].to_pylist() == ["5", "6"]


def test_a_table_that_is_not_widened_has_what_it_does_not_know_rescued() -> None:
    inner = t.Struct((t.Field("x", t.LONG), t.Field("y", t.STRING)))
    rows = decoded('{"a": 1,"s": {"x": 2,"y": "z"}}', schema=known(a=t.LONG, s=inner))
    result = fit_exactly(rows, known(s=t.Struct((t.Field("x", t.LONG),))))
    assert result.table.to_pylist() == [{"s": {"x": 2}}]
    assert rescued(result) == [{"/s/y": "z", "/a": {"$numberInt": "1"}}]
    assert fit_exactly(rows, rows.schema) is rows


def test_a_table_is_widened_by_what_it_does_not_know() -> None:
    table = known(a=t.NULL, s=t.Struct((t.Field("x", t.LONG),)), l=t.List(t.LONG))
    other = known(
        s=t.Struct((t.Field("x", t.STRING), t.Field("y", t.NULL), t.Field("z", t.DATE))), a=t.UUID, l=t.STRING, A=t.LONG
    )
    assert widened(table, other).typed() == known(
        s=t.Struct((t.Field("x", t.LONG), t.Field("z", t.DATE))), l=t.List(t.LONG), a=t.UUID
    )
    assert widened(table, known(b=t.LONG), max_struct_fields=3) == table


def test_rows_are_kept_apart_when_several_fields_are_rescued_in_another_order() -> None:
    texts = ['{"a": "x","b": "s"}', '{"a": 1,"b": true}']
    result = fitted(*texts, source=known(a=t.JSON, b=t.JSON), table=known(b=t.STRING, a=t.LONG))
    assert column(result, "a") == [None, 1]
    assert column(result, "b") == ["s", None]
    assert rescued(result) == [{"/a": "x"}, {"/b": True}]
    back = fit(result, known(b=t.JSON, a=t.JSON))
    assert column(back, "a") == ['"x"', '{"$numberInt":"1"}']
    assert rescued(back) == [None, None]
