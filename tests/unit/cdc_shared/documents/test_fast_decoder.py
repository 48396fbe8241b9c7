"""The fast path refuses whatever `pyarrow.json` would take and alter, and takes the rest."""

import pytest

from cdc_shared.documents import DocumentSchema
from cdc_shared.documents import types as t
from cdc_shared.documents.fast_decoder import Refused, decode_block

pytestmark = pytest.mark.unit


def of(type_: t.FieldType) -> DocumentSchema:
    return DocumentSchema((t.Field("f", type_), t.Field("ok", t.LONG)))


REFUSED: list[tuple[t.FieldType, str]] = [
    (t.DOUBLE, "9007199254740993"),
    (t.DOUBLE, '{"$numberLong": "9007199254740993"}'),
    (t.DOUBLE, "-0"),
    (t.DOUBLE, "Inf"),
    (t.DOUBLE, "-Inf"),
    (t.DOUBLE, "Inf\t "),
    (t.LONG, "5.0"),
    (t.LONG, "NaN"),
    (t.LONG, "9223372036854775808"),
    (t.LONG, '{"$numberLong": "-0"}'),
    (t.LONG, '"5"'),
    (t.STRING, "5"),
    (t.STRING, '{"$numberLong": "5"}'),
    (t.OBJECT_ID, "{}"),
    (t.OBJECT_ID, '{"$oid": null}'),
    (t.OBJECT_ID, '{"$oid": "foo"}'),
    (t.OBJECT_ID, '{"$oid": "ABCDEFABCDEFABCDEFABCDEF"}'),
    (t.DATE, '{"$date": null}'),
    (t.DATE, '{"$date": 253402300800000}'),
    (t.DATE, '{"$date": 9223372036854775807}'),
    (t.Decimal(18), '{"$numberDecimal": "9999999999999999999999999999999999"}'),
    (t.Decimal(18), '{"$numberDecimal": "1E30"}'),
    (t.Decimal(10), '{"$numberDecimal": "0.00000000001"}'),
    (t.Decimal(10), '{"$numberDecimal": "-0"}'),
    (t.Decimal(10), '{"$numberDecimal": "NaN"}'),
    (t.UUID, '{"$binary": "AAAA","$type": "04"}'),
    (t.UUID, '{"$binary": "AAAAAAAAAAAAAAAAAAAAAQ==","$type": "03"}'),
    (t.Binary(0), '{"$binary": "AAA","$type": "00"}'),
    (t.Binary(0), '{"$binary": "AAAA","$type": "05"}'),
    (t.Binary(0), '{"$binary": "AAAA","$type": null}'),
    (t.REGEX, '{"$regex": "a","$options": null}'),
    (t.TIMESTAMP, '{"$timestamp": {"t": 1,"i": null}}'),
    (t.TIMESTAMP, '{"$timestamp": {"t": -1,"i": 1}}'),
    (t.TIMESTAMP, '{"$timestamp": {"t": 4294967296,"i": 1}}'),
    (t.Struct((t.Field("x", t.LONG),)), '{"x": 1,"x": 2}'),
    (t.Struct((t.Field("x", t.LONG),)), '{"y": 1}'),
    (t.JSON, "1"),
]


@pytest.mark.parametrize(("type_", "value"), REFUSED)
@pytest.mark.parametrize("where", ["%s", "[%s]", '{"m": %s}', '[{"m": %s}]'])
def test_refused(type_: t.FieldType, value: str, where: str) -> None:
    member = t.Struct((t.Field("m", type_),))
    wrapped = {"%s": type_, "[%s]": t.List(type_), '{"m": %s}': member, '[{"m": %s}]': t.List(member)}[where]
    usual, odd = '{"f": null,"ok": 1}', f'{{"f": {where % value},"ok": 1}}'
    with pytest.raises(Refused):
        decode_block([usual, odd, usual], of(wrapped))


@pytest.mark.parametrize(
    "texts",
    [
        ['{"ok": 1} {"ok": 2}'],
        ['{"ok": 1}\n{"ok": 2}'],
        ['{"ok": 1}{"ok": 2}', '{"ok": 3}'],
        ['{"ok": ', "1}"],
        ['{"f": {}', '{"ok": 1}}'],
        ['{"f": "}', '{"}'],
        ['{"ok": 1}', ""],
        ["", '{"ok": 1}'],
        [""],
        [],
        ['{"ok": 1}\x00}', '{"ok": 2}'],
        ['{"ok": 1}', '{"ok": 2}\x00}'],
        ['{"ok": 1}\x00{"ok": 2}'],
        ['{"ok": 1}', "null"],
        ["[1]"],
        [' {"ok": 1}'],
        ['{"ok": 1,"ok": 2}'],
        ['{"ok": 1,"new": null}'],
        ['{"f": "\ud800"}'],
        ['{"f": "\\ud800"}'],
        ['{"f": "\n"}'],
    ],
)
def test_texts_that_are_not_one_document_each_are_refused(texts: list[str]) -> None:
    with pytest.raises(Refused):
        decode_block(texts, of(t.STRING))


def test_what_it_takes() -> None:
    schema = of(t.List(t.Struct((t.Field("x", t.DOUBLE), t.Field("y", t.NULL), t.Field("z", t.DATE)))))
    texts = ['{"ok": 1}', '{"f": [{"x": NaN},null,{"x": 9007199254740991,"y": null}],"ok": 2}', '{"f": []}', "{}"]
    lists, longs = decode_block(texts, schema)
    assert longs.to_pylist() == [1, 2, None, None]
    assert repr(lists.to_pylist()) == repr(
        [None, [{"x": float("nan"), "z": None}, None, {"x": 9007199254740991.0, "z": None}], [], None]
    )


@pytest.mark.parametrize("word", ["Information", "Inf", "is Inf", "Infx, y", "-0", "x-0", "Infinity"])
def test_a_word_in_a_text_is_no_number(word: str) -> None:
    texts, longs = decode_block([f'{{"f": "{word}","ok": 1}}'] * 3, of(t.STRING))
    assert (texts.to_pylist(), longs.to_pylist()) == ([word] * 3, [1] * 3)


def test_the_row_and_column_of_a_refusal_are_hints() -> None:
    texts = ['{"ok": 1}'] * 5
    texts[3] = '{"ok": "x"}'
    with pytest.raises(Refused) as raised:
        decode_block(texts, of(t.STRING))
    assert (raised.value.row, raised.value.column) == (3, "ok")
