"""BSON bytes of any value that `extended_json.parse` gives, those that the `bson` package does not write included."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from bson_cases import Element, element

from cdc_shared.documents.bson_values import DbPointer, DuplicateKeys, RegularExpression, Symbol, Undefined


def raw_document(document: Any) -> bytes:
    """A document, which may have a name twice."""
    return _object(document.pairs if isinstance(document, DuplicateKeys) else document.items())


def _object(pairs: Iterable[tuple[str, Any]]) -> bytes:
    members = ((name, _element(value)) for name, value in pairs)
    body = b"".join(bytes([each.type]) + name.encode() + b"\0" + each.content for name, each in members)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def _element(value: Any) -> Element:
    match value:
        case DuplicateKeys() | dict():
            return Element(0x03, raw_document(value))
        case list():
            return Element(0x04, _object((str(place), each) for place, each in enumerate(value)))
        case RegularExpression():
            return Element(0x0B, value.pattern.encode() + b"\0" + value.options.encode() + b"\0")
        case Symbol():
            return Element(0x0E, _text(value.value))
        case Undefined():
            return Element(0x06, b"")
        case DbPointer():
            return Element(0x0C, _text(value.namespace) + bytes.fromhex(value.id))
    return element(value)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<i", len(encoded) + 1) + encoded + b"\0"
