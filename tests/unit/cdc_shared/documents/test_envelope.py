"""Envelopes: what the connector sends, and whatever else may stand on the topic."""

import json
from pathlib import Path
from typing import Any

import pytest

from cdc_shared.documents import Replay, decode_envelopes, event_key

pytestmark = pytest.mark.unit

PAYLOADS = Path(__file__).parents[3] / "payloads"
KEY = b'{"id":"{\\"$oid\\": \\"64bb5a801a2b3c4d5e000000\\"}"}'


def value(**changes: Any) -> bytes:
    envelope: dict[str, Any] = {
        "before": None,
        "after": '{"_id": 1}',
        "updateDescription": None,
        "source": {"ts_ms": 1700000000000, "db": "shop", "collection": "orders", "ord": 1},
        "op": "c",
        "ts_ms": 1700000000003,
    }
    envelope |= changes
    return json.dumps({name: member for name, member in envelope.items() if member is not ...}).encode()


def source(**changes: Any) -> dict[str, Any]:
    whole = {"ts_ms": 1700000000000, "db": "shop", "collection": "orders"} | changes
    return {name: member for name, member in whole.items() if member is not ...}


def test_the_events_of_the_real_connector() -> None:
    events = [json.loads(line) for line in (PAYLOADS / "debezium-events.jsonl").read_text().splitlines()]
    events = [event for event in events if not event["topic"].startswith("__debezium-heartbeat")]
    keys = [json.dumps(event["key"]).encode() for event in events]
    values = [None if event["value"] is None else json.dumps(event["value"]).encode() for event in events]
    envelopes = decode_envelopes(keys, values)
    assert envelopes.invalid == {}
    assert envelopes.ops == [*"rrrrrrrud", None, *"ccurrc", None, *"ud", None]
    assert (envelopes.tombstones, envelopes.no_ops) == (2, 1)
    for row, event in enumerate(events):
        if envelopes.ops[row]:
            assert envelopes.key_texts[row] == event["key"]["id"]
            assert envelopes.afters[row] == event["value"]["after"]
            assert envelopes.source_ts_ms[row] == event["value"]["source"]["ts_ms"]
            assert (envelopes.databases[row], envelopes.collections[row]) == (
                "shop",
                event["value"]["source"]["collection"],
            )


def test_tombstones_deletes_and_updates_without_a_document() -> None:
    envelopes = decode_envelopes(
        [KEY] * 4, [None, value(op="d", after=None), value(op="u", after=None), value(op="d", after=...)]
    )
    assert envelopes.ops == [None, "d", None, "d"]
    assert envelopes.afters == [None] * 4
    assert (envelopes.tombstones, envelopes.no_ops, envelopes.invalid) == (1, 1, {})


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"secret", "not JSON"),
        (value() + value(), "not JSON"),
        (value() + b"\n" + value(), "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (value(op=...), "no operation"),
        (value(op=None), "no operation"),
        (value(op=1), "no operation"),
        (value(op="t"), "unknown operation"),
        (value(op="C"), "unknown operation"),
        (value(after=None), "an insert without a document"),
        (value(op="r", after=...), "an insert without a document"),
        (value(after={"_id": "secret"}), "the document is not a string"),
        (value(source=...), "no source"),
        (value(source="secret"), "no source"),
        (value(source=source(ts_ms=...)), "source.ts_ms"),
        (value(source=source(ts_ms="secret")), "source.ts_ms"),
        (value(source=source(ts_ms=-1)), "source.ts_ms"),
        (value(source=source(ts_ms=10**15)), "source.ts_ms"),
        (value(source=source(ts_ms=10**25)), "source.ts_ms"),
        (value(source=source(db=...)), "source.db"),
        (value(source=source(collection=None)), "source.collection"),
        (value(source=source(collection="")), "source.collection"),
    ],
)
def test_garbage_is_invalid_and_its_neighbours_stay_where_they_are(garbage: bytes, reason: str) -> None:
    first, last = value(after='{"_id": "first"}'), value(after='{"_id": "last"}')
    envelopes = decode_envelopes([KEY] * 3, [first, garbage, last])
    assert list(envelopes.invalid) == [1]
    assert reason in envelopes.invalid[1]
    assert "secret" not in envelopes.invalid[1]
    assert envelopes.ops == ["c", None, "c"]
    assert envelopes.afters == ['{"_id": "first"}', None, '{"_id": "last"}']


@pytest.mark.parametrize(
    ("key", "text", "reason"),
    [
        (None, "", "no key"),
        (b"", "", "the key is not"),
        (b"secret", "", "the key is not"),
        (b'{"ID":"1"}', "", "the key is not"),
        (b'{"id":1}', "", "the key is not"),
        (b'{"id":"secret"}', "", "the key's id is not JSON"),
        (b'{"id":"1 2"}', "", "the key's id is not JSON"),
        (b'{"id":"\xff"}', "", "the key is not"),
        (b'{"id":"7"}', "7", None),
        (b'{ "id" : "\\"s1\\"" }', '"s1"', None),
        (KEY, '{"$oid": "64bb5a801a2b3c4d5e000000"}', None),
    ],
)
def test_keys(key: bytes | None, text: str, reason: str | None) -> None:
    envelopes = decode_envelopes([key, KEY], [value(), value()])
    assert envelopes.key_texts[0] == text
    if reason is None:
        assert envelopes.invalid == {}
    else:
        assert reason in envelopes.invalid[0]
        assert "secret" not in envelopes.invalid[0]
        assert envelopes.ops == [None, "c"]


def test_a_tombstone_needs_no_key() -> None:
    assert decode_envelopes([None], [None]).invalid == {}


def test_as_many_keys_as_values() -> None:
    with pytest.raises(ValueError, match="1 keys for 0 values"):
        decode_envelopes([KEY], [])


def test_a_re_read_request_has_no_document_whatever_it_says() -> None:
    envelopes = decode_envelopes([KEY, KEY], [value(op="x", after=None), value(op="x")])
    assert envelopes.invalid == {}
    assert envelopes.ops == ["x", "x"]
    assert envelopes.afters == [None, None]


def test_what_was_sent_to_try_a_dead_letter_again_says_so() -> None:
    again = {"attempt": 2, "first_seen_ms": 7}
    envelopes = decode_envelopes(
        [KEY] * 4,
        [
            value(op="x", after=None, replay=again),
            value(),
            value(op="u", replay=again | {"history_only": True}),
            value(replay={"attempt": "two"}),
        ],
    )
    assert envelopes.ops == ["x", "c", "u", None]
    assert envelopes.replays == {0: Replay(2, 7), 2: Replay(2, 7, history_only=True)}
    assert envelopes.invalid.keys() == {3}


def test_a_key_is_written_as_debezium_writes_it() -> None:
    texts = ['{"$oid": "64bb5a801a2b3c4d5e000000"}', '"a \\"q\\" \\\\ \\u2028 日本"', "8", '{"a": 1,"b": "x"}']
    keys = [event_key(text) for text in texts]
    assert keys[0] == KEY
    assert decode_envelopes(keys, [value()] * len(keys)).key_texts == texts
