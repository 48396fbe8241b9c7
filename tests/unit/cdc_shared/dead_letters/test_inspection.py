"""What a letter shows of a record: structure for everybody, content when it is asked for."""

import json
from typing import Any

import pytest

from cdc_shared.dead_letters.inspection import shown_record
from cdc_shared.dead_letters.sealed_record import RawRecord

pytestmark = pytest.mark.unit

SECRET = "Ursula-4711"
DOCUMENT = {
    "_id": {"$oid": "64bb5a801a2b3c4d5e000000"},
    "name": SECRET,
    "age": 47,
    "long": {"$numberLong": "4711"},
    "double": 47.11,
    "none": None,
    "flag": True,
    "at": {"$date": 1_700_000_000_000},
    "addresses": [{"zip": "4711"}, {"zip": "0815"}, {"zip": 4711}],
    "nested": {"phone": "4711"},
}
KEY = json.dumps({"id": json.dumps({"$oid": "64bb5a801a2b3c4d5e000000"})}).encode()


def event(**changes: Any) -> bytes:
    source = {"db": "db", "collection": "things", "ts_ms": 1, "extra": SECRET}
    return json.dumps({"op": "c", "source": source, "after": json.dumps(DOCUMENT), "before": None, **changes}).encode()


def test_masked_only_names_and_types_are_shown() -> None:
    key, value = shown_record(RawRecord(KEY, event(updateDescription={"n": SECRET})), reveal=False)
    assert key == {"id": "objectId"}
    assert value["op"] == "c"
    assert value["source"] == {"db": "db", "collection": "things", "ts_ms": 1, "extra": "string"}
    assert value["updateDescription"] == {"n": "string"}
    assert value["before"] == "null"
    assert value["after"] == {
        "_id": "objectId",
        "name": "string",
        "age": "long",
        "long": "long",
        "double": "double",
        "none": "null",
        "flag": "boolean",
        "at": "date",
        "addresses": [{"zip": "string"}, {"zip": "long"}],
        "nested": {"phone": "string"},
    }


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (f"not json {SECRET}".encode(), f"{9 + len(SECRET)} bytes that are no JSON"),
        (b"\xff\x00", "2 bytes that are no JSON"),
        (b'{"a":' * 600 + b"1" + b"}" * 600, "3601 bytes that are no JSON"),
        (b"[" * 600 + b"]" * 600, "1200 bytes that are no JSON"),
        (json.dumps(SECRET).encode(), "string"),
        (json.dumps([SECRET, 1]).encode(), ["string", "long"]),
        (json.dumps({"op": SECRET}).encode(), {"op": "string"}),
        (json.dumps({"source": SECRET}).encode(), {"source": "string"}),
        (
            json.dumps({"after": f'{{"n": "{SECRET}'}).encode(),
            {"after": f"{7 + len(SECRET)} characters that are no document"},
        ),
        (json.dumps({"after": '{"n": 1, "n": 2}'}).encode(), {"after": "duplicate names"}),
        (None, "null"),
    ],
)
def test_what_is_no_event_is_masked_as_well(content: bytes | None, shown: Any) -> None:
    key, value = shown_record(RawRecord(content, content), reveal=False)
    assert value == shown
    assert SECRET not in json.dumps([key, value])


def test_revealed_the_document_is_as_it_was() -> None:
    key, value = shown_record(RawRecord(KEY, event()), reveal=True)
    assert key == {"id": {"$oid": "64bb5a801a2b3c4d5e000000"}}
    assert value["after"]["name"] == SECRET
    assert value["after"]["long"] == {"$numberLong": "4711"}
    assert value["source"]["extra"] == SECRET


@pytest.mark.parametrize(
    ("content", "shown"), [(b"text", "text"), (b"\xff\x00", {"base64": "/wA="}), (None, None), (b"[1]", [1])]
)
def test_revealed_other_bytes_are_text_where_they_are(content: bytes | None, shown: Any) -> None:
    key, value = shown_record(RawRecord(content, content), reveal=True)
    assert (key, value) == (shown, shown)
    json.dumps(value)
