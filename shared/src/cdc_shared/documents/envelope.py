"""Debezium's MongoDB change events, as Kafka gives them, to columns; and our own re-read requests among them.

Messages are decoded one at a time: decoding many as lines would let one message that holds two documents shift all that
follow.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import Annotated, Any, Final, Literal

import msgspec

from cdc_shared.documents.extended_json import InvalidDocument, parse
from cdc_shared.errors import InvalidEvent

READ, CREATE, UPDATE, DELETE = "r", "c", "u", "d"
REREAD = "x"
"""Not Debezium's: a request to read the document from the source (docs/adr/0008-re-read-requests.md)."""
OPERATIONS: Final = (READ, CREATE, UPDATE, DELETE, REREAD)
SOURCE_TS_MAX_MS: Final = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z: what a timestamp column can show."""

# What nearly every key is: read without a decoder, because it is the same work for every message.
_OBJECT_ID_KEY: Final = re.compile(rb'\{"id":"\{\\"\$oid\\": \\"([0-9a-f]{24})\\"\}"\}')


class Replay(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ours, in a record that was sent to try a dead letter again (docs/adr/0018-dead-letters.md).

    `attempt` counts from 1, the record that was rejected first, at `first_seen_ms` (ms since 1970). `history_only`: the
    event belongs to the history, and the row of the current state is not its business; means nothing with `x`.
    """

    attempt: Annotated[int, msgspec.Meta(ge=1)]
    first_seen_ms: Annotated[int, msgspec.Meta(ge=0)]
    history_only: bool = False


@dataclass
class Envelopes:
    """One entry a message in every list, in order.

    `ops[i]` is `r`, `c`, `u`, `d` or `x`; None where there is nothing to apply: a tombstone, an update whose document
    was gone before Debezium looked it up, or an invalid message. In such a row the other lists mean nothing.
    `afters[i]` is the document's text (None for a delete, and for an `x`, whose document is yet to be read),
    `source_ts_ms[i]` milliseconds since 1970, `key_texts[i]` the text of the document's `_id`, its identity. `invalid`
    maps row to a reason in plain words that holds nothing of the message; in the rows of `bad_keys` it is the key's.
    `replays` has the rows that were sent to try a dead letter again.
    """

    key_texts: list[str]
    ops: list[str | None]
    afters: list[str | None]
    source_ts_ms: list[int]
    databases: list[str]
    collections: list[str]
    invalid: dict[int, str] = field(default_factory=dict)
    bad_keys: frozenset[int] = frozenset()
    replays: dict[int, Replay] = field(default_factory=dict)
    tombstones: int = 0
    no_ops: int = 0

    def __len__(self) -> int:
        return len(self.ops)


class _Source(msgspec.Struct, gc=False):
    ts_ms: Annotated[int, msgspec.Meta(ge=0, le=SOURCE_TS_MAX_MS)]
    db: Annotated[str, msgspec.Meta(min_length=1)]
    collection: Annotated[str, msgspec.Meta(min_length=1)]


class _Envelope(msgspec.Struct, gc=False):
    op: Literal["r", "c", "u", "d", "x"] | None
    source: _Source
    after: str | None = None
    replay: Replay | None = None


class _Key(msgspec.Struct, gc=False):
    id: str


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_key = msgspec.json.Decoder(_Key).decode
_NOTHING: Final = _Envelope(op=None, source=_Source(0, "-", "-"))
_UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError)


def decode_envelopes(keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> Envelopes:
    """Keys and values of Kafka messages, as many of each. Never raises for what a message holds: see
    `Envelopes.invalid`.
    """
    if len(keys) != len(values):
        raise ValueError(f"{len(keys)} keys for {len(values)} values")
    invalid: dict[int, str] = {}
    envelopes = _envelopes(values, invalid)
    ops: list[str | None] = [envelope.op for envelope in envelopes]
    afters = [envelope.after for envelope in envelopes]
    bad_values = frozenset(invalid)
    key_texts = _key_texts(keys, ops, invalid)
    bad_keys = frozenset(invalid) - bad_values
    tombstones = no_ops = 0
    for row, after in enumerate(afters):
        if after is None:
            op = ops[row]
            if op == UPDATE:
                no_ops += 1
                ops[row] = None
            elif op in (CREATE, READ):
                invalid.setdefault(row, "an insert without a document")
            elif values[row] is None:
                tombstones += 1
        elif ops[row] in (DELETE, REREAD):
            afters[row] = None
    for row in invalid:
        ops[row] = afters[row] = None
    sources = [envelope.source for envelope in envelopes]
    return Envelopes(
        key_texts=key_texts,
        ops=ops,
        afters=afters,
        source_ts_ms=[source.ts_ms for source in sources],
        databases=[source.db for source in sources],
        collections=[source.collection for source in sources],
        invalid=invalid,
        bad_keys=bad_keys,
        replays={row: each.replay for row, each in enumerate(envelopes) if each.replay is not None},
        tombstones=tombstones,
        no_ops=no_ops,
    )


def event_key(key_text: str) -> bytes:
    """A record's key as Debezium writes it for the document with this key text: what decides its partition."""
    return f'{{"id":{encode_basestring(key_text)}}}'.encode()


def _envelopes(values: Sequence[bytes | None], invalid: dict[int, str]) -> list[_Envelope]:
    """The envelope of each message; `_NOTHING` for a tombstone and for one that is invalid."""
    try:
        envelopes = [_NOTHING if value is None else _decode_envelope(value) for value in values]
    except _UNDECODABLE:
        envelopes = [_envelope(row, value, invalid) for row, value in enumerate(values)]
    for row, envelope in enumerate(envelopes):
        if envelope.op is None and envelope is not _NOTHING:
            invalid[row] = "no operation"
    return envelopes


def _envelope(row: int, value: bytes | None, invalid: dict[int, str]) -> _Envelope:
    if value is not None:
        try:
            return _decode_envelope(value)
        except _UNDECODABLE:
            invalid[row] = _reason(value)
    return _NOTHING


def _key_texts(keys: Sequence[bytes | None], ops: Sequence[str | None], invalid: dict[int, str]) -> list[str]:
    texts = []
    for row, key in enumerate(keys):
        usual = _OBJECT_ID_KEY.fullmatch(key) if key is not None else None
        if usual is not None:
            texts.append('{"$oid": "' + usual[1].decode() + '"}')
            continue
        try:
            texts.append(_key_text(key) if ops[row] else "")
        except InvalidEvent as error:
            invalid[row] = str(error)
            texts.append("")
    return texts


def _key_text(key: bytes | None) -> str:
    if key is None:
        raise InvalidEvent("no key")
    try:
        text = _decode_key(key).id
    except _UNDECODABLE:
        raise InvalidEvent('the key is not {"id": "<text>"}') from None
    try:
        parse(text)
    except InvalidDocument:
        raise InvalidEvent("the key's id is not JSON") from None
    return text


def _reason(value: bytes) -> str:
    """What is wrong with an envelope that does not decode."""
    try:
        envelope: Any = json.loads(value)
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(envelope, dict):
        return "not a JSON object"
    op = envelope.get("op")
    if not isinstance(op, str):
        return "no operation"
    if op not in OPERATIONS:
        return "unknown operation"
    source = envelope.get("source")
    if not isinstance(source, dict):
        return "no source"
    source_ts_ms = source.get("ts_ms")
    if type(source_ts_ms) is not int or not 0 <= source_ts_ms <= SOURCE_TS_MAX_MS:
        return "source.ts_ms is missing, not an integer or out of range"
    for name in ("db", "collection"):
        if not isinstance(source.get(name), str) or not source[name]:
            return f"source.{name} is missing or not a name"
    if not isinstance(envelope.get("after"), str | None):
        return "the document is not a string"
    return "not an envelope of Debezium's MongoDB connector"
