"""Debezium's text of a document's `_id`, from its BSON value: the row's identity, `_cdc_key`.

The text is relaxed Extended JSON v2 as MongoDB's Java driver writes it with Debezium's settings (`{"a": 1,"b": "x"}`).
It was compared with Debezium 3.6.1's own `JsonSerialization` (driver 5.6, Java 17) on every BSON type, on every BMP
character and on random doubles. Not reproduced: doubles for which `Double.toString` of Java before 19 is not the
shortest text (1.0E23, 4.9E-324; about one in 10^4 beyond ±2^63, none seen within) and strings with characters that
Unicode got after version 13, which Java 17 escapes.
"""

import binascii
import math
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp

from cdc_shared.documents.bson_values import DbPointer, RegularExpression, Symbol, Undefined
from cdc_shared.documents.canonical import plain_value
from cdc_shared.documents.extended_json import double_text

# Unicode categories that the Java driver writes as they are; every other UTF-16 unit is escaped, so astral characters
# are two escapes.
_WRITTEN_AS_IS: Final = frozenset(
    ["Lu", "Ll", "Lt", "Lo", "Nd", "Nl", "No", "Zs", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So"]
)
_SHORT_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_10000_MS: Final = 253_402_300_800_000


def key_text(value: Any) -> str:
    """The `id` text in the key of Debezium's events for a document with this `_id`.

    Takes what `bson.decode` or `extended_json.parse` gives.
    """
    plain = plain_value(value, unwrap=False)
    return _WRITERS[type(plain)](plain)


def _string(value: str) -> str:
    return '"' + "".join([_character(character) for character in value]) + '"'


def _character(character: str) -> str:
    short = _SHORT_ESCAPES.get(character)
    if short is not None:
        return short
    if character <= "\uffff" and unicodedata.category(character) in _WRITTEN_AS_IS:
        return character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join([f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4)])


def _double(value: float) -> str:
    text = double_text(value)
    if text in ("NaN", "Infinity", "-Infinity"):
        return f'{{"$numberDouble": "{text}"}}'
    return _java_double(value)


def _java_double(value: float) -> str:
    """`Double.toString`: plain from 10^-3 up to 10^7, else one digit before the point and an exponent."""
    if value == 0:
        return double_text(value)
    if 1e-3 <= abs(value) < 1e7:
        return repr(value)
    sign, digits, exponent = Decimal(
        _whole_number(value) if 2.0**53 <= abs(value) < 2.0**63 else repr(value)
    ).as_tuple()
    text = "".join(map(str, digits))
    power = int(exponent) + len(text) - 1
    return f"{'-' if sign else ''}{text[0]}.{text[1:].rstrip('0') or '0'}E{power}"


def _whole_number(value: float) -> int:
    """The integer that Java before 19 shows for a whole double that a long can hold: exact, but for digits below the
    double's precision.
    """
    bits_below_precision = math.frexp(value)[1] - 55
    unit = 10 ** (len(str(2**bits_below_precision)) - 1) if bits_below_precision > 1 else 1
    whole, rest = divmod(abs(int(value)), unit)
    number = (whole + (unit > 1 and 2 * rest >= unit)) * unit
    return number if value > 0 else -number


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
    return (
        "{" + ",".join([f"{_string(name)}: {_WRITERS[type(member)](member)}" for name, member in value.items()]) + "}"
    )


def _code(value: Code) -> str:
    scope = "" if value.scope is None else f',"$scope": {_document(value.scope)}'
    return f'{{"$code": {_string(str(value))}{scope}}}'


_WRITERS: Final[dict[type, Callable[[Any], str]]] = {
    type(None): lambda _: "null",
    str: _string,
    bool: lambda value: "true" if value else "false",
    int: str,
    Int64: lambda value: str(int(value)),
    float: _double,
    Decimal128: lambda value: f'{{"$numberDecimal": "{value}"}}',
    ObjectId: lambda value: f'{{"$oid": "{value}"}}',
    DatetimeMS: _date,
    Binary: _binary,
    RegularExpression: lambda value: (
        f'{{"$regularExpression": {{"pattern": {_string(value.pattern)},"options": {_string(value.options)}}}}}'
    ),
    Timestamp: lambda value: f'{{"$timestamp": {{"t": {value.time},"i": {value.inc}}}}}',
    Code: _code,
    MinKey: lambda _: '{"$minKey": 1}',
    MaxKey: lambda _: '{"$maxKey": 1}',
    Undefined: lambda _: '{"$undefined": true}',
    Symbol: lambda value: f'{{"$symbol": {_string(value.value)}}}',
    DbPointer: lambda value: f'{{"$ref": {_string(value.namespace)},"$id": {{"$oid": "{value.id}"}}}}',
    dict: _document,
    list: lambda value: "[" + ",".join([_WRITERS[type(element)](element) for element in value]) + "]",
}
