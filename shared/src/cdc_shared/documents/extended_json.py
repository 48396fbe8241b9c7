"""MongoDB Extended JSON: parse both dialects that Debezium writes, dump the canonical form of version 2.

Debezium writes keys in relaxed version 2 and documents in the driver's legacy "strict" dialect, which has bare `NaN`,
`Infinity` and `-Infinity` and so is not valid JSON. One parser takes both: an object that is exactly a wrapper of
either dialect is the value that it spells, because nothing in the text tells it from a genuine sub-document of that
shape. An object that is not quite a wrapper, such as `{"$date": "foo"}`, is a plain sub-document.
"""

import binascii
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from json import JSONDecodeError, JSONDecoder
from json.encoder import encode_basestring
from typing import Any, Final

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp

from cdc_shared.documents.bson_values import DbPointer, DuplicateKeys, RegularExpression, Symbol, Undefined

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
UINT32_MAX: Final = 2**32 - 1
MAX_NESTING: Final = 200
"""Objects and arrays within each other. MongoDB's own limit on BSON (`maxBSONDepth`); it promises 100 levels."""

OBJECT_ID_TEXT: Final = re.compile(r"[0-9a-f]{24}")
LONG_TEXT: Final = re.compile(r"0|-?[1-9][0-9]*")
# What both java.math.BigDecimal and Arrow's cast accept; Decimal128 itself also takes spaces and underscores.
DECIMAL_TEXT: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?|-?NaN|-?Infinity")
DOUBLE_TEXT: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|NaN|-?Infinity")
SUBTYPE_TEXT: Final = re.compile(r"[0-9a-fA-F]{2}")
_SURROGATE_ESCAPE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_NOT_A_WRAPPER: Final = object()
_TOO_DEEP: Final = f"nested too deep: MongoDB holds no more than {MAX_NESTING} levels"


class InvalidDocument(ValueError):
    """The text is not one JSON document that BSON could hold. The message has no content of the document."""


def parse(text: str) -> Any:
    """One Extended JSON value as a BSON value (see `bson_values`). Raises InvalidDocument."""
    try:
        value = _DECODER.decode(text)
        if not text.isascii() or _SURROGATE_ESCAPE.search(text):
            text.encode()
            _check_strings(value)
    except JSONDecodeError as error:
        raise InvalidDocument(f"not JSON: {error.msg} at character {error.pos}") from None
    except UnicodeEncodeError:
        raise InvalidDocument("a string is not Unicode: half of a surrogate pair") from None
    except RecursionError:
        raise InvalidDocument(_TOO_DEEP) from None
    if text.count("{") + text.count("[") > MAX_NESTING:  # one level more for what stands in `_cdc_rescued`
        _check_nesting(value, MAX_NESTING + 1)
    return value


def parse_document(text: str) -> dict[str, Any] | DuplicateKeys:
    """One document's text. `DuplicateKeys` when a top-level name comes twice. Raises InvalidDocument."""
    value = parse(text)
    if isinstance(value, dict | DuplicateKeys):
        return value
    raise InvalidDocument(
        "not a JSON object" if text.lstrip()[:1] != "{" else "an Extended JSON wrapper, not a document"
    )


def dump(value: Any) -> str:
    """A BSON value as canonical Extended JSON v2, without spaces. `parse` gives the same value back."""
    return _DUMPERS[type(value)](value)


def milliseconds(value: datetime) -> int:
    """Milliseconds since 1970 of a datetime; a naive one is UTC, as the `bson` package gives it."""
    delta = (value if value.tzinfo else value.replace(tzinfo=UTC)) - _EPOCH
    return delta.days * 86_400_000 + delta.seconds * 1000 + delta.microseconds // 1000


# --- parsing ----------------------------------------------------------------------------------------------------------


def unwrap_document(document: dict[str, Any]) -> Any:
    """The value that an object spells when it is exactly a wrapper, else the object itself."""
    wrapped = _NOT_A_WRAPPER
    if len(document) == 1:
        ((name, value),) = document.items()
        reader = _ONE_MEMBER.get(name)
        if reader is not None:
            wrapped = reader(value)
    elif len(document) == 2:
        reader = _TWO_MEMBERS.get(frozenset(document))
        if reader is not None:
            wrapped = reader(document)
    return document if wrapped is _NOT_A_WRAPPER else wrapped


def _object(pairs: list[tuple[str, Any]]) -> Any:
    document = dict(pairs)
    if len(document) != len(pairs):
        return DuplicateKeys(tuple(pairs))
    if pairs and pairs[0][0][:1] == "$":
        return unwrap_document(document)
    return document


def _integer(text: str) -> int:
    value = int(text) if len(text) <= 20 else 2**64
    if INT32_MIN <= value <= INT32_MAX:
        return value
    if INT64_MIN <= value <= INT64_MAX:
        return Int64(value)
    raise InvalidDocument("an integer of more than 64 bits")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise InvalidDocument("a number too large for a double")
    return value


_DECODER: Final = JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float)


def _check_nesting(value: Any, levels: int) -> None:
    """Raise InvalidDocument if objects and arrays are nested deeper than that. (Recursion would end before it.)"""
    level = [value]
    for _ in range(levels + 1):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise InvalidDocument(_TOO_DEEP)


def _children(value: Any) -> Iterable[Any]:
    """What an object or array holds; nothing for another value."""
    type_ = type(value)
    if type_ is dict:
        return value.values()  # type: ignore[no-any-return]
    if type_ is list:
        return value  # type: ignore[no-any-return]
    if type_ is DuplicateKeys:
        return [member for _, member in value.pairs]
    return [value.scope] if type_ is Code and value.scope is not None else ()


def _check_strings(value: Any) -> None:
    """Raise UnicodeEncodeError if any string within holds half of a surrogate pair."""
    if isinstance(value, dict):
        for name, member in value.items():
            name.encode()
            _check_strings(member)
    elif isinstance(value, list | tuple):
        for element in value:
            _check_strings(element)
    elif isinstance(value, DuplicateKeys):
        _check_strings(value.pairs)
    elif isinstance(value, str):
        value.encode()
    elif isinstance(value, RegularExpression):
        value.pattern.encode()
        value.options.encode()
    elif isinstance(value, Symbol):
        value.value.encode()
    elif isinstance(value, DbPointer):
        value.namespace.encode()


def _read_object_id(value: Any) -> Any:
    return ObjectId(value) if type(value) is str and OBJECT_ID_TEXT.fullmatch(value) else _NOT_A_WRAPPER


def _read_date(value: Any) -> Any:
    if type(value) in (int, Int64, DatetimeMS):
        return DatetimeMS(int(value))
    if type(value) is str:
        try:
            return (
                DatetimeMS(milliseconds(datetime.fromisoformat(value)))
                if _ISO_DATE.fullmatch(value)
                else _NOT_A_WRAPPER
            )
        except (ValueError, OverflowError):
            return _NOT_A_WRAPPER
    return _NOT_A_WRAPPER


_ISO_DATE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3})?(?:Z|[+-]\d\d:?\d\d)", re.ASCII)


def _read_long(value: Any) -> Any:
    if type(value) is str and len(value) <= 20 and LONG_TEXT.fullmatch(value) and INT64_MIN <= int(value) <= INT64_MAX:
        return Int64(value)
    return _NOT_A_WRAPPER


def _read_int(value: Any) -> Any:
    if type(value) is str and len(value) <= 11 and LONG_TEXT.fullmatch(value) and INT32_MIN <= int(value) <= INT32_MAX:
        return int(value)
    return _NOT_A_WRAPPER


def _read_double(value: Any) -> Any:
    if type(value) is not str or not DOUBLE_TEXT.fullmatch(value):
        return _NOT_A_WRAPPER
    number = float(value)
    return _NOT_A_WRAPPER if number in (float("inf"), float("-inf")) and "Infinity" not in value else number


def _read_decimal(value: Any) -> Any:
    if type(value) is not str or not DECIMAL_TEXT.fullmatch(value):
        return _NOT_A_WRAPPER
    try:
        return Decimal128(value)
    except (ValueError, ArithmeticError):
        return _NOT_A_WRAPPER


def _read_binary(base64: Any, subtype: Any) -> Any:
    if type(base64) is not str or type(subtype) is not str or not SUBTYPE_TEXT.fullmatch(subtype):
        return _NOT_A_WRAPPER
    try:
        return Binary(binascii.a2b_base64(base64, strict_mode=True), int(subtype, 16))
    except ValueError:
        return _NOT_A_WRAPPER


def _read_binary_v2(value: Any) -> Any:
    return _read_binary(value["base64"], value["subType"]) if _has(value, "base64", "subType") else _NOT_A_WRAPPER


def _read_regex(pattern: Any, options: Any) -> Any:
    strings = type(pattern) is str and type(options) is str
    return RegularExpression(pattern, options) if strings else _NOT_A_WRAPPER


def _read_regex_v2(value: Any) -> Any:
    return _read_regex(value["pattern"], value["options"]) if _has(value, "pattern", "options") else _NOT_A_WRAPPER


def _read_timestamp(value: Any) -> Any:
    if not _has(value, "t", "i"):
        return _NOT_A_WRAPPER
    t, i = value["t"], value["i"]
    valid = type(t) in (int, Int64) and type(i) in (int, Int64) and 0 <= t <= UINT32_MAX and 0 <= i <= UINT32_MAX
    return Timestamp(int(t), int(i)) if valid else _NOT_A_WRAPPER


def _read_code(value: Any) -> Any:
    return Code(value) if type(value) is str else _NOT_A_WRAPPER


def _read_code_with_scope(document: dict[str, Any]) -> Any:
    code, scope = document["$code"], document["$scope"]
    return Code(code, scope) if type(code) is str and type(scope) is dict else _NOT_A_WRAPPER


def _read_db_pointer(value: Any) -> Any:
    valid = _has(value, "$ref", "$id") and type(value["$ref"]) is str and type(value["$id"]) is ObjectId
    return DbPointer(value["$ref"], str(value["$id"])) if valid else _NOT_A_WRAPPER


def _has(value: Any, *names: str) -> bool:
    return type(value) is dict and value.keys() == set(names)


def _constant(marker: Any, result: Any) -> Callable[[Any], Any]:
    return lambda value: result if type(value) is type(marker) and value == marker else _NOT_A_WRAPPER


_ONE_MEMBER: Final[dict[str, Callable[[Any], Any]]] = {
    "$oid": _read_object_id,
    "$date": _read_date,
    "$numberLong": _read_long,
    "$numberInt": _read_int,
    "$numberDouble": _read_double,
    "$numberDecimal": _read_decimal,
    "$binary": _read_binary_v2,
    "$regularExpression": _read_regex_v2,
    "$timestamp": _read_timestamp,
    "$code": _read_code,
    "$minKey": _constant(1, MinKey()),
    "$maxKey": _constant(1, MaxKey()),
    "$undefined": _constant(True, Undefined()),
    "$symbol": lambda value: Symbol(value) if type(value) is str else _NOT_A_WRAPPER,
    "$dbPointer": _read_db_pointer,
}
_TWO_MEMBERS: Final[dict[frozenset[str], Callable[[dict[str, Any]], Any]]] = {
    frozenset(("$binary", "$type")): lambda d: _read_binary(d["$binary"], d["$type"]),
    frozenset(("$regex", "$options")): lambda d: _read_regex(d["$regex"], d["$options"]),
    frozenset(("$code", "$scope")): _read_code_with_scope,
}

# --- dumping ----------------------------------------------------------------------------------------------------------


def string_text(value: str) -> str:
    """A JSON string: only quotes, backslashes and control characters are escaped."""
    return encode_basestring(value)


def double_text(value: float) -> str:
    """`NaN`, `Infinity`, `-Infinity` or the shortest text that reads back as the same double."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)


def _pairs_text(value: Any) -> str:
    pairs = value.pairs if type(value) is DuplicateKeys else value.items()
    return "{" + ",".join([f"{encode_basestring(name)}:{dump(value)}" for name, value in pairs]) + "}"


def _binary_text(value: bytes) -> str:
    base64 = binascii.b2a_base64(value, newline=False).decode()
    return f'{{"$binary":{{"base64":"{base64}","subType":"{getattr(value, "subtype", 0):02x}"}}}}'


def _code_text(value: Code) -> str:
    code = encode_basestring(str(value))
    return f'{{"$code":{code}}}' if value.scope is None else f'{{"$code":{code},"$scope":{dump(value.scope)}}}'


def _integer_text(value: int) -> str:
    return f'{{"$numberInt":"{value}"}}' if INT32_MIN <= value <= INT32_MAX else f'{{"$numberLong":"{value}"}}'


_DUMPERS: Final[dict[type, Callable[[Any], str]]] = {
    type(None): lambda _: "null",
    str: encode_basestring,
    bool: lambda value: "true" if value else "false",
    int: _integer_text,
    Int64: lambda value: f'{{"$numberLong":"{int(value)}"}}',
    float: lambda value: f'{{"$numberDouble":"{double_text(value)}"}}',
    Decimal128: lambda value: f'{{"$numberDecimal":"{value}"}}',
    ObjectId: lambda value: f'{{"$oid":"{value}"}}',
    DatetimeMS: lambda value: f'{{"$date":{{"$numberLong":"{int(value)}"}}}}',
    Binary: _binary_text,
    bytes: _binary_text,
    RegularExpression: lambda value: (
        f'{{"$regularExpression":{{"pattern":{encode_basestring(value.pattern)},"options":{encode_basestring(value.options)}}}}}'
    ),
    Timestamp: lambda value: f'{{"$timestamp":{{"t":{value.time},"i":{value.inc}}}}}',
    Code: _code_text,
    MinKey: lambda _: '{"$minKey":1}',
    MaxKey: lambda _: '{"$maxKey":1}',
    Undefined: lambda _: '{"$undefined":true}',
    Symbol: lambda value: f'{{"$symbol":{encode_basestring(value.value)}}}',
    DbPointer: lambda value: (
        f'{{"$dbPointer":{{"$ref":{encode_basestring(value.namespace)},"$id":{{"$oid":"{value.id}"}}}}}}'
    ),
    dict: _pairs_text,
    DuplicateKeys: _pairs_text,
    list: lambda value: "[" + ",".join([dump(element) for element in value]) + "]",
}
