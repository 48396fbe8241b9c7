"""Debezium's text of a document's `_id`, from its BSON value: the row's identity, `_cdc_key`.

The text is relaxed Extended JSON v2 as MongoDB's Java driver writes it with Debezium's settings (`{"a": 1,"b": "x"}`).
It was compared with Debezium 3.6.1's own `JsonSerialization` (driver 5.6, Java 17) on every BSON type, on every BMP
character and on random doubles. What is not reproduced of strings and doubles:
`java_json`.
"""

import binascii
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp

from cdc_shared.documents.bson_values import DbPointer, DuplicateKeys, RegularExpression, Symbol, Undefined
from cdc_shared.documents.canonical import plain_value
from cdc_shared.documents.extended_json import InvalidDocument, parse
from cdc_shared.documents.java_json import java_double, java_string

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_10000_MS: Final = 253_402_300_800_000
_AMBIGUOUS: Final = "a key from which no document's _id can be told"
_DB_POINTER: Final = (
    "the key of an _id of the deprecated BSON type dbPointer, which no document can be looked up by: give the document "
    "an _id of another type"
)


def key_text(value: Any) -> str:
    """The `id` text in the key of Debezium's events for a document with this `_id`.

    Takes what `bson.decode` or `extended_json.parse` gives.
    """
    plain = plain_value(value, unwrap=False)
    return _WRITERS[type(plain)](plain)


def key_value(text: str) -> Any:
    """The `_id` that a key text names, as the `bson` package encodes it: for a query, which compares numbers by value.

    A document that such a query finds has this key only if its own key text is the same: 5 finds 5.0 as well.

    Raises InvalidDocument, with a reason that holds nothing of the text, when it is no key of Debezium's spelling, or
    could be that of several values so that finding nothing would prove nothing: an `_id` with a regex or an undefined
    value in it, with a name twice, or with U+FFFD, which stands for bytes that are not UTF-8. An `_id` of the
    deprecated type dbPointer is refused too: its text is also that of a sub-document. The other way round, an `_id`
    that holds sub-documents which look like Extended JSON, dbPointers further down, or a name twice, has the key text
    of another value; MongoDB's drivers do not make such keys.
    """
    value = parse(text)
    if type(value) is dict and list(value) == ["$ref", "$id"] and type(value["$id"]) is ObjectId:
        raise InvalidDocument(_DB_POINTER)
    encodable = _encodable(value)
    if type(value) is list or "\ufffd" in text or key_text(value) != text:
        raise InvalidDocument(_AMBIGUOUS)
    return encodable


def _encodable(value: Any) -> Any:
    type_ = type(value)
    if type_ is dict:
        return {name: _encodable(member) for name, member in value.items()}
    if type_ is list:
        return [_encodable(element) for element in value]
    if type_ is Code and value.scope is not None:
        return Code(str(value), _encodable(value.scope))
    if type_ is Symbol:
        return value.value  # which a query holds equal to the symbol
    if type_ in (RegularExpression, Undefined, DuplicateKeys):
        raise InvalidDocument(_AMBIGUOUS)
    return value


def _double(value: float) -> str:
    text = java_double(value)
    return text if math.isfinite(value) else f'{{"$numberDouble": "{text}"}}'


def iso_date(milliseconds: int) -> str | None:
    """A date from 1970 to 9999 as the driver writes it, `2024-01-01T00:00:00Z`; None for others."""
    if not 0 <= milliseconds < _YEAR_10000_MS:
        return None
    seconds, fraction = divmod(milliseconds, 1000)
    moment = _EPOCH + timedelta(seconds=seconds)
    decimals = f".{fraction:03d}".rstrip("0") if fraction else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{decimals}Z"


def _date(value: DatetimeMS) -> str:
    text = iso_date(int(value))
    return f'{{"$date": {{"$numberLong": "{int(value)}"}}}}' if text is None else f'{{"$date": "{text}"}}'


def _binary(value: bytes) -> str:
    base64 = binascii.b2a_base64(value, newline=False).decode()
    return f'{{"$binary": {{"base64": "{base64}","subType": "{getattr(value, "subtype", 0):02X}"}}}}'


def _document(value: Mapping[str, Any]) -> str:
    members = [f"{java_string(name)}: {_WRITERS[type(member)](member)}" for name, member in value.items()]
    return "{" + ",".join(members) + "}"


def _code(value: Code) -> str:
    scope = "" if value.scope is None else f',"$scope": {_document(value.scope)}'
    return f'{{"$code": {java_string(str(value))}{scope}}}'


_WRITERS: Final[dict[type, Callable[[Any], str]]] = {
    type(None): lambda _: "null",
    str: java_string,
    bool: lambda value: "true" if value else "false",
    int: str,
    Int64: lambda value: str(int(value)),
    float: _double,
    Decimal128: lambda value: f'{{"$numberDecimal": "{value}"}}',
    ObjectId: lambda value: f'{{"$oid": "{value}"}}',
    DatetimeMS: _date,
    Binary: _binary,
    RegularExpression: lambda value: (
        f'{{"$regularExpression": {{"pattern": {java_string(value.pattern)},"options": {java_string(value.options)}}}}}'
    ),
    Timestamp: lambda value: f'{{"$timestamp": {{"t": {value.time},"i": {value.inc}}}}}',
    Code: _code,
    MinKey: lambda _: '{"$minKey": 1}',
    MaxKey: lambda _: '{"$maxKey": 1}',
    Undefined: lambda _: '{"$undefined": true}',
    Symbol: lambda value: f'{{"$symbol": {java_string(value.value)}}}',
    DbPointer: lambda value: f'{{"$ref": {java_string(value.namespace)},"$id": {{"$oid": "{value.id}"}}}}',
    dict: _document,
    list: lambda value: "[" + ",".join([_WRITERS[type(element)](element) for element in value]) + "]",
}
