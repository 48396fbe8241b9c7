"""Find the documents in which a field is not written as its column's type is, by regular expressions.

What is found is a hint. A document that is found needlessly, or not found, costs time and nothing else: those found are
walked, the others still pass every check of the fast path.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from cdc_shared.documents import types as t

MOST_PATTERNS: Final = 16
"""A struct with more members than this is not searched: one pass over a block costs a tenth of decoding it."""

_LONG: Final = rb'-?[0-9]{1,19}|\{"\$numberLong": "-?[0-9]{1,19}"\}'
_DOUBLE: Final = rb"-?[0-9]{1,15}(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?|NaN|-?Infinity"
_SCALARS: Final[dict[t.Kind, bytes]] = {
    t.Kind.STRING: rb'"(?:[^"\\]|\\.)*"',
    t.Kind.TEXT: rb'"(?:[^"\\]|\\.)*"',
    t.Kind.LONG: _LONG,
    t.Kind.DOUBLE: _DOUBLE,
    t.Kind.BOOLEAN: rb"true|false",
    t.Kind.OBJECT_ID: rb'\{"\$oid": "[0-9a-f]{24}"\}',
    t.Kind.DATE: rb'\{"\$date": -?[0-9]{1,14}\}',
    t.Kind.UUID: rb'\{"\$binary": "[^"]*","\$type": "04"\}',
    t.Kind.REGEX: rb'\{"\$regex": "(?:[^"\\]|\\.)*","\$options": "[a-z]*"\}',
    t.Kind.TIMESTAMP: rb'\{"\$timestamp": \{"t": [0-9]{1,10},"i": [0-9]{1,10}\}\}',
}


def odd_rows(lines: Sequence[bytes], fields: Iterable[t.Field]) -> npt.NDArray[np.int64]:
    """The lines, in order, in which something is written under the name of one of these fields, or of a member of it,
    that is not of its type.
    """
    data = b"\n".join(lines)
    found = [at.start() for field in fields for pattern in _patterns(field) or () for at in pattern.finditer(data)]
    if not found:
        return np.empty(0, np.int64)
    ends = np.cumsum(np.fromiter(map(len, lines), np.int64, len(lines)) + 1)
    return np.unique(np.searchsorted(ends, np.array(found, np.int64), side="right"))


def is_searchable(field: t.Field) -> bool:
    """Whether `odd_rows` can tell anything about the field."""
    return _patterns(field) is not None


@lru_cache(maxsize=256)
def _patterns(field: t.Field) -> tuple[re.Pattern[bytes], ...] | None:
    members = list(_members(field))
    if len(members) > MOST_PATTERNS:
        return None
    return tuple(
        re.compile(b'"' + re.escape(member.name.encode()) + rb'": (?!null|' + _text(member.type) + b")", re.DOTALL)
        for member in members
    )


def _members(field: t.Field) -> Iterator[t.Field]:
    """The field, and those within its structs."""
    yield field
    type_ = field.type
    while isinstance(type_, t.List):
        type_ = type_.element
    if isinstance(type_, t.Struct):
        for member in type_.fields:
            yield from _members(member)


def _text(type_: t.FieldType) -> bytes:
    """An expression for the texts of the type's values; for structs, and arrays of them, only for how they begin."""
    if isinstance(type_, t.Struct):
        return rb'\{(?!"\$)'
    if isinstance(type_, t.Null):
        return b"(?!)"
    if not isinstance(type_, t.List):
        return b"(?:" + _scalar(type_) + rb")(?=[,}\]])"
    if isinstance(type_.element, t.Struct | t.List):
        return rb"\["
    element = b"(?:null|" + _scalar(type_.element) + b")"
    return rb"\[(?:" + element + b"(?:," + element + rb")*)?\]"


def _scalar(type_: t.FieldType) -> bytes:
    if isinstance(type_, t.Decimal):
        return rb'\{"\$numberDecimal": "-?[0-9]{1,%d}(?:\.[0-9]{1,%d})?"\}' % (
            t.DECIMAL_PRECISION - type_.scale,
            type_.scale,
        )
    if isinstance(type_, t.Number):
        return _DOUBLE
    if isinstance(type_, t.Binary):
        return rb'\{"\$binary": "[^"]*","\$type": "%02X"\}' % type_.subtype
    return _SCALARS[type_.kind] if isinstance(type_, t.Scalar) and type_ != t.JSON else rb"[^,}\]]+"
