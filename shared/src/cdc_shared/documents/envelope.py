"""Debezium's MongoDB change events, as Kafka gives them, to columns.

Messages are decoded one at a time: decoding many as lines would let one message that holds two documents shift all that follow.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from cdc_shared.documents.extended_json import InvalidDocument, parse

READ, CREATE, UPDATE, DELETE = "r", "c", "u", "d"
OPERATIONS: Final = frozenset((READ, CREATE, UPDATE, DELETE))
SOURCE_TS_MAX_MS: Final = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z: what a timestamp column can show."""

_OBJECT_ID_KEY: Final = re.compile(r'\{"\$oid": "[0-9a-f]{24}"\}')


@dataclass
class Envelopes:
    """One entry a message in every list, in order.

    `ops[i]` is `r`, `c`, `u` or `d`; None where there is nothing to apply: a tombstone, an update whose document was gone before Debezium looked it
    up, or an invalid message. In such a row the other lists mean nothing. `afters[i]` is the document's text (None for a delete), `source_ts_ms[i]`
    milliseconds since 1970, `key_texts[i]` the text of the document's `_id`, its identity. `invalid` maps row to a reason in plain words that holds nothing of
    the message.
    """

    key_texts: list[str]
    ops: list[str | None]
    afters: list[str | None]
    source_ts_ms: list[int]
    databases: list[str]
    collections: list[str]
    invalid: dict[int, str] = field(default_factory=dict)
    tombstones: int = 0
    no_ops: int = 0

    def __len__(self) -> int:
        return len(self.ops)


class _Source(msgspec.Struct, gc=False):
    ts_ms: int
    db: str
    collection: str


class _Envelope(msgspec.Struct, gc=False):
    op: str
    source: _Source
    after: str | None = None


class _Key(msgspec.Struct, gc=False):
    id: str


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_key = msgspec.json.Decoder(_Key).decode
_NOTHING: Final = _Envelope(op="", source=_Source(0, "", ""))


class _Invalid(Exception):
    """Why a message cannot be applied."""


def decode_envelopes(keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> Envelopes:
    """Keys and values of Kafka messages, as many of each. Never raises for what a message holds: see `Envelopes.invalid`."""
    if len(keys) != len(values):
        raise ValueError(f"{len(keys)} keys for {len(values)} values")
    invalid: dict[int, str] = {}
    envelopes, key_texts, ops = [], [], []
    tombstones = no_ops = 0
    for key, value in zip(keys, values, strict=True):
        envelope, key_text, op = _NOTHING, "", None
        if value is None:
            tombstones += 1
        else:
            try:
                envelope = _decode_envelope(value)
                op = _operation(envelope)
                key_text = _key_text(key)
            except (_Invalid, msgspec.MsgspecError, UnicodeDecodeError) as error:
                invalid[len(ops)] = str(error) if isinstance(error, _Invalid) else _reason(value)
                envelope, op = _NOTHING, None
            else:
                if op == UPDATE and envelope.after is None:
                    no_ops += 1
                    op = None
        envelopes.append(envelope)
        key_texts.append(key_text)
        ops.append(op)
    sources = [envelope.source for envelope in envelopes]
    return Envelopes(
        key_texts=key_texts,
        ops=ops,
        afters=[
            None if op is None or op == DELETE else envelope.after for op, envelope in zip(ops, envelopes, strict=True)
        ],
        source_ts_ms=[source.ts_ms for source in sources],
        databases=[source.db for source in sources],
        collections=[source.collection for source in sources],
        invalid=invalid,
        tombstones=tombstones,
        no_ops=no_ops,
    )


def _operation(envelope: _Envelope) -> str:
    op, source = envelope.op, envelope.source
    if op not in OPERATIONS:
        raise _Invalid("unknown operation")
    if envelope.after is None and op in (CREATE, READ):
        raise _Invalid("an insert without a document")
    if not 0 <= source.ts_ms <= SOURCE_TS_MAX_MS:
        raise _Invalid("source.ts_ms is out of range")
    if not source.db or not source.collection:
        raise _Invalid("source names no database or no collection")
    return op


def _key_text(key: bytes | None) -> str:
    if key is None:
        raise _Invalid("no key")
    try:
        text = _decode_key(key).id
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _Invalid('the key is not {"id": "<text>"}') from None
    if _OBJECT_ID_KEY.fullmatch(text) is None:
        try:
            parse(text)
        except InvalidDocument:
            raise _Invalid("the key's id is not JSON") from None
    return text


def _reason(value: bytes) -> str:
    """What is wrong with an envelope that does not decode."""
    try:
        envelope: Any = json.loads(value)
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(envelope, dict):
        return "not a JSON object"
    if not isinstance(envelope.get("op"), str):
        return "no operation"
    source = envelope.get("source")
    if not isinstance(source, dict):
        return "no source"
    if type(source.get("ts_ms")) is not int:
        return "source.ts_ms is missing or not an integer"
    for name in ("db", "collection"):
        if not isinstance(source.get(name), str):
            return f"source.{name} is missing or not a string"
    if not isinstance(envelope.get("after"), str | None):
        return "the document is not a string"
    return "not an envelope of Debezium's MongoDB connector"
