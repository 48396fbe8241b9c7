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

from cdc_shared.documents.bson_values import DbPointer, RegularExpression, Symbol, Undefined
from cdc_shared.documents.canonical import plain_value
from cdc_shared.documents.java_json import java_double, java_string

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_10000_MS: Final = 253_402_300_800_000


def key_text(value: Any) -> str:
    """The `id` text in the key of Debezium's events for a document with this `_id`.

    Takes what `bson.decode` or `extended_json.parse` gives.
    """
    plain = plain_value(value, unwrap=False)
    return _WRITERS[type(plain)](plain)


def _double(value: float) -> str:
    text = java_double(value)
    return text if math.isfinite(value) else f'{{"$numberDouble": "{text}"}}'


def _date(value: DatetimeMS) -> str:
    milliseconds = int(value)
    if not 0 <= milliseconds < _YEAR_10000_MS:
        return f'{{"$date": {{"$numberLong": "{milliseconds}"}}}}'
    seconds, fraction = divmod(milliseconds, 1000)
    moment = _EPOCH + timedelta(seconds=seconds)
    decimals = f".{fraction:03d}".rstrip("0") if fraction else ""
    return f'{{"$date": "{moment:%Y-%m-%dT%H:%M:%S}{decimals}Z"}}'


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
