"""The text of raw BSON, against Debezium's own serializer, events of the running connector, and the `bson` package."""

from __future__ import annotations

import base64
import json
import math
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.json_util import loads
from bson_documents import uniform_document
from debezium_events import LEGACY

from cdc_shared.documents import (
    DocumentSchema,
    canonical_document,
    decode,
    document_key,
    document_text,
    dump,
    key_text,
    parse_document,
)
from cdc_shared.documents.bson_text import InvalidBson
from cdc_shared.documents.bson_values import DbPointer, DuplicateKeys, RegularExpression, Symbol, Undefined
from cdc_shared.documents.canonical import plain_value

pytestmark = pytest.mark.unit

PAYLOADS = Path(__file__).parents[3] / "payloads"
FIXTURES = Path(__file__).parents[3] / "fixtures"
TEXTS = [json.loads(line) for line in (PAYLOADS / "debezium-texts.jsonl").read_text().splitlines()]
EVENTS = [json.loads(line) for line in (PAYLOADS / "debezium-events.jsonl").read_text().splitlines()]
TWICE = "HQAAAANfaWQAEwAAABByAAEAAAAQcgACAAAAAAA="
"""The payload whose `_id` has the name `r` twice."""
EXACT: CodecOptions[Any] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
OID = ObjectId("000102030405060708090a0b")


@pytest.mark.parametrize("payload", TEXTS, ids=[str(i) for i in range(len(TEXTS))])
def test_debeziums_own_text_byte_for_byte(payload: dict[str, str]) -> None:
    raw = base64.b64decode(payload["bson"])
    assert document_key(raw) == payload["key"]
    if payload["bson"] == TWICE:
        assert document_text(raw) == '{"_id": {"r": 1,"r": 2}}', "what Debezium's reader loses is kept"
    else:
        assert document_text(raw) == payload["after"]


def test_the_text_of_captured_events_byte_for_byte() -> None:
    afters = [event for event in EVENTS if event["value"] and event["value"].get("after")]
    assert len(afters) > 10
    for event in afters:
        raw = bson.encode(loads(event["value"]["after"], json_options=LEGACY))
        assert document_text(raw) == event["value"]["after"]
        assert document_key(raw) == event["key"]["id"]


def test_sample_documents() -> None:
    for file in ("sample_documents.json", "schema_evolution_samples.json"):
        documents = _documents_within(loads((FIXTURES / file).read_text()))
        assert documents
        for document in documents:
            _check_against_the_bson_package(document)


def test_every_type_is_decoded_from_its_text_as_from_an_event() -> None:
    documents = [uniform_document(n) for n in range(50)]
    decoded = decode([document_text(bson.encode(each)) for each in documents], DocumentSchema())
    assert not decoded.invalid
    assert decoded.stats.rescued_values == 0
    for document in documents:
        _check_against_the_bson_package(document)


def test_types_that_the_bson_package_reads_as_others() -> None:
    raw = _document(
        _element(0x07, "_id", OID.binary),
        _element(0x0E, "symbol", _string("s")),
        _element(0x06, "undefined", b""),
        _element(0x0C, "pointer", _string("ns") + OID.binary),
        _element(0x0B, "regex", b"^a\0xqi\0"),
        _element(0x0F, "scoped", _scoped("f()", _document())),
        _element(0x05, "old", struct.pack("<iBi", 7, 2, 3) + b"abc"),
        _element(0x10, "twice", struct.pack("<i", 1)),
        _element(0x10, "twice", struct.pack("<i", 2)),
    )
    parsed = parse_document(document_text(raw))
    assert isinstance(parsed, DuplicateKeys)
    values = dict(parsed.pairs[:-2])
    # Debezium writes a dbPointer as the sub-document that it looks like.
    assert values.pop("pointer") == {"$ref": "ns", "$id": OID}
    assert values == {
        "_id": OID,
        "symbol": Symbol("s"),
        "undefined": Undefined(),
        "regex": RegularExpression("^a", "iqx"),
        "scoped": Code("f()", {}),
        "old": Binary(b"abc", 2),
    }
    assert parsed.pairs[-2:] == (("twice", 1), ("twice", 2))
    assert document_key(_document(_element(0x0E, "_id", _string("s")))) == key_text(Symbol("s"))
    pointer = _document(_element(0x0C, "_id", _string("n") + OID.binary))
    assert document_key(pointer) == key_text(DbPointer("n", str(OID)))


def test_random_documents_hold_what_the_bson_package_reads(rng: random.Random) -> None:
    for _ in range(500):
        _check_against_the_bson_package({"_id": _random_value(rng, 2, is_id=True), **_random_object(rng, 4)})


def test_a_nan_is_a_nan_whatever_its_payload() -> None:
    quiet = struct.pack("<Q", 0x7FF8_0000_0000_1234)
    assert document_text(_document(_element(0x01, "_id", quiet))) == '{"_id": NaN}'
    assert document_key(_document(_element(0x01, "_id", quiet))) == key_text(math.nan)


def test_bytes_that_are_no_document_are_refused(rng: random.Random) -> None:
    raw = bson.encode(uniform_document(7))
    for cut in range(len(raw)):
        with pytest.raises(InvalidBson):
            document_text(raw[:cut])
    with pytest.raises(InvalidBson, match="left over"):
        document_text(raw + b"\0")
    for _ in range(2_000):  # whatever is in the bytes, there is a text or InvalidBson, and no other error
        damaged = bytearray(raw)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(raw))] = rng.randrange(256)
        for read in (document_text, document_key):
            with suppress(InvalidBson):
                read(bytes(damaged))
    with pytest.raises(InvalidBson, match="without _id"):
        document_key(_document(_element(0x0A, "x", b"")))
    with pytest.raises(InvalidBson):
        document_text(_document(_element(0x02, "_id", struct.pack("<i", 2) + b"\xff\0")))


def test_names_and_strings_of_every_kind() -> None:
    names = ["", ".", "$x", 'q"', "\\", "\n", "é", "日本", "\u2028", "😀", "\x7f", "a.b", "_cdc_key"]
    _check_against_the_bson_package({"_id": 1, **{name: name for name in names}})


# --- documents --------------------------------------------------------------------------------------------------------


def _check_against_the_bson_package(document: dict[str, Any]) -> None:
    raw = bson.encode(document)
    text = document_text(raw)
    assert canonical_document(text) == canonical_document(bson.decode(raw, EXACT))
    assert dump(parse_document(text)) == dump(plain_value(bson.decode(raw, EXACT))), "the types too"
    assert document_key(raw) == key_text(bson.decode(raw, EXACT)["_id"])


def _documents_within(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value] if "_id" in value else [each for member in value.values() for each in _documents_within(member)]
    return [each for member in value for each in _documents_within(member)] if isinstance(value, list) else []


_DOUBLES = [0.0, -0.0, 1.5, 5.0, 1e-5, 1e7, math.nan, math.inf, -math.inf]
_DECIMALS = ["1.50", "NaN", "-Infinity", "1E+3", "0E-10", "-0", "12345678901234567890.123456789"]
_SCALARS: list[Callable[[random.Random], Any]] = [
    lambda rng: rng.choice([0, -1, 2**31 - 1, -(2**31), rng.randrange(1000)]),
    lambda rng: rng.choice([*_DOUBLES, rng.random() * 10 ** rng.randint(-9, 15)]),
    lambda rng: "".join(_random_character(rng) for _ in range(rng.randrange(8))),
    lambda rng: rng.choice([True, False]),
    lambda rng: None,
    lambda rng: ObjectId(rng.randbytes(12)),
    lambda rng: DatetimeMS(rng.choice([0, -1, 253_402_300_800_000, rng.randrange(2**42)])),
    lambda rng: Decimal128(rng.choice(_DECIMALS)),
    lambda rng: Binary(rng.randbytes(rng.randrange(20)), rng.choice([0, 3, 4, 5, 6, 128])),
    lambda rng: Timestamp(rng.randrange(2**32), rng.randrange(2**32)),
    lambda rng: Code("f()"),
    lambda rng: Code("f(x)", {"x": rng.randrange(9)}),
    lambda rng: MinKey(),
    lambda rng: MaxKey(),
]


def _random_character(rng: random.Random) -> str:
    return chr(rng.choice([rng.randrange(128), rng.randrange(0xD800), rng.randrange(0x1F600, 0x1F640)]))


def _random_value(rng: random.Random, depth: int, *, is_id: bool = False) -> Any:
    choice = rng.randrange(20)
    if choice < 2 and depth:
        return _random_object(rng, depth - 1)
    if choice == 2 and depth and not is_id:
        return [_random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if choice == 3 and not is_id:
        return Regex('^a/"', rng.choice(["", "i", "im"]))
    return rng.choice(_SCALARS)(rng)


def _random_object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = ["a", "b", "c.d", "", "é", "long name", "$y"]
    return {name: _random_value(rng, depth) for name in rng.sample(names, rng.randrange(5))}


# --- bytes ------------------------------------------------------------------------------------------------------------


def _document(*elements: bytes) -> bytes:
    body = b"".join(elements)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def _element(type_: int, name: str, value: bytes) -> bytes:
    return bytes([type_]) + name.encode() + b"\0" + value


def _string(text: str) -> bytes:
    return struct.pack("<i", len(text.encode()) + 1) + text.encode() + b"\0"


def _scoped(code: str, scope: bytes) -> bytes:
    body = _string(code) + scope
    return struct.pack("<i", len(body) + 4) + body
