"""Raw BSON, as MongoDB gives it, → the text that Debezium writes of the same document: what `decode` takes.

Nothing is built in between, so every type comes through as it is stored, also those that the `bson` package reads as
something else (symbol, undefined, dbPointer, a regex's options, a name that comes twice). The text is Debezium's, byte
for byte, with one exception: of a name that comes twice, which Debezium's own reader loses, every value is kept.

The format: https://bsonspec.org/spec.html.
"""

import binascii
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from bson import Binary, DatetimeMS, Decimal128

from cdc_shared.documents.bson_values import RegularExpression
from cdc_shared.documents.java_json import java_double, java_string
from cdc_shared.documents.key_text import key_text

_OBJECT_ID_FIRST: Final = b"\x07_id\x00"
_OLD_BINARY: Final = 2
_EMPTY_DOCUMENT_BYTES: Final = 5


class InvalidBson(ValueError):
    """The bytes are not one BSON document whose strings are UTF-8. The message has no content of the document."""


def document_text(raw: bytes) -> str:
    """The `after` text of an event that carries this document. Raises InvalidBson."""
    return _whole(raw, _DOCUMENT)


def document_key(raw: bytes) -> str:
    """The key text of the document: that of its `_id`. Raises InvalidBson, also when there is none."""
    if raw[4:9] == _OBJECT_ID_FIRST:
        return f'{{"$oid": "{raw[9:21].hex()}"}}'
    try:
        at = 4
        while type_ := raw[at]:
            name_end = raw.index(0, at + 1)
            text, end = _KEY[type_](raw, name_end + 1, _KEY)
            if raw[at + 1 : name_end] == b"_id":
                return text
            at = end
    except _MALFORMED:
        raise InvalidBson("not a BSON document") from None
    raise InvalidBson("a document without _id")


Read = tuple[str, int]
"""The text of a value, and where in the bytes the next one begins."""
Writers = dict[int, Callable[[bytes, int, Any], Read]]
"""BSON type → what reads such a value at a place; the third argument is the table itself, for values within."""

_int32: Final = struct.Struct("<i").unpack_from
_int64: Final = struct.Struct("<q").unpack_from
_uint32_pair: Final = struct.Struct("<II").unpack_from
_float64: Final = struct.Struct("<d").unpack_from
_MALFORMED: Final = (struct.error, IndexError, KeyError, ValueError, RecursionError)


def _whole(raw: bytes, writers: Writers) -> str:
    try:
        text, end = _document(raw, 0, writers)
    except _MALFORMED:
        raise InvalidBson("not a BSON document") from None
    if end != len(raw):
        raise InvalidBson("not one BSON document: bytes are left over")
    return text


def _members(data: bytes, at: int, writers: Writers) -> tuple[list[tuple[str, str]], int]:
    """Name (quoted, with its colon) and text of each member, and where the document ends."""
    end = at + _int32(data, at)[0]
    at += 4
    members = []
    while type_ := data[at]:
        name_end = data.index(0, at + 1)
        name = _name(data[at + 1 : name_end])
        text, at = writers[type_](data, name_end + 1, writers)
        members.append((name, text))
    if at + 1 != end:
        raise ValueError
    return members, end


@lru_cache(maxsize=8192)
def _name(name: bytes) -> str:
    return java_string(name.decode()) + ": "


def _document(data: bytes, at: int, writers: Writers) -> Read:
    members, end = _members(data, at, writers)
    return "{" + ",".join([name + text for name, text in members]) + "}", end


def _array(data: bytes, at: int, writers: Writers) -> Read:
    members, end = _members(data, at, writers)
    return "[" + ",".join([text for _, text in members]) + "]", end


def _text(data: bytes, at: int) -> tuple[str, int]:
    """A string that its length precedes."""
    end = at + 4 + _int32(data, at)[0]
    if data[end - 1] or end < at + 5:
        raise ValueError
    return data[at + 4 : end - 1].decode(), end


def _c_text(data: bytes, at: int) -> tuple[str, int]:
    """A string up to the next zero."""
    end = data.index(0, at)
    return data[at:end].decode(), end + 1


def _double(data: bytes, at: int, _: Writers) -> Read:
    return java_double(_float64(data, at)[0]), at + 8


def _string(data: bytes, at: int, _: Writers) -> Read:
    text, end = _text(data, at)
    return java_string(text), end


def _binary(data: bytes, at: int) -> tuple[bytes, int, int]:
    """Content, subtype, end."""
    length, subtype = _int32(data, at)[0], data[at + 4]
    start, end = at + 5, at + 5 + length
    if length < 0 or end > len(data):
        raise ValueError
    if subtype == _OLD_BINARY:  # its length stands there twice
        if _int32(data, start)[0] != length - 4:
            raise ValueError
        start += 4
    return data[start:end], subtype, end


def _legacy_binary(data: bytes, at: int, _: Writers) -> Read:
    content, subtype, end = _binary(data, at)
    base64 = binascii.b2a_base64(content, newline=False).decode()
    return f'{{"$binary": "{base64}","$type": "{subtype:02X}"}}', end


def _object_id(data: bytes, at: int, _: Writers) -> Read:
    return f'{{"$oid": "{_slice(data, at, 12).hex()}"}}', at + 12


def _boolean(data: bytes, at: int, _: Writers) -> Read:
    return ("false", "true")[data[at]], at + 1


def _regex(data: bytes, at: int) -> tuple[str, str, int]:
    """Pattern, options, end. The driver sorts the options: their order means nothing."""
    pattern, at = _c_text(data, at)
    options, at = _c_text(data, at)
    return pattern, "".join(sorted(options)), at


def _legacy_regex(data: bytes, at: int, _: Writers) -> Read:
    pattern, options, end = _regex(data, at)
    return f'{{"$regex": {java_string(pattern)},"$options": {java_string(options)}}}', end


def _db_pointer(data: bytes, at: int, _: Writers) -> Read:
    namespace, at = _text(data, at)
    return f'{{"$ref": {java_string(namespace)},"$id": {{"$oid": "{_slice(data, at, 12).hex()}"}}}}', at + 12


def _code(data: bytes, at: int, _: Writers) -> Read:
    code, end = _text(data, at)
    return f'{{"$code": {java_string(code)}}}', end


def _symbol(data: bytes, at: int, _: Writers) -> Read:
    symbol, end = _text(data, at)
    return f'{{"$symbol": {java_string(symbol)}}}', end


def _code_with_scope(data: bytes, at: int, writers: Writers) -> Read:
    code, scope_at = _text(data, at + 4)
    scope, end = _document(data, scope_at, writers)
    return f'{{"$code": {java_string(code)},"$scope": {scope}}}', end


def _timestamp(data: bytes, at: int, _: Writers) -> Read:
    increment, seconds = _uint32_pair(data, at)
    return f'{{"$timestamp": {{"t": {seconds},"i": {increment}}}}}', at + 8


def _decimal(data: bytes, at: int, _: Writers) -> Read:
    return f'{{"$numberDecimal": "{Decimal128.from_bid(_slice(data, at, 16))}"}}', at + 16


def _slice(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise IndexError
    return data[at : at + length]


def _constant(text: str) -> Callable[[bytes, int, Writers], Read]:
    return lambda _, at, __: (text, at)


_DOCUMENT: Final[Writers] = {
    0x01: _double,
    0x02: _string,
    0x03: _document,
    0x04: _array,
    0x05: _legacy_binary,
    0x06: _constant('{"$undefined": true}'),
    0x07: _object_id,
    0x08: _boolean,
    0x09: lambda data, at, _: (f'{{"$date": {_int64(data, at)[0]}}}', at + 8),
    0x0A: _constant("null"),
    0x0B: _legacy_regex,
    0x0C: _db_pointer,
    0x0D: _code,
    0x0E: _symbol,
    0x0F: _code_with_scope,
    0x10: lambda data, at, _: (str(_int32(data, at)[0]), at + 4),
    0x11: _timestamp,
    0x12: lambda data, at, _: (f'{{"$numberLong": "{_int64(data, at)[0]}"}}', at + 8),
    0x13: _decimal,
    0x7F: _constant('{"$maxKey": 1}'),
    0xFF: _constant('{"$minKey": 1}'),
}
"""Debezium's `after`: the driver's legacy strict dialect."""


def _key_binary(data: bytes, at: int, _: Writers) -> Read:
    content, subtype, end = _binary(data, at)
    return key_text(Binary(content, subtype)), end


def _key_regex(data: bytes, at: int, _: Writers) -> Read:
    pattern, options, end = _regex(data, at)
    return key_text(RegularExpression(pattern, options)), end


def _key_document(data: bytes, at: int, writers: Writers) -> Read:
    members, end = _members(data, at, writers)
    last = dict(members)  # Debezium's reader keeps the last value of a name that comes twice
    return "{" + ",".join([name + text for name, text in last.items()]) + "}", end


_KEY: Final[Writers] = _DOCUMENT | {
    0x01: lambda data, at, _: (key_text(_float64(data, at)[0]), at + 8),
    0x03: _key_document,
    0x05: _key_binary,
    0x09: lambda data, at, _: (key_text(DatetimeMS(_int64(data, at)[0])), at + 8),
    0x0B: _key_regex,
    0x12: lambda data, at, _: (str(_int64(data, at)[0]), at + 8),
}
"""Debezium's key: relaxed Extended JSON v2, which differs in these types."""
