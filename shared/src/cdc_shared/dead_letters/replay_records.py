"""What is sent to try a dead letter again.

A re-read request for the document's key: the writer reads the document from the source when it comes to it, so nothing
newer is overwritten and nothing deleted comes back. Where the pipeline keeps a history, the rejected event itself goes
before it, for the history alone, so that the history lacks no event; unless the history has it already.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from cdc_shared.dead_letters.letter import Letter
from cdc_shared.dead_letters.sealed_record import RawRecord
from cdc_shared.documents import (
    REREAD,
    Envelopes,
    InvalidDocument,
    Replay,
    decode_envelopes,
    event_key,
    key_value,
    parse_document,
)
from cdc_shared.errors import Fatal
from cdc_shared.kafka.reread_requests import request_value
from cdc_shared.kafka.topics import change_topic
from cdc_shared.models.common import PipelineSpec

REASON: Final = "dead letter replayed"


class CannotReplay(Fatal):
    """A letter that cannot be tried again, and why; it may be discarded."""


InHistory = Callable[[Letter, PipelineSpec, str, int], bool]
"""See `applied_events.AppliedEvents.in_history`."""


class KeyedValue(NamedTuple):
    """A record for the change topic, to go to the partition of its key."""

    key: bytes
    value: bytes


def replay_records(
    letter: Letter, record: RawRecord, spec: PipelineSpec, asked_ms: int, in_history: InHistory
) -> list[KeyedValue]:
    """The records to send to the letter's topic, in this order. Raises `CannotReplay`, and what `in_history` does."""
    key = event_key(_key_text(record.key))
    event = decode_envelopes([record.key], [record.value])
    collection = _collection(letter, event, spec)
    replay = Replay(attempt=letter.attempt + 1, first_seen_ms=letter.first_seen_ms)
    records = []
    is_for_history = spec.sink.history and _is_event(event)
    if is_for_history and not in_history(letter, spec, collection, event.source_ts_ms[0]):
        records.append(KeyedValue(key, _history_value(event, replay)))
    earlier = event.replays.get(0)
    if earlier is None or not earlier.history_only or event.ops[0] == REREAD:
        request = request_value(spec.source.database, collection, asked_ms, REASON, replay)
        records.append(KeyedValue(key, request))
    if not records and is_for_history:
        raise CannotReplay("the event is for the history alone, which has it already: discard the letter")
    if not records:
        raise CannotReplay(f"the event is for the history alone, which pipeline {spec.name} no longer keeps")
    return records


def _key_text(key: bytes | None) -> str:
    probe = decode_envelopes([key], [request_value("-", "-", 0, "")])
    if probe.invalid:
        raise CannotReplay(f"the record's key names no document ({probe.invalid[0]})")
    try:
        key_value(probe.key_texts[0])
    except (InvalidDocument, KeyError):
        raise CannotReplay("the record's key may be that of several documents") from None
    return probe.key_texts[0]


def _collection(letter: Letter, event: Envelopes, spec: PipelineSpec) -> str:
    """The collection in MongoDB: a topic's name may be a sanitised form of it."""
    database = spec.source.database
    suffix = letter.place.topic.removeprefix(change_topic(spec.name, database, ""))
    if event.ops[0] is not None:
        collection = event.collections[0]
    elif letter.collection is not None:
        collection = letter.collection
    elif "_" not in suffix or suffix in spec.source.include_collections:
        collection = suffix
    else:
        raise CannotReplay(
            f"topic {letter.place.topic} alone does not tell the collection's name; ask for the document by "
            f"`delta-writer reread {spec.name} COLLECTION ID`"
        )
    captured = spec.source.captures(collection)
    if not captured or change_topic(spec.name, database, collection) != letter.place.topic:
        raise CannotReplay(f"pipeline {spec.name} does not capture {collection} to {letter.place.topic}")
    return collection


def _is_event(event: Envelopes) -> bool:
    """Whether there is something in it that a history could hold."""
    if event.ops[0] in (None, REREAD):
        return False
    document = event.afters[0]
    if document is None:
        return True
    try:
        parse_document(document)
    except InvalidDocument:
        return False
    return True


def _history_value(event: Envelopes, replay: Replay) -> bytes:
    source = {"db": event.databases[0], "collection": event.collections[0], "ts_ms": event.source_ts_ms[0]}
    return msgspec.json.encode(
        {
            "op": event.ops[0],
            "source": source,
            "after": event.afters[0],
            "replay": msgspec.structs.replace(replay, history_only=True),
        }
    )
