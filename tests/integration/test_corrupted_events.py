"""Records that can never be applied are counted, logged, kept whole as dead letters, and the stream goes on."""

from __future__ import annotations

import json
import uuid

import pytest
from confluent_kafka.admin import AdminClient
from debezium_events import event_key, event_value
from kafka_reading import end_offset, headers_of, records_since
from stack_endpoints import Stack
from topic_pipeline import TopicPipeline
from waiting import wait_until

from cdc_shared.dead_letters.rejection import ReasonCode, Rejection
from cdc_shared.kafka.topics import DEAD_LETTERS_TOPIC, ensure_topic
from cdc_shared.tracing.otel_config import configure_tracing
from delta_writer.consumer.event_handler import DeadLetter
from delta_writer.writer.dlq_writer import DEAD_LETTERS_CONFIG, DeadLetterWriter, acknowledged_producer

pytestmark = pytest.mark.integration

KEY = event_key(1)
TIMEOUT_S = 30.0


def _envelope(pipeline: TopicPipeline, **changes: object) -> dict[str, object]:
    value = event_value(
        "c", {"_id": 1, "v": 1}, pipeline=pipeline.name, database=pipeline.name, collection="items", ts_ms=1
    )
    envelope: dict[str, object] = json.loads(value)
    return envelope | changes


def _corrupted(pipeline: TopicPipeline) -> dict[str, tuple[bytes | None, bytes | None]]:
    good = json.dumps(_envelope(pipeline)).encode()
    without_op = _envelope(pipeline)
    del without_op["op"]
    return {
        "bytes that are no JSON": (KEY, b"\x00\xff\xfenot json"),
        "an empty value": (KEY, b""),
        "a JSON value that is no object": (KEY, b"[1, 2]"),
        "an envelope without op": (KEY, json.dumps(without_op).encode()),
        "an unknown op": (KEY, json.dumps(_envelope(pipeline, op="z")).encode()),
        "a document that is no JSON": (KEY, json.dumps(_envelope(pipeline, after="{not json")).encode()),
        "a key that is no JSON": (b"\xff\x00", good),
        "a key without id": (b'{"other":"1"}', good),
        "no key": (None, good),
    }


def test_what_cannot_be_read_becomes_a_dead_letter_and_the_stream_goes_on(topic_pipeline: TopicPipeline) -> None:
    items, writer = topic_pipeline.items, topic_pipeline.writer
    before = end_offset(topic_pipeline.stack.kafka, DEAD_LETTERS_TOPIC)
    items.insert({"_id": "first", "v": 0})
    corrupted = _corrupted(topic_pipeline)
    for n, (key, value) in enumerate(corrupted.values()):
        items.send(key, value)
        items.insert({"_id": f"after {n}", "v": n})
    items.await_equal()

    sent = {f"{items.topic}:0:{1 + 2 * n}": each for n, each in enumerate(corrupted.values())}
    letters = {
        (message.key() or b"").decode(): message
        for message in records_since(topic_pipeline.stack.kafka, DEAD_LETTERS_TOPIC, before)
        if (message.key() or b"").startswith(items.topic.encode() + b":")
    }
    assert letters.keys() == sent.keys()
    for place, (key, value) in sent.items():
        headers = headers_of(letters[place])
        assert letters[place].value() == value, f"{place}: the raw value is kept"
        assert headers.pop("cdc.key") == key
        reason = (headers.pop("cdc.reason") or b"").decode()
        assert reason
        assert "not json" not in reason, "a reason does not repeat the content"
        offset = place.rpartition(":")[2].encode()
        assert headers == {
            "cdc.pipeline": topic_pipeline.name.encode(),
            "cdc.topic": items.topic.encode(),
            "cdc.partition": b"0",
            "cdc.offset": offset,
        }

    count = len(corrupted)
    assert writer.metric("cdc_events_invalid_total", pipeline=topic_pipeline.name, topic=items.topic) == count
    assert writer.metric("cdc_dead_letters_total", pipeline=topic_pipeline.name, topic=items.topic) == count
    logged = [event for event in writer.log_events() if "dead-letter" in str(event.get("event"))]
    assert {f"{each['topic']}:{each['partition']}:{each['offset']}" for each in logged} == sent.keys()
    assert all(each["reason"] and each["pipeline"] == topic_pipeline.name for each in logged)
    assert writer.pipeline_state(topic_pipeline.name) == ("running", None)


def test_a_topic_of_nothing_but_rubbish_makes_no_table(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    for n in range(50):
        items.send(b"%d" % n, b"rubbish")
    items.flush()
    wait_until(
        lambda: topic_pipeline.writer.metric("cdc_dead_letters_total", topic=items.topic) == 50,
        TIMEOUT_S,
        "50 dead letters are counted",
    )
    assert topic_pipeline.rows("items") == {}
    assert topic_pipeline.writer.pipeline_state(topic_pipeline.name) == ("running", None)


def test_an_earlier_valid_change_of_a_key_is_kept_when_its_last_one_is_no_json(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    items.insert({"_id": 1, "v": "kept"})
    items.send(KEY, json.dumps(_envelope(topic_pipeline, after='{"_id": 1, "v": ')).encode())
    items.await_equal()


def test_a_record_too_large_for_kafkas_defaults_is_kept_too(stack: Stack) -> None:
    """Change topics take 90 MiB; a letter that its topic refuses would stop the pipeline for ever."""
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    ensure_topic(admin, DEAD_LETTERS_TOPIC, 1, DEAD_LETTERS_CONFIG)
    begin = end_offset(stack.kafka, DEAD_LETTERS_TOPIC)
    value = b"{" * (20 * 1024 * 1024)
    letter = DeadLetter(f"t-{uuid.uuid4().hex}", 0, 7, b"key", value, Rejection(ReasonCode.MALFORMED_EVENT, "not JSON"))
    DeadLetterWriter(acknowledged_producer(stack.kafka), "trial", configure_tracing("test", None)).write([letter])
    found = [message for message in records_since(stack.kafka, DEAD_LETTERS_TOPIC, begin) if message.value() == value]
    assert [headers_of(message)["cdc.topic"] for message in found] == [letter.topic.encode()]
