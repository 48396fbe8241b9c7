"""What counts as the same document, as docs/architecture/types.md says."""

import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from bson import SON, Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, ObjectId, Regex, Timestamp

from cdc_shared.documents import DocumentSchema, InvalidDocument, canonical_document, canonical_row, digest, equal
from cdc_shared.documents import types as t

pytestmark = pytest.mark.unit

SAME = [
    ('{"a": 5}', '{"a": 5.0}'),
    ('{"a": 5}', '{"a": {"$numberLong": "5"}}'),
    ('{"a": {"$numberLong": "1152921504606846976"}}', '{"a": 1.152921504606846976E18}'),
    ('{"a": {"$numberDecimal": "1.50"}}', '{"a": {"$numberDecimal": "1.5"}}'),
    ('{"a": {"$numberDecimal": "1E+3"}}', '{"a": {"$numberDecimal": "1000"}}'),
    ('{"a": {"$numberDecimal": "0E-10"}}', '{"a": {"$numberDecimal": "0"}}'),
    ('{"a": 1,"b": null}', '{"a": 1}'),
    ('{"a": {"x": null}}', '{"a": {}}'),
    ('{"a": 1,"b": {"x": 1,"y": 2}}', '{"b": {"y": 2,"x": 1},"a": 1}'),
    ('{"a": {"$date": 1704067200000}}', '{"a": {"$date": "2024-01-01T00:00:00Z"}}'),
    ('{"a": {"$binary": "AA==","$type": "05"}}', '{"a": {"$binary": {"base64": "AA==","subType": "05"}}}'),
    ('{"a": {"$regex": "x","$options": "i"}}', '{"a": {"$regularExpression": {"pattern": "x","options": "i"}}}'),
    ('{"a": "\\u00e9\\ud83d\\ude00"}', '{"a": "é😀"}'),
    ('{"a": NaN}', '{"a": {"$numberDouble": "NaN"}}'),
]
DIFFERENT = [
    ('{"a": 0}', '{"a": -0.0}'),
    ('{"a": 5}', '{"a": "5"}'),
    ('{"a": 5}', '{"a": {"$numberDecimal": "5"}}'),
    ('{"a": 1}', '{"a": true}'),
    ('{"a": {"$numberLong": "9007199254740993"}}', '{"a": 9007199254740992.0}'),
    ('{"a": {"$numberDecimal": "0"}}', '{"a": {"$numberDecimal": "-0"}}'),
    ('{"a": {}}', "{}"),
    ('{"a": []}', "{}"),
    ('{"a": [null]}', '{"a": []}'),
    ('{"a": [1,2]}', '{"a": [2,1]}'),
    ('{"a": {"$oid": "000102030405060708090a0b"}}', '{"a": "000102030405060708090a0b"}'),
    ('{"a": {"$oid": "foo"}}', '{"a": "foo"}'),
    ('{"a": {"$binary": "AA==","$type": "05"}}', '{"a": {"$binary": "AA==","$type": "00"}}'),
    ('{"a": {"$regex": "x","$options": "i"}}', '{"a": {"$regex": "x","$options": ""}}'),
    ('{"a": {"$date": 5}}', '{"a": 5}'),
    ('{"a": 1,"a": 2}', '{"a": 2}'),
    ('{"a": {"$code": "f()"}}', '{"a": {"$code": "f()","$scope": {}}}'),
    ('{"a": NaN}', '{"a": Infinity}'),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same(one: str, other: str) -> None:
    assert canonical_document(one) == canonical_document(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different(one: str, other: str) -> None:
    assert canonical_document(one) != canonical_document(other)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Int64(5), "5"),
        (datetime(2024, 1, 1), '{"$date": 1704067200000}'),
        (datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), '{"$date": 1704067200000}'),
        (DatetimeMS(-(2**62)), '{"$date": -4611686018427387904}'),
        (uuid.UUID(int=1), '{"$binary": "AAAAAAAAAAAAAAAAAAAAAQ==","$type": "04"}'),
        (b"\x00", '{"$binary": "AA==","$type": "00"}'),
        (Binary(b"\x00", 5), '{"$binary": "AA==","$type": "05"}'),
        (Regex("a", "mi"), '{"$regex": "a","$options": "im"}'),
        (DBRef("c", 5, "db"), '{"$ref": "c","$id": 5,"$db": "db"}'),
        (SON([("x", [SON(y=None)])]), '{"x": [{}]}'),
        (Code("f()", {"x": 1}), '{"$code": "f()","$scope": {"x": 1}}'),
        (Timestamp(1, 2), '{"$timestamp": {"t": 1,"i": 2}}'),
        (Decimal128("1.0"), '{"$numberDecimal": "1"}'),
        ({"$oid": "000102030405060708090a0b"}, '{"$oid": "000102030405060708090a0b"}'),
        (ObjectId("000102030405060708090a0b"), '{"$oid": "000102030405060708090a0b"}'),
    ],
)
def test_values_of_the_bson_package(value: Any, text: str) -> None:
    assert canonical_document({"a": value}) == canonical_document(f'{{"a": {text}}}')


def test_a_row_and_its_rescued_values_are_one_document() -> None:
    struct = t.Struct((t.Field("x.y", t.LONG), t.Field("u", t.UUID)))
    schema = DocumentSchema((t.Field("s", struct), t.Field("d", t.DATE), t.Field("n", t.NULL)))
    row = {"s": {"x_y": 5, "u": uuid.UUID(int=1)}, "d": datetime(1970, 1, 1, tzinfo=UTC), "_cdc_key": "1"}
    rescued = '{"/s/~1~0":"r","/n":[]}'
    document = (
        '{"n": [],"d": {"$date": 0},'
        '"s": {"/~": "r","x.y": 5.0,"u": {"$binary": "AAAAAAAAAAAAAAAAAAAAAQ==","$type": "04"}}}'
    )
    assert equal(document, row, schema, rescued)
    assert not equal(document, row, schema, None)
    assert not equal(document, row | {"d": None}, schema, rescued)
    assert canonical_row({}, schema, '{"":{"a":{"$numberInt":"1"},"a":{"$numberInt":"2"}}}') == canonical_document(
        '{"a": 1,"a": 2}'
    )


def test_the_digest_is_stable() -> None:
    canonical = canonical_document('{"b": [1.5,{"$date": 0}],"a": "é"}')
    assert canonical.decode() == '{"a":"é","b":[{"$numberDouble":"1.5"},{"$date":{"$numberLong":"0"}}]}'
    assert digest(canonical).hex() == "34b7f5969e20e65fd5bcb97ffad718c1"


def test_what_is_no_document() -> None:
    with pytest.raises(InvalidDocument):
        canonical_document("[1]")
