"""Benchmark events have the shape of real Debezium events, and tell a consistent story of a collection."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bench.events import Event, EventFactory, Mix
from bson.json_util import JSONMode, JSONOptions, dumps, loads

pytestmark = pytest.mark.unit

PAYLOADS = Path(__file__).parents[2] / "payloads" / "debezium-events.jsonl"


def _golden_insert() -> dict[str, Any]:
    with PAYLOADS.open(encoding="utf-8") as lines:
        events = [json.loads(line) for line in lines]
    golden: dict[str, Any] = next(event for event in events if event["value"] and event["value"].get("op") == "c")
    return golden


def _shape(value: Any) -> Any:
    return {name: _shape(child) for name, child in value.items()} if isinstance(value, dict) else type(value).__name__


def test_the_envelope_is_debeziums_field_for_field() -> None:
    golden = _golden_insert()["value"]
    event = json.loads(next(EventFactory(1).inserts(1)).value or b"")
    assert list(event) == list(golden)
    assert list(event["source"]) == list(golden["source"])
    nullable = {"lsid": "NoneType", "txnNumber": "NoneType"}  # set inside a transaction only
    assert _shape(event) == _shape(golden | {"source": golden["source"] | dict.fromkeys(nullable)})


def test_documents_are_spelled_as_debezium_spells_them() -> None:
    golden_after: str = _golden_insert()["value"]["after"]
    assert golden_after == json.dumps(json.loads(golden_after), ensure_ascii=False, separators=(",", ": "))
    for event in EventFactory(2).inserts(50):
        after = json.loads(event.value or b"")["after"]
        assert after == json.dumps(json.loads(after), ensure_ascii=False, separators=(",", ": "))
        legacy = JSONOptions(json_mode=JSONMode.LEGACY, tz_aware=True)
        document = loads(after, json_options=legacy)
        assert json.loads(event.key)["id"] == dumps(document["_id"])
        assert len(document) == 15


def test_an_event_weighs_about_a_kilobyte() -> None:
    sizes = [len(event.value or b"") for event in EventFactory(3).inserts(1_000)]
    assert 1_000 < sum(sizes) / len(sizes) < 1_400


def test_one_seed_gives_the_same_bytes() -> None:
    def make(seed: int) -> list[Event]:
        factory = EventFactory(seed)
        return [*factory.inserts(100), *factory.changes(100)]

    assert make(4) == make(4)
    assert make(4) != make(5)


def test_updates_and_deletes_meet_live_documents_and_deletes_bring_a_tombstone() -> None:
    factory = EventFactory(6)
    live = {event.key for event in factory.inserts(3_000)}
    ops: Counter[str] = Counter()
    deleted = None
    for key, value in factory.changes(20_000):
        if value is None:
            assert key == deleted
            deleted = None
            continue
        op = json.loads(value)["op"]
        ops[op] += 1
        assert (key in live) == (op != "c")
        if op == "d":
            live.remove(key)
            deleted = key
        else:
            live.add(key)
    assert factory.live_rows == len(live)
    for op, share in zip("ucd", Mix(), strict=True):
        assert ops[op] / 20_000 == pytest.approx(share, abs=0.02)


def test_changes_without_a_document_are_refused() -> None:
    with pytest.raises(ValueError, match="make inserts first"):
        list(EventFactory(7).changes(1, Mix(update=1.0, insert=0.0, delete=0.0)))
