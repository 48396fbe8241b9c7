"""The key's text, against Debezium's own serializer and against events of the running connector."""

import base64
import json
from pathlib import Path

import bson
import pytest
from bson.codec_options import CodecOptions, DatetimeConversion

from cdc_shared.documents import InvalidDocument, key_text, key_value, parse_document
from cdc_shared.documents.bson_values import DbPointer, RegularExpression, Symbol, Undefined

pytestmark = pytest.mark.unit

PAYLOADS = Path(__file__).parents[3] / "payloads"
OPTIONS: CodecOptions[dict[str, object]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
TEXTS = [json.loads(line) for line in (PAYLOADS / "debezium-texts.jsonl").read_text().splitlines()]
# The bson package has no exact class for these: see test_deprecated_types.
DEPRECATED = (
    '{"$symbol": "sym"}',
    '{"$undefined": true}',
    '{"$ref": "ns","$id": {"$oid": "000102030405060708090a0b"}}',
)
EVENTS = [json.loads(line) for line in (PAYLOADS / "debezium-events.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "payload",
    [p for p in TEXTS if p["key"] not in DEPRECATED],
    ids=lambda payload: payload["key"][:60].encode("ascii", "replace").decode(),
)
def test_from_bson(payload: dict[str, str]) -> None:
    assert key_text(bson.decode(base64.b64decode(payload["bson"]), OPTIONS)["_id"]) == payload["key"]


@pytest.mark.parametrize("event", [event for event in EVENTS if event["value"] and event["value"].get("after")])
def test_from_the_document_of_an_event(event: dict[str, dict[str, str]]) -> None:
    document = parse_document(event["value"]["after"])
    assert isinstance(document, dict)
    assert key_text(document["_id"]) == event["key"]["id"]


def test_deprecated_types() -> None:
    values = (Symbol("sym"), Undefined(), DbPointer("ns", "000102030405060708090a0b"))
    assert tuple(map(key_text, values)) == DEPRECATED
    assert {payload["key"] for payload in TEXTS} >= set(DEPRECATED)
    assert (
        key_text({"r": RegularExpression("a", "q")}) == '{"r": {"$regularExpression": {"pattern": "a","options": "q"}}}'
    )


# One key text, several values: a query that finds none would prove nothing.
AMBIGUOUS = ("[", '{"a": {"$regularExpression"', '{"r": {"$regularExpression"', '{"$undefined"', '{"$date": 5')


@pytest.mark.parametrize("payload", TEXTS, ids=lambda payload: payload["key"][:60].encode("ascii", "replace").decode())
def test_a_key_gives_its_id_back_or_is_refused(payload: dict[str, str]) -> None:
    """What comes back has the same key, and a query for it means the same value."""
    key = payload["key"]
    if key.startswith(AMBIGUOUS):
        with pytest.raises(InvalidDocument, match="no document's _id"):
            key_value(key)
        return
    if key.startswith('{"$ref"'):
        with pytest.raises(InvalidDocument, match="dbPointer"):
            key_value(key)
        return
    value = key_value(key)
    if key != '{"$symbol": "sym"}':  # a query holds the string equal to it
        assert key_text(value) == key
    bson.encode({"_id": {"$in": [value]}})


def test_the_key_of_a_dbpointer_is_refused_in_plain_words() -> None:
    """A query for the sub-document that it looks like would find nothing, which would be taken for a deletion."""
    key = key_text(DbPointer("shop.orders", "000102030405060708090a0b"))
    with pytest.raises(InvalidDocument, match="deprecated BSON type dbPointer, which no document can be looked up by"):
        key_value(key)
