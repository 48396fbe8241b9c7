"""Deletion vectors: which rows of a data file are no longer part of the table (Delta protocol: "Deletion Vectors").

Several vectors share one file: byte 1 (format version), then for each vector its size (uint32 big-endian), its data and
the CRC-32 of the data (uint32 big-endian). The data is Delta's portable 64-bit roaring array: magic number (int32 LE),
number of 32-bit buckets (int64 LE), then for each its high word (int32 LE) and a roaring bitmap in the portable format.
"""

import struct
import uuid
import zlib
from collections.abc import Mapping
from typing import Final

from pyroaring import BitMap

from cdc_shared.delta.actions import DeletionVectorDescriptor
from cdc_shared.errors import Fatal

FORMAT_VERSION: Final = b"\x01"
MAGIC: Final = 1681511377
_HEADER: Final = struct.Struct("<iq")
_BUCKET: Final = struct.Struct("<i")
_UINT32: Final = struct.Struct(">I")
_Z85: Final = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_Z85_VALUE: Final = {char: value for value, char in enumerate(_Z85)}
_UUID_CHARS: Final = 20


def z85_encode(data: bytes) -> str:
    """Return `data`, whose length is a multiple of 4, in Base85 of the ZeroMQ alphabet (protocol: "Base85")."""
    chars = []
    for (word,) in struct.iter_unpack(">I", data):
        chars += [_Z85[word // 85**power % 85] for power in (4, 3, 2, 1, 0)]
    return "".join(chars)


def z85_decode(text: str) -> bytes:
    """Return the bytes that `z85_encode` made `text` from."""
    out = bytearray()
    for start in range(0, len(text), 5):
        word = 0
        for char in text[start : start + 5]:
            word = word * 85 + _Z85_VALUE[char]
        out += _UINT32.pack(word)
    return bytes(out)


def encode_rows(rows: BitMap) -> bytes:
    """Return the data of one vector. `rows` are row positions in the data file, from 0."""
    rows.run_optimize()
    return _HEADER.pack(MAGIC, 1) + _BUCKET.pack(0) + rows.serialize()


def decode_rows(data: bytes) -> BitMap:
    """Return the row positions of one vector's data.

    Raises:
        Fatal: the magic number is not Delta's, or rows lie above 2**32 (no data file of ours is that long).
    """
    magic, buckets = _HEADER.unpack_from(data)
    if magic != MAGIC or buckets > 1:
        raise Fatal(f"a deletion vector has magic {magic} and {buckets} buckets; expected {MAGIC} and at most 1")
    if buckets == 0:
        return BitMap()
    (high_word,) = _BUCKET.unpack_from(data, _HEADER.size)
    if high_word != 0:
        raise Fatal("a deletion vector names rows above 2**32, which no data file of this platform has")
    return BitMap.deserialize(data[_HEADER.size + _BUCKET.size :])


def vector_file_path(file_id: uuid.UUID) -> str:
    """Return the path of a vector file, relative to the table's root."""
    return f"deletion_vector_{file_id}.bin"


def encode_vector_file(
    file_id: uuid.UUID, vectors: Mapping[str, BitMap]
) -> tuple[bytes, dict[str, DeletionVectorDescriptor]]:
    """Return the body of one vector file, and for each data file of `vectors` the descriptor of its vector."""
    body = bytearray(FORMAT_VERSION)
    descriptors = {}
    for path, rows in vectors.items():
        data = encode_rows(rows)
        descriptors[path] = DeletionVectorDescriptor(
            storage_type="u",
            path_or_inline_dv=z85_encode(file_id.bytes),
            offset=len(body),
            size_in_bytes=len(data),
            cardinality=len(rows),
        )
        body += _UINT32.pack(len(data)) + data + _UINT32.pack(zlib.crc32(data))
    return bytes(body), descriptors


def vector_location(descriptor: DeletionVectorDescriptor) -> tuple[str, int, int]:
    """Return the vector file's path (relative to the table's root), and start and length of the vector in it.

    Start and length span the size field, the data and the checksum: what `decode_stored_vector` takes.

    Raises:
        Fatal: the vector is stored inline or under an absolute path, which this platform never writes.
    """
    if descriptor.storage_type != "u" or descriptor.offset is None:
        raise Fatal(
            f"a deletion vector of storage type {descriptor.storage_type!r} was written by another program; "
            "this table may be written by the delta-writer only"
        )
    encoded = descriptor.path_or_inline_dv
    prefix = encoded[:-_UUID_CHARS]
    name = vector_file_path(uuid.UUID(bytes=z85_decode(encoded[-_UUID_CHARS:])))
    path = f"{prefix}/{name}" if prefix else name
    return path, descriptor.offset, descriptor.size_in_bytes + 2 * _UINT32.size


def decode_stored_vector(stored: bytes, descriptor: DeletionVectorDescriptor) -> BitMap:
    """Return the rows of a vector as stored: size field, data, checksum.

    Raises:
        Fatal: size, checksum or cardinality do not agree: the vector file is damaged.
    """
    (size,) = _UINT32.unpack_from(stored)
    data = stored[_UINT32.size : _UINT32.size + size]
    (checksum,) = _UINT32.unpack_from(stored, _UINT32.size + size)
    if size != descriptor.size_in_bytes or zlib.crc32(data) != checksum:
        raise Fatal(f"deletion vector {descriptor.unique_id} is damaged: its size or checksum does not agree")
    rows = decode_rows(data)
    if len(rows) != descriptor.cardinality:
        raise Fatal(f"deletion vector {descriptor.unique_id} holds {len(rows)} rows, its log {descriptor.cardinality}")
    return rows
