"""What is sent to try a letter again, and which letters cannot be."""

import json
from typing import Any

import pytest
from letters import letter

from cdc_shared.dead_letters.letter import Place
from cdc_shared.dead_letters.replay_records import CannotReplay, KeyedValue, replay_records
from cdc_shared.dead_letters.sealed_record import RawRecord
from cdc_shared.documents import Replay, decode_envelopes, event_key
from cdc_shared.models.common import PipelineSpec

pytestmark = pytest.mark.unit

SOURCE = {"db": "db", "collection": "things", "ts_ms": 17}
KEY = event_key("1")


def spec(*, history: bool = False, **source: Any) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": "p",
            "source": {"connection": "env:X", "database": "db", **source},
            "sink": {"root": "/lake", "history": history},
        }
    )


def event(op: str = "u", after: str | None = '{"_id": 1}', **changes: Any) -> RawRecord:
    return RawRecord(KEY, json.dumps({"op": op, "source": SOURCE, "after": after, **changes}).encode())


def not_in_history(*_: Any) -> bool:
    return False


def sent(record: RawRecord, *, history: bool = False, **about: Any) -> list[KeyedValue]:
    return replay_records(letter(**about), record, spec(history=history), 99, not_in_history)


def test_a_letter_becomes_a_request_for_its_document_one_attempt_further() -> None:
    (request,) = sent(event(), attempt=3, first_seen_ms=5)
    read = decode_envelopes([request.key], [request.value])
    assert (request.key, read.ops, read.collections, read.source_ts_ms) == (KEY, ["x"], ["things"], [99])
    assert read.replays == {0: Replay(4, 5)}


@pytest.mark.parametrize("op", ["r", "c", "u"])
def test_a_history_gets_the_event_itself_first(op: str) -> None:
    original, request = sent(event(op), history=True)
    read = decode_envelopes([original.key, request.key], [original.value, request.value])
    assert read.ops == [op, "x"]
    assert read.afters == ['{"_id": 1}', None]
    assert read.source_ts_ms == [17, 99]
    assert read.replays == {0: Replay(2, 5, history_only=True), 1: Replay(2, 5)}


@pytest.mark.parametrize(
    "record",
    [
        event(after='{"_id": 1'),
        RawRecord(KEY, b"not json"),
        RawRecord(KEY, None),
        event("z"),
        RawRecord(KEY, json.dumps({"op": "x", "source": SOURCE}).encode()),
    ],
    ids=["broken document", "no JSON", "tombstone", "unknown op", "a request"],
)
def test_what_is_no_event_of_a_document_is_asked_for_alone(record: RawRecord) -> None:
    (request,) = sent(record, history=True)
    assert json.loads(request.value)["op"] == "x"


def test_what_was_for_the_history_alone_stays_so() -> None:
    (original, _) = sent(event(), history=True)
    (again,) = sent(RawRecord(KEY, original.value), history=True, attempt=2)
    read = decode_envelopes([again.key], [again.value])
    assert (read.ops, read.replays) == (["u"], {0: Replay(3, 5, history_only=True)})
    with pytest.raises(CannotReplay, match="for the history alone, which pipeline p no longer keeps"):
        sent(RawRecord(KEY, original.value), history=False)


def test_what_the_history_has_is_not_sent_to_it_again() -> None:
    asked: list[Any] = []

    def in_history(*args: Any) -> bool:
        asked.append(args)
        return True

    (request,) = replay_records(letter(), event(), spec(history=True), 99, in_history)
    assert json.loads(request.value)["op"] == "x"
    assert asked == [(letter(), spec(history=True), "things", 17)]
    (original, _) = sent(event(), history=True)
    with pytest.raises(CannotReplay, match="for the history alone, which has it already: discard the letter"):
        replay_records(letter(), RawRecord(KEY, original.value), spec(history=True), 99, in_history)
    for record, history in [(RawRecord(KEY, b"not json"), True), (event(), False)]:
        replay_records(letter(), record, spec(history=history), 99, in_history)
    assert len(asked) == 2


def test_a_key_is_sent_as_debezium_writes_it_whatever_it_looked_like() -> None:
    (request,) = sent(RawRecord(b'{ "id" : "1", "more": 2 }', b"rubbish"))
    assert request.key == KEY


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, "no key"),
        (b"\xff", 'the key is not {"id": "<text>"}'),
        (b'{"id": "not json"}', "id is not JSON"),
        (event_key('{"$regularExpression": {"pattern": "a","options": ""}}'), "may be that of several documents"),
        (event_key("[1]"), "may be that of several documents"),
    ],
)
def test_a_key_that_names_no_one_document_cannot_be_replayed(key: bytes | None, reason: str) -> None:
    with pytest.raises(CannotReplay) as caught:
        sent(RawRecord(key, event().value))
    assert reason in str(caught.value)


def collection_of(topic_collection: str, known: str | None, **source: Any) -> str:
    about = letter(collection=known, place=Place(f"p.db.{topic_collection}", 0, 7))
    (request,) = replay_records(about, RawRecord(KEY, b"rubbish"), spec(**source), 99, not_in_history)
    name: str = json.loads(request.value)["source"]["collection"]
    return name


def test_the_collection_is_told_by_the_writer_or_by_the_topic() -> None:
    assert collection_of("order_items", "order items") == "order items"
    assert collection_of("orders", None) == "orders"
    assert collection_of("order_items", None, include_collections=["order_items"]) == "order_items"


def test_a_collection_that_the_topic_does_not_tell_is_not_guessed() -> None:
    with pytest.raises(CannotReplay, match="delta-writer reread p COLLECTION ID"):
        collection_of("order_items", None)


def test_nothing_is_sent_for_a_collection_that_is_not_captured() -> None:
    with pytest.raises(CannotReplay, match=r"does not capture things to p\.db\.things"):
        replay_records(letter(), event(), spec(exclude_collections=["things"]), 99, not_in_history)
    stray = event(source={**SOURCE, "collection": "others"})
    with pytest.raises(CannotReplay, match="does not capture others"):
        sent(stray)
