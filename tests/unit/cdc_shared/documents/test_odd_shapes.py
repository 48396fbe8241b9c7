"""Documents of odd shapes: each has an outcome, which docs/architecture/types.md names."""

import json
import time

import pytest
from tests.support.decoding import column, decoded, known, rescued

from cdc_shared.documents import DocumentSchema, InvalidDocument, canonical_document, decode, parse
from cdc_shared.documents import types as t
from cdc_shared.documents.extended_json import MAX_NESTING

pytestmark = pytest.mark.unit

BOUND_S = 10.0
"""Of CPU: far above what any of these takes, far below what quadratic work would."""


def one(number: int = 1) -> dict[str, str]:
    return {"$numberInt": str(number)}


def test_a_map_in_one_document_is_json() -> None:
    entries = ",".join(f'"id{i}": {i}' for i in range(1001))
    result = decoded(f'{{"_id": 1,"m": {{{entries}}}}}')
    assert result.schema.by_name["m"].type == t.JSON
    assert rescued(result) == [None]


def test_a_map_that_grows_from_document_to_document_fills_its_struct_and_the_rest_is_rescued() -> None:
    first = [f'{{"_id": {i},"m": {{"id{i}": {i}}}}}' for i in range(8)]
    schema = decoded(*first, max_struct_fields=10).schema
    more = decoded(*(text.replace("id", "new") for text in first), schema=schema, max_struct_fields=10)
    struct = more.schema.by_name["m"].type
    assert isinstance(struct, t.Struct)
    assert len(struct.fields) == 10
    assert more.stats.rescued_values == 6
    assert more.stats.conflicts == {"/m": {"too many members": 6}}  # with which promotion makes it JSON


def test_empty_objects_and_arrays() -> None:
    unknown = decoded('{"o": {},"a": [],"n": {"e": {}}}')
    assert unknown.schema.typed() == DocumentSchema()
    assert rescued(unknown) == [{"/o": {}, "/a": [], "/n": {"e": {}}}]
    schema = decoded('{"o": {"x": 1},"a": [1],"n": {"e": {"x": 1}}}', schema=unknown.schema).schema
    assert rescued(decoded('{"o": {},"a": [],"n": {"e": {}}}', schema=schema)) == [None]
    assert rescued(decoded('{"o": []}', '{"a": {}}', schema=schema)) == [{"/o": []}, {"/a": {}}]


def test_arrays_of_mixed_types_are_json() -> None:
    result = decoded('{"a": [1,"x",{"y": null}]}', '{"a": [2.5,[]]}')
    assert result.schema == known(a=t.JSON)
    assert column(result, "a") == ['[{"$numberInt":"1"},"x",{"y":null}]', '[{"$numberDouble":"2.5"},[]]']
    late = decoded('{"a": [1,"x"]}', schema=known(a=t.List(t.LONG)))
    assert rescued(late) == [{"/a": [one(), "x"]}]
    numbers = decoded('{"a": [1,2.5,{"$numberLong": "3"}]}')
    assert numbers.schema == known(a=t.List(t.DOUBLE))


def test_arrays_of_arrays() -> None:
    result = decoded(
        '{"a": [[1,2],[],null,[3]]}', '{"a": []}', '{"a": [[["x"]]]}', schema=known(a=t.List(t.List(t.LONG)))
    )
    assert column(result, "a") == [[[1, 2], [], None, [3]], [], None]
    assert rescued(result)[2] == {"/a": [[["x"]]]}
    assert decoded('{"a": [[1],["x"]]}').schema == known(a=t.JSON)
    assert decoded('{"a": [[],[[]]]}').schema == known(a=t.NULL)


def test_names_that_a_column_cannot_have() -> None:
    result = decoded('{"a.b": 1,"c d": 2,"$e": 3,"": 4,"f;{}()=,`\\"\\\\\\n": 5,"é": 6,"s": {"x.y": 7,"": 8}}')
    assert result.table.to_pylist() == [
        {"a_b": 1, "c_d": 2, "_e": 3, "_": 4, "f___________": 5, "é": 6, "s": {"x_y": 7, "_": 8}}
    ]
    assert [field.name for field in result.schema.fields][:4] == ["a.b", "c d", "$e", ""]
    assert rescued(result) == [None]


def test_names_that_come_to_the_same_column_are_rescued_but_for_the_first() -> None:
    result = decoded('{"Name": 1,"name": "x","NAME": true,"a.b": 1,"a b": 2,"s": {"X": 1,"x": 2},"": 1,"$": 2}')
    assert result.table.to_pylist() == [{"Name": 1, "a_b": 1, "s": {"X": 1}, "_": 1}]
    assert rescued(result) == [{"/name": "x", "/NAME": True, "/a b": one(2), "/s/x": one(2), "/$": one(2)}]
    assert result.stats.conflicts == {"": {"name clash": 4}, "/s": {"name clash": 1}}


def test_a_document_of_ten_thousand_fields() -> None:
    members = ",".join(f'"f{i}": {i}' for i in range(10_000))
    start = time.process_time()
    result = decoded(f'{{"_id": 1,{members}}}')
    assert len(result.schema.fields) == 1000  # max_struct_fields: the others are rescued, each under its name
    assert result.stats.rescued_values == 9001
    again = decoded(f'{{"_id": 2,{members}}}', schema=result.schema)
    assert again.schema == result.schema
    assert time.process_time() - start < BOUND_S


@pytest.mark.parametrize("shape", ["objects", "arrays", "both", "scopes"])
def test_a_hundred_levels_and_as_many_as_mongodb_can_hold(shape: str) -> None:
    opening, closing, levels = {
        "objects": ('{"a": ', "}", 1),
        "arrays": ("[", "]", 1),
        "both": ('[{"a": ', "}]", 2),
        "scopes": ('{"$code": "x","$scope": {"a": ', "}}", 1),
    }[shape]

    def document(depth: int) -> str:
        nested = opening * (depth // levels) + "1" + closing * (depth // levels)
        return f'{{"_id": 1,"n": {nested}}}'

    others = ['{"_id": 0,"n": 5}'] * 20
    start = time.process_time()
    for depth in (100, MAX_NESTING - 2):
        decoded(document(depth))
        decoded(*others, document(depth), schema=known(_id=t.LONG, n=t.LONG))
        decoded(*others, document(depth), schema=known(_id=t.LONG, n=t.JSON))
    for depth in (MAX_NESTING + 2, 1000, 100_000):
        for schema in (DocumentSchema(), known(_id=t.LONG, n=t.LONG), known(n=t.JSON)):
            result = decode([*others, document(depth), *others], schema)
            assert list(result.invalid) == [20]
            assert "nested too deep" in result.invalid[20]
            assert column(result, "_id") == [0] * 20 + [None] + [0] * 20
        with pytest.raises(InvalidDocument, match="nested too deep"):
            parse(document(depth))
    assert time.process_time() - start < 2 * BOUND_S


@pytest.mark.parametrize("size", [2**20, 15 * 2**20])
def test_long_strings(size: int) -> None:
    text = json.dumps({"_id": 1, "s": "ü" + "x" * size, "odd": 5}, ensure_ascii=False)
    start = time.process_time()
    result = decoded(text, '{"_id": 2,"s": "y"}', schema=known(_id=t.LONG, s=t.STRING, odd=t.STRING))
    assert len(column(result, "s")[0]) == size + 1
    whole = decoded(text, schema=known(_id=t.LONG, s=t.LONG))
    assert len(rescued(whole)[0]["/s"]) == size + 1
    assert time.process_time() - start < BOUND_S


@pytest.mark.parametrize(
    ("milliseconds", "stored"),
    [
        (-1, "1969-12-31T23:59:59.999000+00:00"),
        (-(2**31) * 1000, "1901-12-13T20:45:52+00:00"),
        (-12_219_292_800_000, "1582-10-15T00:00:00+00:00"),
        (-62_135_596_800_000, "0001-01-01T00:00:00+00:00"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999000+00:00"),
        (-62_135_596_800_001, None),
        (253_402_300_800_000, None),
        (-(2**63), None),
        (2**63 - 1, None),
    ],
)
def test_dates_before_1970_are_stored_and_those_beyond_the_years_1_to_9999_rescued(
    milliseconds: int, stored: str | None
) -> None:
    for text in (f'{{"d": {{"$date": {milliseconds}}}}}', f'{{"d": {{"$date": {{"$numberLong": "{milliseconds}"}}}}}}'):
        for neighbours in ([], ['{"d": {"$date": 0}}'] * 30):
            result = decoded(text, *neighbours, schema=known(d=t.DATE))
            value = column(result, "d")[0]
            assert (value and value.isoformat()) == stored
            assert rescued(result)[0] == (None if stored else {"/d": {"$date": {"$numberLong": str(milliseconds)}}})
            assert canonical_document(text) == canonical_document(f'{{"d": {{"$date": {milliseconds}}}}}')
