"""Documents with odd values are found by how they are written; the others keep to the fast path."""

from typing import Any

import pytest
from tests.support.decoding import column, decoded, known

from cdc_shared.documents import DocumentSchema, decode
from cdc_shared.documents import types as t
from cdc_shared.documents.odd_values import IDLE_BLOCKS, MOST_PATTERNS, Suspects

pytestmark = pytest.mark.unit

OBJECT_ID = '{"$oid": "0123456789abcdef01234567"}'
USUAL: dict[t.FieldType, list[str]] = {
    t.LONG: ["0", "-12", '{"$numberLong": "9223372036854775807"}'],
    t.DOUBLE: ["0.5", "-1E-7", "NaN", "-Infinity", "7"],
    t.Number(18): ["0.5", "7"],
    t.STRING: ['""', '"a \\" b"', '"{"'],
    t.TEXT: ['"x"'],
    t.BOOLEAN: ["true", "false"],
    t.OBJECT_ID: [OBJECT_ID],
    t.DATE: ['{"$date": -5}'],
    t.UUID: ['{"$binary": "AAAA","$type": "04"}'],
    t.Binary(0x80): ['{"$binary": "","$type": "80"}'],
    t.REGEX: ['{"$regex": "a\\"b","$options": "im"}'],
    t.TIMESTAMP: ['{"$timestamp": {"t": 1,"i": 2}}'],
    t.Decimal(10): ['{"$numberDecimal": "-1.5"}'],
    t.List(t.LONG): ["[]", "[1,null,2]"],
    t.List(t.STRING): ['["]","a"]'],
    t.Struct((t.Field("x", t.LONG),)): ["{}", '{"x": 1}'],
    t.List(t.Struct((t.Field("x", t.LONG),))): ["[]", '[{"x": 1}]'],
    t.NULL: ["null"],
}


@pytest.mark.parametrize("type_", USUAL, ids=lambda type_: type_.text)
def test_the_usual_spelling_of_a_type_is_not_odd_and_that_of_others_is(type_: t.FieldType) -> None:
    def found(texts: list[str]) -> list[int]:
        lines = [f'{{"a": 1,"f": {text},"z": "f"}}'.encode() for text in texts]
        return Suspects(known(f=type_)).odd_rows([*lines, b'{"a": "f"}'], {"f"})

    assert found([*USUAL[type_], "null"]) == []
    numbers = {t.LONG, t.DOUBLE, t.Number(18)}
    for other, texts in USUAL.items():
        alike = {type_, other} <= numbers or {type_, other} <= {t.STRING, t.TEXT} or type_.text[:5] == other.text[:5]
        if not alike and other is not t.NULL:
            odd = [text for text in texts if text not in ("[]", "{}")]
            assert found(odd) == list(range(len(odd))), other


def test_members_are_looked_for_as_well_unless_there_are_many() -> None:
    struct = t.Struct((t.Field("x.y", t.LONG), t.Field("l", t.List(t.Struct((t.Field("z", t.STRING),))))))
    lines = [b'{"s": {"x.y": 1,"l": [{"z": "a"}]}}', b'{"s": {"x.y": "1"}}', b'{"s": {"l": [{"z": 5}]}}']
    suspects = Suspects(known(s=struct))
    assert suspects.add({"s"})
    assert suspects.odd_rows(lines, {"s"}) == [1, 2]
    wide = t.Struct(tuple(t.Field(f"m{i}", t.LONG) for i in range(MOST_PATTERNS)))
    assert not Suspects(known(s=wide)).add({"s"})


def test_a_field_that_was_odd_once_is_not_searched_for_for_ever() -> None:
    suspects = Suspects(known(a=t.LONG, b=t.LONG))
    assert suspects.add({"a", "b"})
    assert not suspects.add({"a"})
    for _ in range(IDLE_BLOCKS):
        assert suspects.names == {"a", "b"}
        assert suspects.odd_rows([b'{"a": "x","b": 1}'], suspects.names) == [0]
    assert suspects.names == {"a"}
    assert suspects.add({"b"})


MIXED = ['"n/a"', "2.5", "[1,2]", '{"x": 1}', "true", "99999999999"]


@pytest.mark.parametrize("every", [250, 7, 1])
@pytest.mark.parametrize("types", [t.LONG, t.STRING, t.DOUBLE, t.DATE, t.List(t.LONG)])
def test_a_field_of_many_types_leaves_the_other_fields_on_the_fast_path(every: int, types: t.FieldType) -> None:
    usual = USUAL[types][0]
    texts = []
    for i in range(600):
        value = MIXED[i // every % len(MIXED)] if i % every == 0 else usual
        texts.append(f'{{"_id": {i},"f": {value},"s": {{"f": {i}}}}}')
    schema = known(_id=t.LONG, f=types, s=t.Struct((t.Field("f", t.LONG),)))
    result = decoded(*texts, schema=schema)
    assert result.stats.walked_rows == 0
    assert result.schema == schema
    assert column(result, "_id") == list(range(len(texts)))
    expected = sum(1 for i in range(0, len(texts), every) if not _fits(MIXED[i // every % len(MIXED)], types))
    assert result.stats.rescued_values == expected
    assert sum(result.stats.conflicts["/f"].values()) == expected


def _fits(text: str, types: t.FieldType) -> bool:
    fitting: dict[Any, set[str]] = {
        t.LONG: {"99999999999"},
        t.DOUBLE: {"99999999999", "2.5"},
        t.STRING: {'"n/a"'},
        t.List(t.LONG): {"[1,2]"},
    }
    return text in fitting.get(types, set())


def test_odd_values_beside_a_field_that_is_always_walked_and_unknown_ones() -> None:
    texts = [f'{{"a": {i},"j": [1,"x"],"t": "t{i}"}}' for i in range(300)]
    texts[100] = '{"a": "x","j": 5,"t": 7}'
    texts[200] = '{"a": 2.5,"t": "y","new": true}'
    result = decoded(*texts, schema=known(a=t.LONG, j=t.JSON, t=t.STRING))
    assert column(result, "a")[99:102] == [99, None, 101]
    assert column(result, "t")[100] is None
    assert column(result, "new")[200] is True
    assert result.stats.conflicts == {"/a": {"string": 1, "double": 1}, "/t": {"long": 1}}


def test_a_document_with_an_odd_value_that_cannot_be_cut_out_is_walked_alone() -> None:
    texts = [f'{{"a": {i},"d": 1.5}}' for i in range(1000)]
    texts[500] = '{"a": "x","d": NaN}'
    result = decode(texts, known(a=t.LONG, d=t.DOUBLE))
    assert result.stats.walked_rows == result.stats.rescued_values == 1
    assert result.schema == DocumentSchema((t.Field("a", t.LONG), t.Field("d", t.DOUBLE)))
