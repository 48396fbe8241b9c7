"""Rules that change documents, on the real stack: masked values are nowhere to be found, and other rules come into
force while changes go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from debezium_events import event_key, event_value
from delta_reading import open_table, read_with_query_builder
from kafka_reading import end_offset, records_since
from plain_values import contents
from topic_pipeline import TopicPipeline
from waiting import wait_until

from cdc_shared.kafka.rules_topic import read_rules
from cdc_shared.kafka.topics import DEAD_LETTERS_TOPIC, STATUS_TOPIC
from cdc_shared.models.common import HISTORY_SUFFIX, SinkSpec

pytestmark = pytest.mark.integration

TIMEOUT_S: Final = 60.0
KEY: Final = {"TRIAL_MASK_KEY": "an example of a key, 32 bytes or more"}
MARKER: Final = "UrsulaKLeGuin"
BIRTHDAY: Final = datetime(1929, 10, 21, 5, 6, 7, 891000, tzinfo=UTC)
PLAIN: Final = (
    MARKER,
    BIRTHDAY.isoformat(),
    repr(BIRTHDAY),
    "datetime.datetime(1929, 10, 21",
    str(int(BIRTHDAY.timestamp() * 1e3)),
)
"""Everything that a mask has to hide, as text."""
MASKS: Final[list[dict[str, Any]]] = [
    {"rule": "hash", "path": "/_id", "key": "env:TRIAL_MASK_KEY"},
    {"rule": "redact", "path": "/name"},
    {"rule": "partial", "path": "/card", "keep_last": 4},
    {"rule": "hash", "path": "/token", "key": "env:TRIAL_MASK_KEY"},
    {"rule": "email", "path": "/contacts/*/email", "key": "env:TRIAL_MASK_KEY"},
    {"rule": "truncate_date", "path": "/born", "to": "year"},
    {"rule": "redact", "path": "/mixed"},
    {"rule": "rename", "path": "/n", "to": "number"},
    {"rule": "flatten", "path": "/address"},
    {"rule": "drop", "path": "/internal"},
]


def person(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "_id": f"{MARKER}-{number}",
        "name": MARKER,
        "card": f"{MARKER}-0000-{number:04}",
        "token": MARKER,
        "contacts": [{"email": f"{MARKER}@{MARKER}.example", "kind": "home"}],
        "born": BIRTHDAY,
        "mixed": [number, MARKER, {"deep": MARKER}, [MARKER], BIRTHDAY][number % 5],
        "n": number,
        "address": {"street": "open", "zip": {"code": number}},
        "internal": MARKER,
    } | changes


def test_a_masked_value_is_nowhere_and_other_rules_come_into_force_mid_stream(
    new_topic_pipeline: Callable[..., TopicPipeline],
) -> None:
    pipeline = new_topic_pipeline(start=False)
    items, kafka = pipeline.items, pipeline.stack.kafka
    pipeline.spec = pipeline.spec.model_copy(
        update={"sink": SinkSpec.model_validate({**pipeline.spec.sink.model_dump(), "history": True})}
    )
    pipeline.publish_quality(transformation=MASKS, validation=[{"rule": "required", "path": "/n"}])
    items.make_topic()
    letters_from, statuses_from = end_offset(kafka, DEAD_LETTERS_TOPIC), end_offset(kafka, STATUS_TOPIC)
    for number in range(10):
        send(pipeline, "c", person(number))
        send(pipeline, "u", person(number, name={"first": MARKER}, born=MARKER))
    send(pipeline, "c", person(90, n=None))
    writer = pipeline.start_writer(KEY)
    await_rows(pipeline, 10)

    (row,) = [each for each in rows(pipeline) if each["number"] == 7]
    assert (row["name"], row["mixed"], row["address_street"], row["address_zip_code"]) == ("***", "***", "open", 7)
    assert row["card"] == "*" * (len(MARKER) + 6) + "0007"
    assert len(row["token"]) == len(row["_id"]) == 64
    assert row["_id"] in row["_cdc_key"]
    assert row["contacts"][0]["kind"] == "home"
    assert "@" in row["contacts"][0]["email"]
    send(pipeline, "d", {"_id": f"{MARKER}-7"})
    await_rows(pipeline, 9)

    hot_reload(pipeline)
    for url in (items.url, items.url + HISTORY_SUFFIX):
        table = open_table(url, pipeline.stack.object_store)
        assert table is not None
        table.create_checkpoint()
    check_hidden(pipeline, writer.log_file, letters_from, statuses_from)


def hot_reload(pipeline: TopicPipeline) -> None:
    """Publish other rules while changes go on: no restart, and rows carry the version that made them."""
    writer, stop = pipeline.writer, threading.Event()
    events = [e.get("event") for e in writer.log_events()]
    sent = [0]

    def stream() -> None:
        while not stop.wait(0.02):
            send(pipeline, "c", person(1000 + sent[0]))
            sent[0] += 1

    streaming = threading.Thread(target=stream)
    streaming.start()
    try:
        wait_until(lambda: len(rows(pipeline)) > 15, TIMEOUT_S, "changes come by the first rules")
        rules = [*MASKS, {"rule": "redact", "path": "/contacts/*/kind", "text": "hidden"}]
        published = pipeline.publish_quality(transformation=rules)
        assert "/contacts/*/kind" in published.notices[0]
        assert f"delta-writer remask {pipeline.name}" in published.notices[0]
        wait_until(
            lambda: any(each["_cdc_rules_version"] == 2 for each in rows(pipeline)),
            TIMEOUT_S,
            "rows of the second rules",
        )
    finally:
        stop.set()
        streaming.join()
    await_rows(pipeline, 9 + sent[0])
    kinds = {(each["_cdc_rules_version"], each["contacts"][0]["kind"]) for each in rows(pipeline)}
    assert kinds == {(1, "home"), (2, "hidden")}
    since = [e.get("event") for e in writer.log_events()][len(events) :]
    assert "rules replaced" in since
    assert not {"pipeline starting", "pipeline ended", "partition assigned"} & set(since), "nothing was restarted"
    assert [read_rules(pipeline.stack.kafka, pipeline.name, version).version for version in (1, 2)] == [1, 2]


def check_hidden(pipeline: TopicPipeline, log_file: Path, letters_from: int, statuses_from: int) -> None:
    """No plain value is in the lake, the writer's log and cache, the dead letters, or what it reports."""
    stack = pipeline.stack
    lake = dict(contents(f"{pipeline.root}/{pipeline.name}", stack.object_store))
    assert {"checkpoint", "json", "parquet"} <= {word for path in lake for word in path.split(".")}
    assert [path for path, content in lake.items() if any(plain in content for plain in PLAIN)] == []
    letters = records_since(stack.kafka, DEAD_LETTERS_TOPIC, letters_from)
    mine = [each for each in letters if (each.key() or b"").startswith(pipeline.items.topic.encode())]
    assert len(mine) == 1
    statuses = records_since(stack.kafka, STATUS_TOPIC, statuses_from)
    said = [log_file.read_text(), pipeline.writer.get("/health").text, pipeline.writer.get("/metrics").text]
    said += [f"{each.key()!r} {each.value()!r} {each.headers()!r}" for each in [*mine, *statuses]]
    said += [path.read_bytes().decode("latin-1") for path in pipeline.writer.cache_dir.rglob("*") if path.is_file()]
    assert [text[:200] for text in said if any(plain in text for plain in PLAIN)] == []
    assert pipeline.writer.metric("cdc_masked_values_total", pipeline=pipeline.name, mask="partial") > 20


def rows(pipeline: TopicPipeline) -> list[dict[str, Any]]:
    url, store = pipeline.items.url, pipeline.stack.object_store
    return [] if open_table(url, store) is None else read_with_query_builder(url, store).to_pylist()


def await_rows(pipeline: TopicPipeline, number: int) -> None:
    pipeline.items.flush()
    wait_until(lambda: len(rows(pipeline)) == number, TIMEOUT_S, f"there are {number} rows")


def send(pipeline: TopicPipeline, op: Any, document: dict[str, Any]) -> None:
    """Send a change that the model does not learn of; `d` needs the `_id` alone."""
    value = event_value(
        op, None if op == "d" else document, pipeline=pipeline.name, database=pipeline.name, collection="items", ts_ms=1
    )
    pipeline.items.send(event_key(document["_id"]), value)
