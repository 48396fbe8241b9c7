"""The canonical form: one text for everything that counts as the same document. Tests and reconciliation compare by it.

It does not tell apart: int32, int64 and a double of the same value; a decimal's trailing zeros; the order of an
object's fields; null and a missing field (nulls in arrays count); a genuine sub-document from the Extended JSON wrapper
that it looks like, nor a deprecated dbPointer in a `{"$ref", "$id"}` sub-document; NaNs of different payloads; the
order of a regex's options is kept. It tells apart -0.0 and 0, a decimal and a double, and every other BSON type.
"""

import uuid
from collections.abc import Mapping
from datetime import datetime
from decimal import Context, Decimal
from typing import Any, Final

import xxhash
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, ObjectId, Regex, Timestamp

from cdc_shared.documents import types as t
from cdc_shared.documents.bson_values import DuplicateKeys, RegularExpression
from cdc_shared.documents.extended_json import (
    INT64_MAX,
    INT64_MIN,
    dump,
    milliseconds,
    parse,
    parse_document,
    string_text,
    unwrap_document,
)
from cdc_shared.documents.number_type import number_value
from cdc_shared.documents.pointers import pointer_names

_WIDE: Final = Context(prec=t.DECIMAL_PRECISION)
_REGEX_LETTERS: Final = {"i": 2, "l": 4, "m": 8, "s": 16, "u": 32, "x": 64}


def canonical_document(document: str | Mapping[str, Any] | DuplicateKeys) -> bytes:
    """The canonical form of a document: its Extended JSON text (either dialect), or its BSON values (`bson.decode` or
    `parse_document`).

    Raises InvalidDocument for a text that is none.
    """
    value = parse_document(document) if isinstance(document, str) else plain_value(document)
    return _text(value).encode()


def canonical_text(value: Any) -> bytes:
    """The canonical form of a value that is not null, as it stands in its document's."""
    if type(value) is str:
        return string_text(value).encode()
    return canonical_document({"": value})[len('{"":') : -len("}")]


def canonical_row(row: Mapping[str, Any], schema: t.DocumentSchema, rescued: str | None) -> bytes:
    """The canonical form of the document that a row holds: its columns and its rescued values put together.

    `row` maps column to Python value as `to_pylist` gives it; columns that the schema does not name are passed over.
    """
    return _text(document_of_row(row, schema, rescued)).encode()


def document_of_row(row: Mapping[str, Any], schema: t.DocumentSchema, rescued: str | None) -> Any:
    """The document that a row holds, as BSON values. Rows do not keep nulls, field order, or int32 against int64."""
    document: Any = _struct_value(row, schema)
    for pointer, value in _rescued_entries(rescued):
        if pointer == "":
            return value
        *parents, last = pointer_names(pointer)
        target = document
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    return document


def equal(
    document: str | Mapping[str, Any], row: Mapping[str, Any], schema: t.DocumentSchema, rescued: str | None
) -> bool:
    """Whether a row holds a document exactly."""
    return canonical_document(document) == canonical_row(row, schema, rescued)


def digest(canonical: bytes) -> bytes:
    """16 bytes, xxh3-128 of a canonical form. Not for use against somebody who builds collisions."""
    return xxhash.xxh3_128_digest(canonical)


# --- BSON values of other readers -------------------------------------------------------------------------------------


def plain_value(value: Any, *, unwrap: bool = True) -> Any:
    """What `bson.decode` or a caller gives, as the classes that `extended_json.parse` gives.

    With `unwrap`, sub-documents that look like Extended JSON wrappers become what they spell, as they do in a text.
    """
    if isinstance(value, Mapping):
        document = {str(name): plain_value(member, unwrap=unwrap) for name, member in value.items()}
        return unwrap_document(document) if unwrap else document
    if isinstance(value, list | tuple):
        return [plain_value(element, unwrap=unwrap) for element in value]
    if type(value) is bytes:
        return Binary(value)
    if isinstance(value, datetime):
        return DatetimeMS(milliseconds(value))
    if isinstance(value, uuid.UUID):
        return Binary.from_uuid(value)
    if isinstance(value, Regex):
        flags = int(value.flags)
        return RegularExpression(
            value.pattern, "".join(letter for letter, flag in _REGEX_LETTERS.items() if flags & flag)
        )
    if isinstance(value, DBRef):
        return plain_value(value.as_doc(), unwrap=unwrap)
    if isinstance(value, DuplicateKeys):
        return DuplicateKeys(tuple((name, plain_value(member, unwrap=unwrap)) for name, member in value.pairs))
    if isinstance(value, Code) and value.scope is not None:
        return Code(str(value), plain_value(value.scope, unwrap=unwrap))
    return value


# --- the text ---------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    type_ = type(value)
    if type_ is str:
        return string_text(value)
    if type_ is dict:
        return _object_text(value.items())
    if type_ is list:
        return "[" + ",".join([_text(element) for element in value]) + "]"
    if type_ is int or type_ is Int64:
        return str(int(value))
    if type_ is float:
        return _double_text(value)
    if type_ is Decimal128:
        return _decimal_text(value.to_decimal())
    if type_ is DuplicateKeys:
        return _object_text(value.pairs)
    if type_ is Code and value.scope is not None:
        return f'{{"$code":{string_text(str(value))},"$scope":{_text(value.scope)}}}'
    return dump(value)


def _object_text(pairs: Any) -> str:
    members = sorted([(name, value) for name, value in pairs if value is not None], key=lambda pair: pair[0])
    return "{" + ",".join([f"{string_text(name)}:{_text(value)}" for name, value in members]) + "}"


def _double_text(value: float) -> str:
    if value.is_integer() and INT64_MIN <= value <= INT64_MAX and (value != 0 or str(value)[0] != "-"):
        return str(int(value))
    return dump(value)


def _decimal_text(value: Decimal) -> str:
    if value.is_nan():  # Debezium writes every NaN alike: negative ones, signalling ones
        return '{"$numberDecimal":"NaN"}'
    if value.is_infinite():
        return f'{{"$numberDecimal":"{value}"}}'
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    stripped = text.rstrip("0")
    power = int(exponent) + len(text) - len(stripped) if stripped else 0
    return f'{{"$numberDecimal":"{"-" if sign else ""}{stripped or "0"}E{power}"}}'


# --- rows -------------------------------------------------------------------------------------------------------------


def _rescued_entries(rescued: str | None) -> list[tuple[str, Any]]:
    if rescued is None:
        return []
    entries: dict[str, Any] = parse(rescued)
    return list(entries.items())


def _struct_value(row: Mapping[str, Any], struct: t.Struct) -> dict[str, Any]:
    document = {}
    for member in struct.stored:
        value = row.get(member.column)
        if value is not None:
            document[member.name] = bson_value(value, member.type)
    return document


def bson_value(value: Any, type_: t.FieldType) -> Any:
    """A column's Python value as the BSON value it stands for."""
    if value is None:
        return None
    if isinstance(type_, t.Struct):
        return _struct_value(value, type_)
    if isinstance(type_, t.List):
        return [bson_value(element, type_.element) for element in value]
    if isinstance(type_, t.Decimal):
        return Decimal128(_WIDE.normalize(value))
    if isinstance(type_, t.Number):
        return number_value(value)
    if isinstance(type_, t.Binary):
        return Binary(bytes(value), type_.subtype)
    if isinstance(type_, t.Null):
        raise TypeError("a field without a known type has no column")
    return _scalar(value, type_.kind)


def _scalar(value: Any, kind: t.Kind) -> Any:
    match kind:
        case t.Kind.OBJECT_ID:
            return ObjectId(value)
        case t.Kind.DATE:
            return DatetimeMS(milliseconds(value))
        case t.Kind.UUID:
            return Binary(uuid.UUID(str(value)).bytes, 4)
        case t.Kind.REGEX:
            return RegularExpression(value["pattern"], value["options"])
        case t.Kind.TIMESTAMP:
            return Timestamp(value["t"], value["i"])
        case t.Kind.JSON:
            return parse(value)
        case _:
            return value
