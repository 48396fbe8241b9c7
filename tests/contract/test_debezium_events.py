"""What the platform relies on in Debezium's change events: golden payloads and the running Connect held to one suite.

The golden payloads (`tests/payloads/debezium-events.jsonl`) were captured from the connector version that we ship. The
live half makes the real connector capture the same documents and asks the same of what arrives, so that an upgrade that
changes an event shows here first.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.json_util import JSONMode, JSONOptions, dumps, loads
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from pymongo import MongoClient
from stack_endpoints import Stack

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.connect.connector_config import load_template, render_connector_config
from cdc_shared.connect.connector_secrets import ConnectorSecrets
from cdc_shared.kafka.topics import change_topic, notification_topic, signal_topic
from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.security.secret_provider import Secret

pytestmark = pytest.mark.contract

ROOT = Path(__file__).parents[2]
PAYLOADS = ROOT / "tests" / "payloads" / "debezium-events.jsonl"
TEMPLATE = ROOT / "config" / "kafka-connect" / "debezium-mongodb.json"
CAPTURE_TIMEOUT_S = 60.0

LEGACY = JSONOptions(json_mode=JSONMode.LEGACY, tz_aware=True)
RELAXED = JSONOptions(json_mode=JSONMode.RELAXED, tz_aware=True)
CANONICAL = JSONOptions(json_mode=JSONMode.CANONICAL, tz_aware=True)

ENVELOPE_FIELDS = {"before", "after", "updateDescription", "source", "op", "ts_ms", "transaction"}
SOURCE_TYPES: dict[str, type | tuple[type, ...]] = {
    "version": str,
    "connector": str,
    "name": str,
    "db": str,
    "collection": str,
    "snapshot": str,
    "ts_ms": int,
    "ord": int,
    "lsid": (str, type(None)),
    "txnNumber": (int, type(None)),
    "wallTime": (int, type(None)),
}
SNAPSHOT_READ = {"true", "first", "last", "first_in_data_collection", "last_in_data_collection"}

SPELLINGS = {
    "str": r'"héllo \"q\" \u2028 日本 \ud83d\ude00"',
    "empty": '""',
    "int32": "42",
    "int64": '{"$numberLong": "9007199254740993"}',
    "neg": "-1",
    "dbl": "3.14",
    "dbl_int": "5.0",
    "nan": "NaN",
    "inf": "Infinity",
    "ninf": "-Infinity",
    "negzero": "-0.0",
    "dec": '{"$numberDecimal": "12345678901234567890.123456789"}',
    "decnan": '{"$numberDecimal": "NaN"}',
    "date": '{"$date": 1709210096789}',
    "date_old": '{"$date": -2208988800000}',
    "bin": '{"$binary": "AAH+/w==","$type": "00"}',
    "uuid": '{"$binary": "AAAAAAAAAAAAAAAAAAAAAQ==","$type": "04"}',
    "bool": "true",
    "null": "null",
    "re": '{"$regex": "^a.*b$","$options": "im"}',
    "ts": '{"$timestamp": {"t": 1700000000,"i": 7}}',
    "code": '{"$code": "function(){}"}',
    "min": '{"$minKey": 1}',
    "max": '{"$maxKey": 1}',
    "nested": '{"a": {"b": {"c": [1,2,{"d": null}]}},"e": {}}',
    "arr": '[1,"two",3.0,null,[4,[5]],{"k": {"$date": 1577836800000}}]',
    "earr": "[]",
    "a.b": '"dotted"',
    "$x": '"dollar"',
    "": '"emptykey"',
}
"""How `after` spells each BSON type: the legacy strict dialect, with bare NaN and Infinity (not valid JSON)."""

KEY_TEXTS = {'"s1"', "7", "8", "1.5", '{"a": 1,"b": "x"}', '{"$date": "2024-01-01T00:00:00Z"}'} | {
    '{"$binary": {"base64": "AAAAAAAAAAAAAAAAAAAACQ==","subType": "04"}}'
}
"""How the key spells each type of `_id`: the relaxed dialect, blanks after colons; Int64 8 is a plain `8`."""


@dataclass(frozen=True)
class Captured:
    """One Kafka record: key and value as text; a tombstone's value is None."""

    topic: str
    partition: int
    offset: int
    key: str
    value: str | None

    @property
    def envelope(self) -> dict[str, Any]:
        """The value as JSON; empty for a tombstone."""
        parsed: dict[str, Any] = json.loads(self.value) if self.value else {}
        return parsed

    @property
    def op(self) -> str | None:
        """Debezium's operation; None for a tombstone."""
        return self.envelope.get("op")

    @property
    def key_text(self) -> str:
        """The text in the key that names the document: its `_id` in relaxed Extended JSON."""
        text = json.loads(self.key)["id"]
        assert isinstance(text, str)
        return text


def _golden_events() -> list[Captured]:
    with PAYLOADS.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return [
        Captured(
            record["topic"],
            record["partition"],
            record["offset"],
            json.dumps(record["key"]),
            None if record["value"] is None else json.dumps(record["value"]),
        )
        for record in records
        if not record["topic"].startswith("__debezium-heartbeat")
    ]


@pytest.fixture(scope="module", params=["golden", pytest.param("live", marks=pytest.mark.integration)])
def events(request: pytest.FixtureRequest) -> list[Captured]:
    """All change records of a capture, each topic in its order."""
    if request.param == "golden":
        return _golden_events()
    captured: list[Captured] = request.getfixturevalue("live_events")
    return captured


DATE_ID = datetime(2024, 1, 1, tzinfo=UTC)
IDS: tuple[Any, ...] = ("s1", 7, Int64(8), {"a": 1, "b": "x"}, Binary(uuid.UUID(int=9).bytes, 4), 1.5, DATE_ID)
RICH: dict[str, Any] = {
    "str": 'héllo "q" \u2028 日本 \U0001f600',
    "empty": "",
    "int32": 42,
    "int64": Int64(9007199254740993),
    "neg": -1,
    "dbl": 3.14,
    "dbl_int": 5.0,
    "nan": float("nan"),
    "inf": float("inf"),
    "ninf": float("-inf"),
    "negzero": -0.0,
    "dec": Decimal128("12345678901234567890.123456789"),
    "decnan": Decimal128("NaN"),
    "date": datetime(2024, 2, 29, 12, 34, 56, 789000, UTC),
    "date_old": datetime(1900, 1, 1, tzinfo=UTC),
    "bin": Binary(b"\x00\x01\xfe\xff"),
    "uuid": Binary(uuid.UUID(int=1).bytes, 4),
    "bool": True,
    "null": None,
    "re": Regex("^a.*b$", "im"),
    "ts": Timestamp(1700000000, 7),
    "code": Code("function(){}"),
    "min": MinKey(),
    "max": MaxKey(),
    "nested": {"a": {"b": {"c": [1, 2, {"d": None}]}}, "e": {}},
    "arr": [1, "two", 3.0, None, [4, [5]], {"k": datetime(2020, 1, 1, tzinfo=UTC)}],
    "earr": [],
    "a.b": "dotted",
    "$x": "dollar",
    "": "emptykey",
}
"""The document of the golden capture: one field a BSON type; `SPELLINGS` says how each must arrive."""


@pytest.fixture(scope="module")
def live_events(stack: Stack) -> Iterator[list[Captured]]:
    """The same changes as in the golden capture, through the real connector; everything made is removed again."""
    uri, kafka = stack.mongodb_uri, stack.kafka
    name = f"contract-{uuid.uuid4().hex[:10]}"
    spec = PipelineSpec(name=name, source=SourceSpec(connection="env:MONGODB_URI", database=name))
    topics = [change_topic(name, name, collection) for collection in ("ids", "rich")]
    with ExitStack() as undo:
        client = undo.enter_context(MongoClient[dict[str, Any]](uri))
        connect = undo.enter_context(ConnectClient(stack.connect_url))
        consumer = Consumer({"bootstrap.servers": kafka, "group.id": name, "isolation.level": "read_committed"})
        admin = AdminClient({"bootstrap.servers": kafka})
        made = [*topics, signal_topic(name), notification_topic(name), f"__debezium-heartbeat.{name}"]
        undo.callback(lambda: wait(admin.delete_topics(made).values(), CAPTURE_TIMEOUT_S))
        undo.callback(consumer.close)
        undo.callback(client.drop_database, name)
        undo.callback(connect.delete, name)
        ids, rich = client[name]["ids"], client[name]["rich"]
        ids.insert_many([{"_id": value, "v": 1} for value in IDS])
        rich.insert_one({"_id": ObjectId(), **RICH})
        secrets = ConnectorSecrets(stack.connect_secrets_dir)
        undo.callback(secrets.remove, name)
        connection = secrets.put(name, Secret(uri))
        connect.put_config(name, render_connector_config(load_template(TEMPLATE), spec, connection, kafka))
        connect.wait_running(name, CAPTURE_TIMEOUT_S)
        reader = _Reader(consumer, topics)
        reader.read_until(lambda seen: sum(event.op == "r" for event in seen) == len(IDS) + 1)
        ids.update_one({"_id": "s1"}, {"$set": {"v": 2}})
        ids.delete_one({"_id": 7})
        key = rich.insert_one({"_id": ObjectId(), **RICH}).inserted_id
        reader.read_until(lambda seen: any(event.op == "c" for event in seen))  # looked up before it changes
        rich.replace_one({"_id": key}, {"replaced": True})
        reader.read_until(lambda seen: any("replaced" in (event.value or "") for event in seen))
        rich.delete_one({"_id": key})
        yield reader.read_until(lambda seen: sum(event.value is None for event in seen) == 2)


class _Reader:
    """Reads both change topics from their start and keeps what it has seen, topic by topic."""

    def __init__(self, consumer: Consumer, topics: list[str]) -> None:
        self._consumer = consumer
        self._seen: dict[str, list[Captured]] = {topic: [] for topic in topics}
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING) for topic in topics])

    def read_until(self, enough: Callable[[list[Captured]], bool]) -> list[Captured]:
        """Everything seen so far, once that is enough; fails with what came when it is not in time."""
        deadline = time.monotonic() + CAPTURE_TIMEOUT_S
        while not enough(seen := [event for events in self._seen.values() for event in events]):
            if time.monotonic() > deadline:
                pytest.fail(f"after {CAPTURE_TIMEOUT_S:.0f} s only {[(e.topic, e.op, e.key) for e in seen]} had come")
            message = self._consumer.poll(0.5)
            if message is None or message.error() is not None:
                continue
            key, value = message.key() or b"", message.value()
            topic, text = str(message.topic()), None if value is None else value.decode()
            place = (topic, message.partition() or 0, message.offset() or 0)
            self._seen[topic].append(Captured(*place, key.decode(), text))
        return seen


def _values(events: list[Captured]) -> Iterator[tuple[Captured, dict[str, Any]]]:
    for event in events:
        if event.value is not None:
            yield event, event.envelope


def test_every_operation_and_a_tombstone_were_captured(events: list[Captured]) -> None:
    assert {event.op for event in events} == {"r", "c", "u", "d", None}


def test_the_envelope_has_the_fields_that_are_decoded(events: list[Captured]) -> None:
    for _, value in _values(events):
        assert set(value) >= ENVELOPE_FIELDS
        assert isinstance(value["ts_ms"], int)
        assert value["before"] is None
        for field, kind in SOURCE_TYPES.items():
            assert isinstance(value["source"][field], kind), field


def test_after_is_text_unless_the_document_is_gone(events: list[Captured]) -> None:
    for _, value in _values(events):
        match value["op"]:
            case "c" | "r":
                assert isinstance(value["after"], str)
            case "u":
                assert isinstance(value["after"], str | None)  # gone before it was looked up: its delete follows
            case "d":
                assert value["after"] is None


def test_snapshot_reads_say_so_and_changes_say_not(events: list[Captured]) -> None:
    for _, value in _values(events):
        assert value["source"]["snapshot"] in (SNAPSHOT_READ if value["op"] == "r" else {"false"})


def test_the_topic_is_named_for_pipeline_database_and_collection(events: list[Captured]) -> None:
    for event, value in _values(events):
        source = value["source"]
        assert event.topic == f"{source['name']}.{source['db']}.{source['collection']}"


def test_a_key_is_the_id_in_relaxed_extended_json(events: list[Captured]) -> None:
    for event, value in _values(events):
        assert set(json.loads(event.key)) == {"id"}
        if value["after"] is not None:
            in_key = loads(event.key_text, json_options=RELAXED)
            in_document = loads(value["after"], json_options=LEGACY)["_id"]
            assert dumps(in_key, json_options=RELAXED) == dumps(in_document, json_options=RELAXED)


def test_each_type_of_id_has_its_key_text(events: list[Captured]) -> None:
    texts = {event.key_text for event in events}
    assert texts >= KEY_TEXTS
    assert any(re.fullmatch(r'\{"\$oid": "[0-9a-f]{24}"\}', text) for text in texts)


def test_after_spells_each_type_as_it_is_decoded(events: list[Captured]) -> None:
    rich = [value["after"] for _, value in _values(events) if value["after"] and '"dbl_int"' in value["after"]]
    assert {value["op"] for _, value in _values(events) if value["after"] in rich} >= {"r", "c"}
    for after in rich:
        for name, spelling in SPELLINGS.items():
            assert f'"{name}": {spelling}' in after
        assert re.search(r'"_id": \{"\$oid": "[0-9a-f]{24}"\}', after)


def test_a_delete_is_followed_by_its_tombstone(events: list[Captured]) -> None:
    deletes = [position for position, event in enumerate(events) if event.op == "d"]
    assert deletes
    for position in deletes:
        tombstone = events[position + 1]
        assert tombstone.value is None
        assert (tombstone.topic, tombstone.partition, tombstone.key) == (
            events[position].topic,
            events[position].partition,
            events[position].key,
        )


def test_a_replaced_document_is_an_update_without_a_description(events: list[Captured]) -> None:
    replaced = [value for _, value in _values(events) if value["after"] and '"replaced": true' in value["after"]]
    assert replaced
    assert all(value["op"] == "u" and value["updateDescription"] is None for value in replaced)


def test_a_documents_events_keep_their_order_within_a_partition(events: list[Captured]) -> None:
    places: dict[tuple[str, int], int] = {}
    for event in events:
        assert event.offset > places.get((event.topic, event.partition), -1)
        places[event.topic, event.partition] = event.offset
    partitions: dict[tuple[str, str], set[int]] = {}
    for event in events:
        partitions.setdefault((event.topic, event.key), set()).add(event.partition)
    assert all(len(found) == 1 for found in partitions.values())
