"""Dead letters on the real stack: kept encrypted, listed, shown, tried again, given up; a flood pauses the pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import obstore
import pytest
from confluent_kafka import Message, Producer
from debezium_events import event_key, event_value
from delta_reading import read_with_query_builder
from kafka_reading import end_offset, records_since
from mongo_pipeline import EXACT
from pymongo import MongoClient
from pymongo.collection import Collection
from topic_pipeline import TopicPipeline
from waiting import wait_until

from cdc_shared.dead_letters.dead_letters import DeadLetters
from cdc_shared.dead_letters.event_rows import EventRows
from cdc_shared.dead_letters.lake_records import lake_directory
from cdc_shared.dead_letters.letter import LetterFilter, ListedLetter, NoLetter, Place
from cdc_shared.dead_letters.rejection import ReasonCode
from cdc_shared.dead_letters.replay_records import CannotReplay
from cdc_shared.documents import canonical_document, key_text
from cdc_shared.kafka.spec_topic import read_spec
from cdc_shared.kafka.topics import DEAD_LETTERS_TOPIC, topic_id
from cdc_shared.models.common import HISTORY_SUFFIX, PipelineSpec
from cdc_shared.storage.object_store import open_store

pytestmark = pytest.mark.integration

TIMEOUT_S = 60.0
MARKER = "Ursula-K-4711"
TOO_LARGE = 1500
"""Bytes, above the limit that the pipelines here begin with."""
BEYOND_THE_TOPIC = 1_500_000


@pytest.fixture
def pipeline(new_topic_pipeline: Callable[..., TopicPipeline]) -> TopicPipeline:
    """With a history; documents of more than 1 KiB are rejected."""
    made = new_topic_pipeline(start=False)
    made.spec = changed(made.spec, max_document_size=1024)
    made.start()
    return made


@pytest.fixture
def source(pipeline: TopicPipeline) -> Iterator[Collection[dict[str, Any]]]:
    """The collection in MongoDB, which re-read requests are answered from."""
    with MongoClient[dict[str, Any]](pipeline.stack.mongodb_uri) as client:
        yield client.get_database(pipeline.database, codec_options=EXACT)[pipeline.items.name]


def changed(spec: PipelineSpec, **dirty_data: Any) -> PipelineSpec:
    quality = spec.quality.model_copy(update={"dirty_data": spec.quality.dirty_data.model_copy(update=dirty_data)})
    sink = spec.sink.model_copy(update={"history": True})
    return spec.model_copy(update={"quality": quality, "sink": sink})


def dead_letters(pipeline: TopicPipeline) -> DeadLetters:
    stack = pipeline.stack
    return DeadLetters.on(
        stack.kafka,
        lambda: stack.data_keys,
        stack.object_store,
        lambda name: read_spec(stack.kafka, name, pipeline.specs_topic),
    )


def standing(pipeline: TopicPipeline) -> dict[Place, ListedLetter]:
    letters = dead_letters(pipeline).list_letters(LetterFilter(pipeline=pipeline.name)).letters
    return {each.letter.place: each for each in letters}


def await_letters(pipeline: TopicPipeline, count: int) -> dict[Place, ListedLetter]:
    """Wait until the writer has written that many, ever; those that stand."""
    wait_until(
        lambda: pipeline.writer.metric("cdc_dead_letters_total", pipeline=pipeline.name) == count,
        TIMEOUT_S,
        f"{count} dead letters are written",
    )
    return standing(pipeline)


def await_committed(pipeline: TopicPipeline, places: Iterable[Place]) -> None:
    """Wait until the batches that these records came in are in both tables: letters are written before that."""

    topic = topic_id(pipeline.admin, pipeline.items.topic)

    def are_committed() -> bool:
        urls = [pipeline.table_url(pipeline.items.name + suffix) for suffix in ("", HISTORY_SUFFIX)]
        tables = [EventRows(open_store(url, pipeline.stack.object_store), url) for url in urls]
        return all(table.has_read(topic, place.partition, place.offset) for table in tables for place in places)

    wait_until(are_committed, TIMEOUT_S, "the batches with dead letters are committed")


def send(pipeline: TopicPipeline, value: bytes | None, key: bytes) -> Place:
    """One record of any size to the change topic, where it then lies."""
    placed: list[Message] = []
    producer = Producer({"bootstrap.servers": pipeline.stack.kafka, "message.max.bytes": 8 * 1024 * 1024})
    producer.produce(pipeline.items.topic, value, key, 0, on_delivery=lambda _, message: placed.append(message))
    assert producer.flush(TIMEOUT_S) == 0
    assert placed[0].error() is None
    return Place(pipeline.items.topic, 0, placed[0].offset() or 0)


def send_event(pipeline: TopicPipeline, document: dict[str, Any]) -> Place:
    value = event_value(
        "c", document, pipeline=pipeline.name, database=pipeline.name, collection=pipeline.items.name, ts_ms=1_000
    )
    return send(pipeline, value, event_key(document["_id"]))


def person(document_id: str, size: int = TOO_LARGE) -> dict[str, Any]:
    return {"_id": document_id, "name": MARKER, "notes": ["x" * size]}


def rows_of_history(pipeline: TopicPipeline) -> list[tuple[str, str, str | None]]:
    """(key, op, name) in the order of events."""
    url = pipeline.table_url(pipeline.items.name + HISTORY_SUFFIX)
    rows = read_with_query_builder(url, pipeline.stack.object_store).to_pylist()
    rows.sort(key=lambda row: row["_cdc_offset"])
    return [(json.loads(row["_cdc_key"]), row["_cdc_op"], row.get("name")) for row in rows]


def test_what_was_rejected_is_kept_and_comes_to_the_tables_once_its_cause_is_gone(
    pipeline: TopicPipeline, source: Collection[dict[str, Any]]
) -> None:
    stack, items, library = pipeline.stack, pipeline.items, dead_letters(pipeline)
    before = end_offset(stack.kafka, DEAD_LETTERS_TOPIC)
    lake = open_store(lake_directory(pipeline.root, pipeline.name), stack.object_store)
    now = {each["_id"]: each for each in [person("grown"), person("large", BEYOND_THE_TOPIC)]}
    now |= {each["_id"]: each for each in [{"_id": "newer", "name": "new"}, {"_id": "broken", "name": "whole"}]}
    source.insert_many(list(now.values()))

    grown = send_event(pipeline, now["grown"])
    large = send_event(pipeline, now["large"])
    newer = send_event(pipeline, person("newer"))
    items.insert(now["newer"])
    gone = send_event(pipeline, person("gone"))
    broken = send(pipeline, json.dumps(_broken(pipeline)).encode(), event_key("broken"))
    keyless = send(pipeline, event_value_of(pipeline, person("keyless")), f'{{"{MARKER}":1}}'.encode())
    items.await_equal()

    letters = await_letters(pipeline, 6)
    assert {place: (each.letter.code, each.letter.attempt) for place, each in letters.items()} == {
        **dict.fromkeys((grown, large, newer, gone), (ReasonCode.OVERSIZED_DOCUMENT, 1)),
        broken: (ReasonCode.MALFORMED_DOCUMENT, 1),
        keyless: (ReasonCode.UNDECODABLE_KEY, 1),
    }
    _assert_nothing_is_readable(pipeline, before, [bytes(obstore.get(lake, _object(large)).bytes())])
    _assert_shown(library, large, pipeline)

    # While its cause lasts, a letter that is tried again is rejected again: the event, and the document as it is now.
    await_committed(pipeline, [grown])
    library.replay(grown)
    again = await_letters(pipeline, 8)
    second = [each.letter for place, each in again.items() if place not in letters]
    assert grown not in again
    assert [each.attempt for each in second] == [2, 2]
    assert {each.first_seen_ms for each in second} == {letters[grown].letter.first_seen_ms}

    await_committed(pipeline, again.keys() - {keyless})
    pipeline.publish(changed(pipeline.spec, max_document_size=2 * 1024 * 1024))
    pipeline.writer.wait_ready()
    told: list[int] = []
    done = library.replay(LetterFilter(pipeline=pipeline.name), told.append)
    assert (done.replayed, list(done.examples)) == (6, [(keyless, next(iter(done.refused)))])
    assert told[-1] == 7
    expected = {key_text(each["_id"]): canonical_document(each) for each in now.values()}
    wait_until(lambda: pipeline.rows(items.name) == expected, TIMEOUT_S, "the table equals the source")
    _await_history(pipeline)
    assert list(standing(pipeline)) == [keyless]
    assert not list(obstore.list(lake).collect()), "what was replayed is no longer in the lake"
    _assert_the_last_one_is_discarded(pipeline, library, keyless)


def event_value_of(pipeline: TopicPipeline, document: dict[str, Any]) -> bytes:
    return event_value(
        "c", document, pipeline=pipeline.name, database=pipeline.name, collection=pipeline.items.name, ts_ms=1_000
    )


def _broken(pipeline: TopicPipeline) -> dict[str, Any]:
    envelope: dict[str, Any] = json.loads(event_value_of(pipeline, {"_id": "broken"}))
    return envelope | {"op": "u", "after": f'{{"_id": "broken", "name": "{MARKER}'}


def _object(place: Place) -> str:
    return f"{place.topic}/{place.partition}/{place.offset}"


def _assert_nothing_is_readable(pipeline: TopicPipeline, before: int, objects: list[bytes]) -> None:
    """Neither in the topic (keys, values, headers) nor in the lake."""
    records = records_since(pipeline.stack.kafka, DEAD_LETTERS_TOPIC, before)
    mine = [each for each in records if (each.key() or b"").startswith(pipeline.items.topic.encode())]
    assert len(mine) == 6
    told = [b"".join([each.key() or b"", each.value() or b"", repr(each.headers()).encode()]) for each in mine]
    for content in [*told, *objects]:
        assert MARKER.encode() not in content
        assert b"keyless" not in content
    assert max(map(len, told)) < 1024 * 1024 < len(objects[0])


def _assert_shown(library: DeadLetters, place: Place, pipeline: TopicPipeline) -> None:
    """Masked by the library, revealed by the command."""
    masked = library.show(place)
    assert MARKER not in repr(masked)
    assert masked.key == {"id": "string"}
    assert masked.value["after"] == {"_id": "string", "name": "string", "notes": ["string"]}
    command = [sys.executable, "-m", "delta_writer", "dead-letters", "show", str(place), "--reveal", "--json"]
    environment = {"PATH": "", **pipeline.stack.writer_environment}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert json.loads(said.stdout)["record"]["value"]["after"]["name"] == MARKER


def _await_history(pipeline: TopicPipeline) -> None:
    """The history has the events themselves, each followed by what the document was when it was tried again."""
    wait_until(lambda: len(rows_of_history(pipeline)) >= 10, TIMEOUT_S, "the history has ten rows")
    rows = rows_of_history(pipeline)
    assert {key: [row[1:] for row in rows if row[0] == key] for key, *_ in rows} == {
        "grown": [("c", MARKER), ("x", MARKER)],
        "large": [("c", MARKER), ("x", MARKER)],
        "newer": [("c", "new"), ("c", MARKER), ("x", "new")],
        "gone": [("c", MARKER), ("d", None)],
        "broken": [("x", "whole")],  # what was no document is no row of a history either
    }


def _assert_the_last_one_is_discarded(pipeline: TopicPipeline, library: DeadLetters, place: Place) -> None:
    with pytest.raises(CannotReplay, match="the record's key names no document"):
        library.replay(place)
    assert library.discard(place) == 1
    assert not standing(pipeline)
    with pytest.raises(NoLetter, match="was replayed, discarded or has expired"):
        library.discard(place)


def test_a_flood_pauses_the_pipeline_which_goes_on_when_it_is_published_again(
    new_topic_pipeline: Callable[..., TopicPipeline],
) -> None:
    pipeline = new_topic_pipeline(start=False)
    pipeline.spec = changed(pipeline.spec, max_dead_letters_per_minute=5)
    pipeline.start()
    items, writer = pipeline.items, pipeline.writer
    for n in range(12):
        items.insert({"_id": n})
        items.send(event_key(n), b"rubbish")
    items.flush()

    reason = writer.wait_state(pipeline.name, "paused") or ""
    assert "12 records would be dead letters within a minute, more than the 5" in reason
    assert "publish the pipeline again" in reason
    assert writer.get("/health").status_code == 503
    assert not standing(pipeline)

    pipeline.publish(changed(pipeline.spec, max_dead_letters_per_minute=50))
    writer.wait_state(pipeline.name, "running")
    items.await_equal()
    assert len(await_letters(pipeline, 12)) == 12
    assert dead_letters(pipeline).discard(LetterFilter(pipeline=pipeline.name)) == 12
