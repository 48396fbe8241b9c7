"""How many bytes a document takes in BSON (bsonspec.org, version 1.1): what MongoDB's limits count."""

from collections.abc import Iterable
from typing import Any, Final

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, ObjectId, Timestamp

from cdc_shared.documents.bson_values import DbPointer, DuplicateKeys, RegularExpression, Symbol

MAX_GROWTH: Final = 7
"""A document takes at most this many times the characters of its JSON text: an array of one-digit integers does."""

_VALUE_GROWTH: Final = 15
"""A value of a document takes at most this many bytes more than the characters it is written with, its comma left out:
an element of an array has its type, its place in the array in digits, and a zero (10), and `1e9` has 8 bytes.
"""
_OLD_BINARY_SUBTYPE: Final = 2
_FIXED: Final[dict[type, int]] = {
    int: 4,
    Int64: 8,
    float: 8,
    bool: 1,
    DatetimeMS: 8,
    ObjectId: 12,
    Timestamp: 8,
    Decimal128: 16,
}


def size_bound(text: str) -> int:
    """At least as many bytes as the document of this JSON text takes in BSON. Much cheaper than parsing it."""
    values = 1 + text.count(",") + text.count("{") + text.count("[")
    return len(text.encode("utf-8", "surrogatepass")) + _VALUE_GROWTH * values


def bson_size(value: Any) -> int:
    """The bytes of a value as `parse` gives it; of a document, what the server counts against its limit."""
    type_ = type(value)
    fixed = _FIXED.get(type_)
    if fixed is not None:
        return fixed
    if type_ is str:
        return _text(value)
    if type_ is dict:
        return _members(value.items())
    if type_ is list:
        return _members((str(i), element) for i, element in enumerate(value))
    if type_ is DuplicateKeys:
        return _members(value.pairs)
    return _rare(value)


def _rare(value: Any) -> int:
    if isinstance(value, Binary):
        return 5 + len(value) + 4 * (value.subtype == _OLD_BINARY_SUBTYPE)
    if isinstance(value, RegularExpression):
        return len(value.pattern.encode()) + len(value.options.encode()) + 2
    if isinstance(value, Code):
        return _text(value) if value.scope is None else 4 + _text(value) + bson_size(dict(value.scope))
    if isinstance(value, Symbol):
        return _text(value.value)
    if isinstance(value, DbPointer):
        return _text(value.namespace) + 12
    return 0  # null, undefined, min and max key


def _text(value: str) -> int:
    return 5 + len(value.encode())


def _members(members: Iterable[tuple[str, Any]]) -> int:
    return 5 + sum(2 + len(name.encode()) + bson_size(value) for name, value in members)
