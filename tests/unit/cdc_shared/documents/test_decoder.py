"""Decoding: documented types, exact values, what is rescued, and what one odd document costs."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from decoding import column, decoded, known, rescued, row_of

from cdc_shared.documents import (
    DocumentSchema,
    canonical_document,
    canonical_row,
    decode,
)
from cdc_shared.documents import types as t
from cdc_shared.documents.decoder import BLOCK_ROWS

pytestmark = pytest.mark.unit

PAYLOADS = Path(__file__).parents[3] / "payloads"


def afters(collection: str) -> list[str]:
    events = [json.loads(line)["value"] for line in (PAYLOADS / "debezium-events.jsonl").read_text().splitlines()]
    return [e["after"] for e in events if e and e.get("after") and e["source"]["collection"] == collection]


# --- documented types -------------------------------------------------------------------------------------------------

UNIFORM = (
    '{"_id": {"$oid": "6b03b16cd6dd4e6526f88f1a"},"str": "h\\u00e9llo \\ud83d\\ude00","int32": 42,'
    '"int64": {"$numberLong": "9007199254740993"},'
    '"dbl": 3.14,"nan": NaN,"inf": -Infinity,"negzero": -0.0,'
    '"dec": {"$numberDecimal": "12345678901234567890.123456789"},'
    '"date": {"$date": -2208988800000},"bin": {"$binary": "AAH+/w==","$type": "00"},'
    '"user": {"$binary": "AAH+/w==","$type": "80"},'
    '"uuid": {"$binary": "AAAAAAAAAAAAAAAAAAAAAQ==","$type": "04"},"bool": true,'
    '"re": {"$regex": "^a.*b$","$options": "im"},'
    '"ts": {"$timestamp": {"t": 1700000000,"i": 7}},"null": null,"nested": {"a": {"b": [1,2,null]}},'
    '"dates": [[{"$date": 0}],null],'
    '"items": [{"sku": "x","price": {"$numberDecimal": "1.50"},"at": {"$date": 1}}],"a.b": 1,"$x": 2,"": 3}'
)
OTHER_KINDS = (
    '{"code": {"$code": "f()"},"scoped": {"$code": "f()","$scope": {"x": 1}},"min": {"$minKey": 1},'
    '"max": {"$maxKey": 1},'
    '"undefined": {"$undefined": true},"symbol": {"$symbol": "s"},"mixed": [1,"two",{"k": {"$date": 0}}]}'
)


def test_the_documented_type_of_every_bson_type() -> None:
    result = decoded(UNIFORM, UNIFORM)
    assert result.rescued.null_count == 2  # the rescue rate of a uniform collection is 0
    assert result.stats.walked_rows == 0
    string: Any = pa.string()
    timestamp: Any = pa.timestamp("us", "UTC")
    price: Any = pa.struct([("sku", string), ("price", pa.decimal128(38, 10)), ("at", timestamp)])
    assert result.table.schema == pa.schema(
        [
            ("_id", string),
            ("str", string),
            ("int32", pa.int64()),
            ("int64", pa.int64()),
            ("dbl", pa.float64()),
            ("nan", pa.float64()),
            ("inf", pa.float64()),
            ("negzero", pa.float64()),
            ("dec", pa.decimal128(38, 10)),
            ("date", timestamp),
            ("bin", pa.binary()),
            ("user", pa.binary()),
            ("uuid", string),
            ("bool", pa.bool_()),
            ("re", pa.struct([("pattern", string), ("options", string)])),
            ("ts", pa.struct([("t", pa.int64()), ("i", pa.int64())])),
            ("nested", pa.struct([("a", pa.struct([("b", pa.list_(pa.field("element", pa.int64())))]))])),
            ("dates", pa.list_(pa.field("element", pa.list_(pa.field("element", timestamp))))),
            ("items", pa.list_(pa.field("element", price))),
            ("a_b", pa.int64()),
            ("_x", pa.int64()),
            ("_", pa.int64()),
        ]
    )
    row = row_of(result, 0)
    assert repr(row.pop("nan")) == "nan"
    assert repr(row.pop("negzero")) == "-0.0"
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert row == {
        "_id": "6b03b16cd6dd4e6526f88f1a",
        "str": "héllo 😀",
        "int32": 42,
        "int64": 2**53 + 1,
        "dbl": 3.14,
        "inf": float("-inf"),
        "dec": Decimal("12345678901234567890.1234567890"),
        "date": datetime(1900, 1, 1, tzinfo=UTC),
        "bin": b"\x00\x01\xfe\xff",
        "user": b"\x00\x01\xfe\xff",
        "uuid": "00000000-0000-0000-0000-000000000001",
        "bool": True,
        "re": {"pattern": "^a.*b$", "options": "im"},
        "ts": {"t": 1700000000, "i": 7},
        "nested": {"a": {"b": [1, 2, None]}},
        "dates": [[epoch], None],
        "items": [{"sku": "x", "price": Decimal("1.5000000000"), "at": epoch.replace(microsecond=1000)}],
        "a_b": 1,
        "_x": 2,
        "_": 3,
    }
    kinds = {field.name: field.type.text for field in result.schema.fields}
    assert kinds["user"] == "binary:80"
    assert kinds["uuid"] == "uuid"
    assert kinds["null"] == "null"


def test_types_without_a_column_type_of_their_own_are_json() -> None:
    result = decoded(OTHER_KINDS)
    assert result.rescued.null_count == 1
    assert {field.type for field in result.schema.fields} == {t.JSON}
    assert row_of(result, 0)["scoped"] == '{"$code":"f()","$scope":{"x":{"$numberInt":"1"}}}'
    assert row_of(result, 0)["mixed"] == '[{"$numberInt":"1"},"two",{"k":{"$date":{"$numberLong":"0"}}}]'


def test_the_documents_of_the_real_connector() -> None:
    rich = decoded(*afters("rich"))
    assert rescued(rich)[0] == {"/decnan": {"$numberDecimal": "NaN"}, "/nested/e": {}, "/earr": []}
    assert rescued(rich)[3] is None
    assert {field.name for field in rich.schema.fields if field.type == t.JSON} == {"code", "min", "max", "arr"}
    assert rich.schema.by_name["nested"].type.fields[0].type.fields[0].type.fields[0].type == t.JSON  # type: ignore[union-attr]
    ids = decoded(*afters("ids"))
    assert column(ids, "_id") == ["s1", None, None, None, None, None, None, "s1", "t1", "t2", "t1"]
    assert rescued(ids)[2] == {"/_id": {"$numberLong": "8"}}
    assert rescued(ids)[3] == {"/_id": {"a": {"$numberInt": "1"}, "b": "x"}}


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("5", 5),
        ("5.0", 5),
        ('{"$numberLong": "9223372036854775807"}', 2**63 - 1),
        ("9007199254740993.0", 2**53),
        ("-0.0", None),
        ("0.0", 0),
        ("5.5", None),
        ("NaN", None),
        ("Infinity", None),
        ("9.223372036854775807E18", None),
        ("-9.223372036854775808E18", -(2**63)),
        ('"5"', None),
        ("true", None),
        ('{"$numberDecimal": "5"}', None),
    ],
)
def test_numbers_in_a_long_column(text: str, stored: int | None) -> None:
    result = decoded(f'{{"n": {text}}}', schema=known(n=t.LONG))
    assert column(result, "n") == [stored]
    assert (result.rescued[0].as_py() is None) == (stored is not None)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("5", 5.0),
        ("5.5", 5.5),
        ('{"$numberLong": "9007199254740992"}', 2.0**53),
        ('{"$numberLong": "-9007199254740992"}', -(2.0**53)),
        ('{"$numberLong": "9007199254740993"}', None),
        ('{"$numberLong": "-9007199254740993"}', None),
        ('{"$numberLong": "9007199254740994"}', None),
        ("9.007199254740994E15", 2.0**53 + 2),
        ("1.0E300", 1e300),
        ("-Infinity", float("-inf")),
        ('{"$numberDecimal": "5"}', None),
    ],
)
def test_numbers_in_a_double_column(text: str, stored: float | None) -> None:
    result = decoded(f'{{"n": {text}}}', f'{{"n": [{text}]}}', schema=known(n=t.DOUBLE))
    assert column(result, "n") == [stored, None]


@pytest.mark.parametrize(
    ("text", "scale", "stored"),
    [
        ("1.50", 10, "1.5"),
        ("1E+3", 10, "1000"),
        ("0E-8", 10, "0"),
        ("1E-10", 10, "1E-10"),
        ("1E-11", 10, None),
        ("1E-49", 10, None),
        ("1E-57", 18, None),
        ("1.5E-48", 10, None),
        ("2.50000000000000000000000000E-27", 10, None),
        ("1.0000000000000000000000E-5", 10, "0.00001"),
        ("1.00000000000000000", 10, "1"),
        ("9999999999999999999999999999", 10, "9999999999999999999999999999"),
        ("99999999999999999999999999999", 10, None),
        ("9999999999999999999999999999999999", 18, None),  # Arrow's cast makes 63870734310932345618.6 of it
        ("1E+30", 18, None),
        ("99999999999999999999", 18, "99999999999999999999"),
        ("-0", 10, None),
        ("-0.00", 10, None),
        ("NaN", 10, None),
        ("-Infinity", 10, None),
    ],
)
def test_decimals(text: str, scale: int, stored: str | None) -> None:
    result = decoded(f'{{"n": {{"$numberDecimal": "{text}"}}}}', schema=known(n=t.Decimal(scale)))
    assert column(result, "n") == [None if stored is None else Decimal(stored)]
    assert (result.rescued[0].as_py() is None) == (stored is not None)


@pytest.mark.parametrize(
    ("milliseconds", "stored"),
    [
        (-62_135_596_800_000, True),
        (-62_135_596_800_001, False),
        (253_402_300_799_999, True),
        (253_402_300_800_000, False),
        (2**63 - 1, False),
    ],
)
def test_dates_beyond_the_years_1_to_9999_are_rescued(milliseconds: int, stored: bool) -> None:
    result = decoded(f'{{"d": {{"$date": {milliseconds}}}}}', schema=known(d=t.DATE))
    assert (column(result, "d") == [None]) != stored
    assert (result.rescued[0].as_py() is None) == stored


# --- rescue -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "text", "expected"),
    [
        (
            known(a=t.STRING),
            '{"a": {"$oid": "000102030405060708090a0b"}}',
            {"/a": {"$oid": "000102030405060708090a0b"}},
        ),
        (known(a=t.OBJECT_ID), '{"a": "000102030405060708090a0b"}', {"/a": "000102030405060708090a0b"}),
        (known(a=t.STRING), '{"a": {"b": 1}}', {"/a": {"b": {"$numberInt": "1"}}}),
        (
            known(a=t.Binary(0)),
            '{"a": {"$binary": "AA==","$type": "05"}}',
            {"/a": {"$binary": {"base64": "AA==", "subType": "05"}}},
        ),
        (
            known(a=t.UUID),
            '{"a": {"$binary": "AA==","$type": "04"}}',
            {"/a": {"$binary": {"base64": "AA==", "subType": "04"}}},
        ),
        (known(a=t.List(t.LONG)), '{"a": [1,"x"]}', {"/a": [{"$numberInt": "1"}, "x"]}),
        (known(a=t.List(t.LONG)), '{"a": 1}', {"/a": {"$numberInt": "1"}}),
        (known(a=t.LONG), '{"a": []}', {"/a": []}),
        (known(a=t.LONG), '{"a": {}}', {"/a": {}}),
        (known(**{"a~/": t.LONG}), '{"a~/": "x"}', {"/a~0~1": "x"}),
        (known(A=t.LONG), '{"A": 1,"a": "x"}', {"/a": "x"}),
        (known(a_b=t.LONG), '{"a_b": 1,"a.b": null,"a b": 2}', {"/a b": {"$numberInt": "2"}}),
        (known(a=t.LONG), '{"a": 1,"_cdc_key": "x","_CDC_y": 1}', {"/_cdc_key": "x", "/_CDC_y": {"$numberInt": "1"}}),
        (known(a=t.OBJECT_ID), '{"a": {"$oid": null}}', {"/a": {"$oid": None}}),
        (known(a=t.DATE), '{"a": {"$date": "foo"}}', {"/a": {"$date": "foo"}}),
    ],
)
def test_what_does_not_fit_is_whole_in_rescued(schema: DocumentSchema, text: str, expected: dict[str, Any]) -> None:
    result = decoded(text, schema=schema)
    assert rescued(result) == [expected]
    assert result.schema.typed() == schema.typed()
    assert result.stats.rescued_values == len(expected)


def test_a_conflict_in_a_struct_rescues_its_own_path_and_one_in_an_array_the_top_most_array() -> None:
    schema = known(s=t.Struct((t.Field("x", t.LONG), t.Field("y", t.List(t.List(t.LONG))))))
    result = decoded('{"s": {"x": "no","y": [[1],["no"]]}}', '{"s": {"x": 1,"y": [[1],null]}}', schema=schema)
    assert column(result, "s") == [{"x": None, "y": None}, {"x": 1, "y": [[1], None]}]
    assert rescued(result) == [{"/s/x": "no", "/s/y": [[{"$numberInt": "1"}], ["no"]]}, None]
    items = known(i=t.List(t.Struct((t.Field("x", t.LONG),))))
    result = decoded('{"i": [{"x": 1},{"x": "no"}]}', schema=items)
    assert column(result, "i") == [None]
    assert list(rescued(result)[0]) == ["/i"]


def test_empty_arrays_and_objects() -> None:
    first = decoded('{"a": [],"o": {},"n": {"x": null},"l": [null]}')
    assert first.table.num_columns == 0
    assert rescued(first) == [{"/a": [], "/o": {}, "/n": {"x": None}, "/l": [None]}]
    typed = decoded('{"a": [1],"o": {"x": 1}}', '{"a": [],"o": {}}', schema=first.schema)
    assert column(typed, "a") == [[1], []]
    assert column(typed, "o") == [{"x": 1}, {"x": None}]
    assert typed.rescued.null_count == 2


def test_null_is_missing() -> None:
    result = decoded('{"a": null,"b": 1}', '{"b": 2}')
    assert result.table.column_names == ["b"]
    assert result.rescued.null_count == 2
    assert canonical_document('{"a": null,"b": {"c": null}}') == canonical_document('{"b": {}}')
    assert canonical_document('{"b": [null]}') != canonical_document('{"b": []}')


def test_duplicate_names() -> None:
    schema = known(a=t.LONG, s=t.Struct((t.Field("x", t.LONG), t.Field("y", t.STRING))), j=t.JSON, l=t.List(t.LONG))
    top, below, in_list, in_json, unknown = (
        '{"a": 1,"s": {"x": 1},"a": 2}',
        '{"a": 1,"s": {"y": 5,"x": 1,"z": {"x": 1,"x": 2}}}',
        '{"a": 1,"l": [{"x": 1,"x": 2}]}',
        '{"a": 1,"j": [{"x": 1,"x": 1}]}',
        '{"a": 1,"new": {"x": {"y": 1,"y": 2}}}',
    )
    result = decoded(top, below, in_list, in_json, unknown, schema=schema)
    assert column(result, "a") == [None, 1, 1, 1, 1]
    assert column(result, "s") == [None, None, None, None, None]
    one, two = '{"$numberInt":"1"}', '{"$numberInt":"2"}'
    assert result.rescued.to_pylist() == [
        f'{{"":{{"a":{one},"s":{{"x":{one}}},"a":{two}}}}}',
        f'{{"/s":{{"y":{{"$numberInt":"5"}},"x":{one},"z":{{"x":{one},"x":{two}}}}}}}',
        f'{{"/l":[{{"x":{one},"x":{two}}}]}}',
        None,
        f'{{"/new":{{"x":{{"y":{one},"y":{two}}}}}}}',
    ]
    assert column(result, "j")[3] == f'[{{"x":{one},"x":{one}}}]'


def test_maps_become_json_and_depth_has_a_limit() -> None:
    keys = ",".join(f'"k{i}": 1' for i in range(11))
    result = decoded(f'{{"map": {{{keys}}},"ok": {{"x": 1}}}}', max_struct_fields=10)
    assert result.schema.by_name["map"].type == t.JSON
    full = decoded(
        '{"s": {"a": 1}}',
        '{"s": {"b": 1,"c": 2}}',
        schema=known(s=t.Struct((t.Field("a", t.LONG),))),
        max_struct_fields=2,
    )
    assert rescued(full) == [None, {"/s/c": {"$numberInt": "2"}}]
    deep = '{"a": ' * 40 + "1" + "}" * 40
    assert str(decoded(deep).table.schema.field("a").type).count("struct") == t.MAX_DEPTH
    listed = '{"a": ' + "[" * 40 + "1" + "]" * 40 + "}"
    assert decoded(listed).schema.by_name["a"].type == t.JSON
    shallow = '{"a": ' + "[" * 31 + "1" + "]" * 31 + "}"
    assert str(decoded(shallow).table.schema.field("a").type).count("list") == 31


def test_a_sub_document_that_is_a_wrapper_but_for_a_detail_is_a_struct() -> None:
    result = decoded('{"a": {"$date": "foo","x": 1}}', '{"a": {"$date": "2024-01-01T00:00:00Z"}}')
    assert column(result, "a")[0] == {"_date": "foo", "x": 1}
    assert rescued(result)[1] == {"/a": {"$date": {"$numberLong": "1704067200000"}}}


# --- batches ----------------------------------------------------------------------------------------------------------


def test_invalid_texts_do_not_move_their_neighbours() -> None:
    texts = ['{"n": 1}', "", "[]", '{"n": 2', '{"n": 3} {"n": 4}', '{"n": "\n"}', '{"n": 5}']
    result = decoded(*texts)
    assert column(result, "n") == [1, None, None, None, None, None, 5]
    assert list(result.invalid) == [1, 2, 3, 4, 5]
    assert result.rescued.null_count == 7
    assert decoded(*texts, schema=result.schema).invalid == result.invalid
    nothing = decoded("x")
    assert (nothing.table.num_columns, list(nothing.invalid)) == (0, [0])


def test_no_text_at_all() -> None:
    schema = known(n=t.LONG)
    result = decode([], schema)
    assert (result.table.num_rows, result.table.schema, len(result.rescued), result.schema) == (
        0,
        pa.schema([("n", pa.int64())]),
        0,
        schema,
    )


def documents(count: int) -> list[str]:
    return [f'{{"_id": {i},"n": {i},"s": "text {i}","o": {{"x": {i}.5}}}}' for i in range(count)]


@pytest.mark.parametrize(
    "odd",
    ['{"_id": 0,"n": "x"}', '{"_id": 0,"n": 5.5}', '{"_id": 0,"S": "clash"}', "not json", '{"_id": {"a": 1,"a": 1}}'],
)
def test_one_odd_document_leaves_the_others_on_the_fast_path(odd: str) -> None:
    texts = documents(BLOCK_ROWS)
    schema = decode(texts[:10], DocumentSchema()).schema
    texts[1234] = odd
    result = decode(texts, schema)
    assert result.stats.walked_rows <= 16
    assert result.schema == schema
    assert [i for i, text in enumerate(result.rescued.to_pylist()) if text] == ([] if result.invalid else [1234])
    assert column(result, "n")[1233:1236] == [1233, None, 1235]
    assert column(result, "s") == [None if i == 1234 else f"text {i}" for i in range(BLOCK_ROWS)]


def test_many_odd_documents() -> None:
    texts = documents(600)
    for i in range(0, 600, 7):
        texts[i] = f'{{"_id": {i},"n": "odd {i}","new": {{"y": [{i}]}}}}'
    result = decoded(*texts, schema=decode(texts[1:5], DocumentSchema()).schema)
    assert result.stats.rescued_rows == 86
    assert column(result, "new") == [None if i % 7 else {"y": [i]} for i in range(600)]


def test_a_batch_widens_its_schema_and_its_earlier_blocks() -> None:
    texts = documents(BLOCK_ROWS + 10)
    texts[-1] = '{"_id": 1,"o": {"x": 1,"new": [{"d": {"$date": 0}}]},"more": true}'
    schema = decode(texts[:10], DocumentSchema()).schema
    result = decode(texts, schema)
    assert [field.name for field in result.schema.fields] == ["_id", "n", "s", "o", "more"]
    assert column(result, "more") == [None] * (BLOCK_ROWS + 9) + [True]
    assert column(result, "o")[0] == {"x": 0.5, "new": None}
    assert column(result, "o")[-1] == {"x": 1.0, "new": [{"d": datetime(1970, 1, 1, tzinfo=UTC)}]}
    assert result.stats.walked_rows == 0


def test_a_restart_on_the_same_texts_gives_the_same_rows() -> None:
    texts = [UNIFORM, OTHER_KINDS, UNIFORM.replace('"int32": 42', '"int32": "42"')]
    first = decoded(*texts)
    again = decoded(*texts, schema=first.schema.typed())
    assert [canonical_row(row_of(again, i), again.schema, again.rescued[i].as_py()) for i in range(3)] == [
        canonical_document(text) for text in texts
    ]
    assert again.schema.typed() == first.schema.typed()
