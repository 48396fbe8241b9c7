"""Extended JSON: both dialects, look-alikes, and texts that Debezium's own serializer wrote
(tests/payloads/debezium-texts.jsonl).
"""

import base64
import json
import math
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from bson.codec_options import CodecOptions, DatetimeConversion

from cdc_shared.documents import InvalidDocument, canonical_document, dump, parse, parse_document
from cdc_shared.documents.bson_values import DbPointer, DuplicateKeys, RegularExpression, Symbol, Undefined

pytestmark = pytest.mark.unit

PAYLOADS = Path(__file__).parents[3] / "payloads"
OID = ObjectId("000102030405060708090a0b")

WRAPPERS = [
    ('{"$oid": "000102030405060708090a0b"}', OID),
    ('{"$date": 1709210096789}', DatetimeMS(1709210096789)),
    ('{"$date": -2208988800000}', DatetimeMS(-2208988800000)),
    ('{"$date": {"$numberLong": "-1"}}', DatetimeMS(-1)),
    ('{"$date": "2024-01-01T00:00:00Z"}', DatetimeMS(1704067200000)),
    ('{"$date": "2024-01-01T00:00:00.12Z"}', DatetimeMS(1704067200120)),
    ('{"$numberLong": "9007199254740993"}', Int64(2**53 + 1)),
    ('{"$numberInt": "5"}', 5),
    ('{"$numberDouble": "5.0"}', 5.0),
    ('{"$numberDouble": "-Infinity"}', -math.inf),
    ('{"$numberDecimal": "1.50"}', Decimal128("1.50")),
    ('{"$binary": "AAH+/w==","$type": "00"}', Binary(b"\x00\x01\xfe\xff", 0)),
    ('{"$binary": {"base64": "AAH+/w==","subType": "80"}}', Binary(b"\x00\x01\xfe\xff", 0x80)),
    ('{"$regex": "^a.*b$","$options": "im"}', RegularExpression("^a.*b$", "im")),
    ('{"$regularExpression": {"pattern": "a","options": "q"}}', RegularExpression("a", "q")),
    ('{"$timestamp": {"t": 4294967295,"i": 7}}', Timestamp(2**32 - 1, 7)),
    ('{"$code": "f()"}', Code("f()")),
    ('{"$code": "f()","$scope": {"x": 1}}', Code("f()", {"x": 1})),
    ('{"$minKey": 1}', MinKey()),
    ('{"$maxKey": 1}', MaxKey()),
    ('{"$undefined": true}', Undefined()),
    ('{"$symbol": "s"}', Symbol("s")),
    ('{"$dbPointer": {"$ref": "n","$id": {"$oid": "000102030405060708090a0b"}}}', DbPointer("n", str(OID))),
]
LOOK_ALIKES = [
    '{"$oid": "foo"}',
    '{"$oid": "000102030405060708090A0B"}',
    '{"$oid": "000102030405060708090a0b","x": 1}',
    '{"$date": "foo"}',
    '{"$date": 5.0}',
    '{"$date": null}',
    '{"$numberLong": "12a"}',
    '{"$numberLong": "9223372036854775808"}',
    '{"$numberLong": "007"}',
    '{"$numberLong": 5}',
    '{"$numberDecimal": " 1"}',
    '{"$numberDecimal": "1_0"}',
    '{"$binary": "AAH+/w=","$type": "00"}',
    '{"$binary": "AAH+/w==","$type": 0}',
    '{"$binary": "AAH+/w=="}',
    '{"$regex": "x"}',
    '{"$regex": "x","$options": null}',
    '{"$timestamp": {"t": -1,"i": 1}}',
    '{"$timestamp": {"t": 1}}',
    '{"$minKey": 2}',
    '{"$minKey": true}',
    '{"$undefined": 1}',
    '{"$ref": "n","$id": 5}',
    '{"$x": 1}',
]


@pytest.mark.parametrize(("text", "value"), WRAPPERS)
def test_a_wrapper_is_the_value_that_it_spells(text: str, value: Any) -> None:
    parsed = parse(text)
    assert (type(parsed), parsed) == (type(value), value)
    if isinstance(value, Binary):
        assert parsed.subtype == value.subtype
    again = parse(dump(parsed))
    assert (type(again), again) == (type(value), value)


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_what_is_not_quite_a_wrapper_is_a_sub_document(text: str) -> None:
    parsed = parse(text)
    assert isinstance(parsed, dict)
    assert parse(dump(parsed)) == parsed


def test_bare_numbers() -> None:
    assert parse("42") == 42
    assert type(parse("3000000000")) is Int64
    assert math.isnan(parse("NaN"))
    assert parse("[-Infinity,Infinity,1.5]") == [-math.inf, math.inf, 1.5]
    assert math.copysign(1, parse("-0.0")) == -1


def test_a_name_that_comes_twice_is_kept_twice() -> None:
    assert parse('{"a": 1,"a": 2}') == DuplicateKeys((("a", 1), ("a", 2)))
    assert parse('{"$oid": "x","$oid": "y"}') == DuplicateKeys((("$oid", "x"), ("$oid", "y")))
    assert dump(parse('{"a": "x","a": "y"}')) == '{"a":"x","a":"y"}'


def test_canonical_extended_json() -> None:
    text = '{"i": 1,"l": {"$numberLong": "1"},"d": 5.0,"n": NaN,"s": "é\\n\\"","a": [null,true],"t": {"$date": 1}}'
    assert dump(parse(text)) == (
        '{"i":{"$numberInt":"1"},"l":{"$numberLong":"1"},"d":{"$numberDouble":"5.0"},"n":{"$numberDouble":"NaN"},'
        '"s":"é\\n\\"","a":[null,true],"t":{"$date":{"$numberLong":"1"}}}'
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ('{"a": secret}', "not JSON: Expecting value at character 6"),
        ('{"a": 1} {"a": 2}', "not JSON"),
        ('{"a": "\n"}', "not JSON"),
        ("[1]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"$oid": "000102030405060708090a0b"}', "an Extended JSON wrapper, not a document"),
        ('{"a": 99999999999999999999}', "an integer of more than 64 bits"),
        ('{"a": ' + "9" * 5000 + "}", "an integer of more than 64 bits"),
        ('{"a": 1e999}', "a number too large for a double"),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ('{"\\udc00": 1}', "half of a surrogate pair"),
        ('{"a": "\ud800"}', "half of a surrogate pair"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_what_is_no_document_says_why_and_nothing_of_the_document(text: str, reason: str) -> None:
    with pytest.raises(InvalidDocument, match=reason.replace("[", r"\[")) as raised:
        parse_document(text)
    assert "secret" not in str(raised.value)


def test_a_surrogate_pair_is_one_character() -> None:
    assert parse('"\\ud83d\\ude00"') == "😀"


def payloads() -> list[dict[str, str]]:
    """Without symbol and undefined, which the bson package reads as a string and as null."""
    lines = (PAYLOADS / "debezium-texts.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if "$symbol" not in line and "$undefined" not in line]


@pytest.mark.parametrize(
    "payload", payloads(), ids=lambda payload: payload["after"][:60].encode("ascii", "replace").decode()
)
def test_debeziums_text_of_a_document_is_the_document(payload: dict[str, str]) -> None:
    """The `bson` package reads the bytes, we read what Debezium made of them."""
    options: CodecOptions[Any] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
    document = bson.decode(base64.b64decode(payload["bson"]), options)
    assert canonical_document(payload["after"]) == canonical_document(document)
