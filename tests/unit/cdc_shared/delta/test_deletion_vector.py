"""Deletion vectors: byte layout and round trips."""

import uuid

import pytest
from pyroaring import BitMap

from cdc_shared.delta.actions import DeletionVectorDescriptor
from cdc_shared.delta.deletion_vector import (
    decode_rows,
    decode_stored_vector,
    encode_rows,
    encode_vector_file,
    vector_file_path,
    vector_location,
    z85_decode,
    z85_encode,
)
from cdc_shared.errors import Fatal

pytestmark = pytest.mark.unit


def test_z85_is_the_protocols_example():
    """The value is PROTOCOL.md's own: ab^-aqEH.-t@S}K{vb[*k^ names ab/deletion_vector_d2c639aa-….bin."""
    file_id = uuid.UUID("d2c639aa-8816-431a-aaf6-d3fe2512ff61")
    assert z85_encode(file_id.bytes) == "^-aqEH.-t@S}K{vb[*k^"
    assert z85_decode("^-aqEH.-t@S}K{vb[*k^") == file_id.bytes


def test_location_of_the_protocols_example():
    descriptor = DeletionVectorDescriptor("u", "ab^-aqEH.-t@S}K{vb[*k^", 40, 6, 4)
    path, start, length = vector_location(descriptor)
    assert path == "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin"
    assert (start, length) == (4, 48)


def test_random_vectors_survive_a_file_of_many(rng):
    vectors = {f"part-{i}": BitMap(rng.sample(range(10 ** rng.randint(1, 7)), rng.randint(1, 10))) for i in range(50)}
    vectors["dense"] = BitMap(range(100_000))
    file_id = uuid.UUID(int=rng.getrandbits(128))
    body, descriptors = encode_vector_file(file_id, vectors)
    for path, rows in vectors.items():
        name, start, length = vector_location(descriptors[path])
        assert name == vector_file_path(file_id)
        assert decode_stored_vector(body[start : start + length], descriptors[path]) == rows
        assert descriptors[path].cardinality == len(rows)


def test_damage_is_noticed():
    body, descriptors = encode_vector_file(uuid.uuid4(), {"a": BitMap([1, 2, 300])})
    _, start, length = vector_location(descriptors["a"])
    stored = bytearray(body[start : start + length])
    stored[-6] ^= 1
    with pytest.raises(Fatal, match="damaged"):
        decode_stored_vector(bytes(stored), descriptors["a"])


def test_a_vector_written_by_others_is_refused():
    with pytest.raises(Fatal, match="another program"):
        vector_location(DeletionVectorDescriptor("p", "s3://elsewhere/dv.bin", 40, 6, 4))


def test_empty_vector_round_trips():
    assert decode_rows(encode_rows(BitMap())) == BitMap()
