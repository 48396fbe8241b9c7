"""`_id`s as the bytes that BSON has for them: cut out of documents and put into queries without a change.

Decoding and encoding again would lose some: a dbPointer, a symbol, a name that comes twice in an embedded document.
The format: https://bsonspec.org/spec.html.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from typing import Final

from bson import Decimal128

from cdc_shared.errors import Fatal

_NAME: Final = b"_id\x00"
_VALUE_AT: Final = 9
"""Of a document whose first member is `_id`: four bytes of length, one of the type, and the name."""
_int32: Final = struct.Struct("<i").unpack_from
_DOUBLE: Final = 0x01
_DECIMAL: Final = 0x13
_FIXED_BYTES: Final[Mapping[int, int]] = {
    _DOUBLE: 8,
    0x07: 12,
    0x08: 1,
    0x09: 8,
    0x0A: 0,
    0x10: 4,
    0x11: 8,
    0x12: 8,
    _DECIMAL: 16,
    0x7F: 0,
    0xFF: 0,
}
_AFTER_LENGTH_BYTES: Final[Mapping[int, int]] = {0x02: 4, 0x03: 0, 0x05: 5, 0x0C: 16, 0x0D: 4, 0x0E: 4, 0x0F: 0}
"""Types whose value begins with a length: what is to be added to it for the whole value's."""


def split_documents(batch: bytes) -> Iterator[bytes]:
    """Yield the documents of a raw batch, which stand one after the other. Raises Fatal when they do not."""
    at, end = 0, len(batch)
    while at < end:
        length = _int32(batch, at)[0] if at + 4 <= end else 0
        if length < 5 or at + length > end:
            raise Fatal("the source gave a batch that is not whole BSON documents")
        yield batch[at : at + length]
        at += length


def id_only(raw: bytes) -> bytes:
    """Return BSON of a document with nothing but the `_id` of `raw`, which is its first field as servers store it.

    Raises Fatal when it is not, or has a type that this version does not know.
    """
    if raw[5:_VALUE_AT] != _NAME:
        raise Fatal("the source gave a document whose first field is not _id: no version of MongoDB stores one so")
    type_ = raw[4]
    length = _FIXED_BYTES.get(type_)
    if length is None:
        if type_ not in _AFTER_LENGTH_BYTES:
            raise Fatal(f"the source has an _id of BSON type {type_}, which no version of MongoDB allows")
        length = _AFTER_LENGTH_BYTES[type_] + _int32(raw, _VALUE_AT)[0]
    return document_of(raw[4 : _VALUE_AT + length])


def renamed_id(id_document: bytes, name: str) -> bytes:
    """Return the member of a document with nothing but an `_id`, under another name: for `document_of`."""
    return id_document[4:5] + name.encode() + b"\x00" + id_document[_VALUE_AT:-1]


def document_of(members: bytes) -> bytes:
    """Return the document that has these encoded members."""
    return (len(members) + 5).to_bytes(4, "little") + members + b"\x00"


def is_nan(id_document: bytes) -> bool:
    """Tell whether the `_id`, as of `id_only`, is the number that equals no number."""
    value = id_document[_VALUE_AT:-1]
    if id_document[4] == _DOUBLE:
        return math.isnan(struct.unpack("<d", value)[0])
    return id_document[4] == _DECIMAL and Decimal128.from_bid(value).to_decimal().is_nan()
