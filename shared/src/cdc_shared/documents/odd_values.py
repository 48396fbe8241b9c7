"""Find the documents in which a field is not written as its column's type is, by regular expressions.

What is found is a hint. A document that is found needlessly, or not found, costs time and nothing else: those found are
walked, the others still pass every check of the fast path.
"""

import re
from collections.abc import Iterable, Iterator, Sequence, Set
from functools import lru_cache
from typing import Final

import numpy as np

from cdc_shared.documents import types as t

MOST_PATTERNS: Final = 16
"""A struct with more members than this is not searched: one pass over a block costs a tenth of decoding it."""

IDLE_BLOCKS: Final = 16
"""So many blocks without a find, and a field is no longer searched for."""

_LONG: Final = rb'-?[0-9]{1,19}|\{"\$numberLong": "-?[0-9]{1,19}"\}'
_DOUBLE: Final = rb"-?[0-9]{1,15}(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?|NaN|-?Infinity"
# Possessive: without memory of where it could have stopped in a string of megabytes.
_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_SCALARS: Final[dict[t.Kind, bytes]] = {
    t.Kind.STRING: _STRING,
    t.Kind.TEXT: _STRING,
    t.Kind.LONG: _LONG,
    t.Kind.DOUBLE: _DOUBLE,
    t.Kind.BOOLEAN: rb"true|false",
    t.Kind.OBJECT_ID: rb'\{"\$oid": "[0-9a-f]{24}"\}',
    t.Kind.DATE: rb'\{"\$date": -?[0-9]{1,14}\}',
    t.Kind.UUID: rb'\{"\$binary": "[^"]*+","\$type": "04"\}',
    t.Kind.REGEX: rb'\{"\$regex": ' + _STRING + rb',"\$options": "[a-z]*"\}',
    t.Kind.TIMESTAMP: rb'\{"\$timestamp": \{"t": [0-9]{1,10},"i": [0-9]{1,10}\}\}',
}


class Suspects:
    """The fields of a schema that documents are searched for, and those that once were and showed nothing any more.

    One for all decoding against a schema: a field that mixes types does so in the next batch as well, and each batch
    that had to find that out anew would cost an attempt in vain.
    """

    def __init__(self, schema: t.DocumentSchema) -> None:
        self._schema = schema
        self._idle_blocks: dict[str, int] = {}

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._idle_blocks)

    def add(self, names: Iterable[str]) -> bool:
        """Whether any of these fields is a new one that can be searched for."""
        new = [name for name in names if name not in self._idle_blocks and _patterns(self._schema.by_name[name])]
        self._idle_blocks |= dict.fromkeys(new, 0)
        return bool(new)

    def odd_rows(self, lines: Sequence[bytes], names: Set[str]) -> list[int]:
        """The lines, in order, in which something is written under one of these names, or that of a member of it, that
        is not of the field's type.
        """
        data, found = b"\n".join(lines), []
        for name in names:
            patterns = _patterns(self._schema.by_name[name]) or ()
            places = [at.start() for pattern in patterns for at in pattern.finditer(data)]
            found += places
            idle = 0 if places else self._idle_blocks.get(name, 0) + 1
            if idle < IDLE_BLOCKS:
                self._idle_blocks[name] = idle
            else:
                self._idle_blocks.pop(name, None)
        if not found:
            return []
        ends = np.cumsum(np.fromiter(map(len, lines), np.int64, len(lines)) + 1)
        rows: list[int] = np.unique(np.searchsorted(ends, np.array(found, np.int64), side="right")).tolist()
        return rows


@lru_cache(maxsize=64)
def suspects_of(schema: t.DocumentSchema) -> Suspects:
    """Those of a schema, as long as it is in use."""
    return Suspects(schema)


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
    return rb"\[(?:" + element + b"(?:," + element + rb")*+)?+\]"


def _scalar(type_: t.FieldType) -> bytes:
    if isinstance(type_, t.Decimal):
        return rb'\{"\$numberDecimal": "-?[0-9]{1,%d}(?:\.[0-9]{1,%d})?"\}' % (
            t.DECIMAL_PRECISION - type_.scale,
            type_.scale,
        )
    if isinstance(type_, t.Number):
        return _DOUBLE
    if isinstance(type_, t.Binary):
        return rb'\{"\$binary": "[^"]*+","\$type": "%02X"\}' % type_.subtype
    return _SCALARS[type_.kind] if isinstance(type_, t.Scalar) and type_ != t.JSON else rb"[^,}\]]+"
