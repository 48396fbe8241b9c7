"""Records that can never be applied are counted, logged, kept whole as dead letters, and the stream goes on."""

from __future__ import annotations

import json

import pytest
from debezium_events import event_key, event_value
from topic_pipeline import TopicPipeline
from waiting import wait_until

from cdc_shared.dead_letters.letter import LetterFilter, Place
from cdc_shared.dead_letters.letter_topic import LetterTopic
from cdc_shared.dead_letters.sealed_record import RawRecord, unseal

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
    items.insert({"_id": "first", "v": 0})
    corrupted = _corrupted(topic_pipeline)
    for n, (key, value) in enumerate(corrupted.values()):
        items.send(key, value)
        items.insert({"_id": f"after {n}", "v": n})
    items.await_equal()

    sent = {Place(items.topic, 0, 1 + 2 * n): RawRecord(*each) for n, each in enumerate(corrupted.values())}
    letters = {
        each.letter.place: each
        for each in LetterTopic.on(topic_pipeline.stack.kafka).letters(LetterFilter(pipeline=topic_pipeline.name))
    }
    assert letters.keys() == sent.keys()
    for place, record in sent.items():
        letter = letters[place].letter
        assert unseal(letters[place].value, letter, topic_pipeline.stack.data_keys) == record, "it is kept whole"
        assert "not json" not in letter.message, "a reason does not repeat the content"
        assert letter.message
        assert (letter.attempt, letter.collection, letter.lake_url) == (1, items.name, None)

    count = len(corrupted)
    assert writer.metric("cdc_events_invalid_total", pipeline=topic_pipeline.name, topic=items.topic) == count
    assert writer.metric("cdc_dead_letters_total", pipeline=topic_pipeline.name, topic=items.topic) == count
    logged = [event for event in writer.log_events() if "dead-letter" in str(event.get("event"))]
    assert {Place(each["topic"], each["partition"], each["offset"]) for each in logged} == sent.keys()
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
