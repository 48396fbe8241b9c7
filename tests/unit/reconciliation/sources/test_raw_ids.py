"""`_id`s go from documents into queries as the bytes that they are."""

from __future__ import annotations

import struct
from typing import Any

import bson
import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp

from cdc_shared.errors import Fatal
from reconciliation.sources.raw_ids import document_of, id_only, is_nan, renamed_id, split_documents

pytestmark = pytest.mark.unit

IDS = [
    *(1, -1, Int64(2**40), 2.5, -0.0, float("nan"), float("-inf"), Decimal128("1.50"), Decimal128("NaN")),
    *("", "text", "\x00 and more", ObjectId(), b"", b"bytes", Binary(b"x", 5), Binary(b"1" * 16, 4)),
    *(True, False, None, DatetimeMS(-(2**62)), Timestamp(5, 6), MinKey(), MaxKey()),
    *({}, {"a": {"b": [1, "x"]}, "c": None}, Code("f()"), Code("f()", {"a": 1})),
]
DB_POINTER = b"\x0c_id\x00" + struct.pack("<i", 4) + b"a.b\x00" + b"0" * 12
SYMBOL = b"\x0e_id\x00" + struct.pack("<i", 4) + b"abc\x00"


@pytest.mark.parametrize("value", IDS, ids=repr)
def test_an_id_is_cut_out_of_its_document(value: Any) -> None:
    assert id_only(bson.encode({"_id": value, "_id2": 7, "z": "end"})) == bson.encode({"_id": value})
    assert id_only(bson.encode({"_id": value})) == bson.encode({"_id": value})


@pytest.mark.parametrize("member", [DB_POINTER, SYMBOL], ids=["dbPointer", "symbol"])
def test_ids_of_types_that_the_driver_reads_as_others_stay_what_they_are(member: bytes) -> None:
    rest = bson.encode({"n": 1})[4:-1]
    assert id_only(document_of(member + rest)) == document_of(member)
    assert renamed_id(document_of(member), "$gt") == member[:1] + b"$gt\x00" + member[5:]


@pytest.mark.parametrize("value", IDS, ids=repr)
def test_an_id_under_an_operators_name_is_the_same_value(value: Any) -> None:
    assert document_of(renamed_id(bson.encode({"_id": value}), "$gte")) == bson.encode({"$gte": value})


def test_a_batch_is_split_into_its_documents() -> None:
    documents = [bson.encode({"_id": i, "t": "x" * i}) for i in range(20)]
    assert list(split_documents(b"".join(documents))) == documents
    assert list(split_documents(b"")) == []


@pytest.mark.parametrize("batch", [b"\x05", b"\x04\x00\x00\x00\x00", bson.encode({"_id": 1})[:-1], b"\xff" * 9])
def test_a_batch_that_is_not_whole_documents_is_refused(batch: bytes) -> None:
    with pytest.raises(Fatal, match="not whole BSON documents"):
        list(split_documents(batch))


def test_a_document_whose_first_field_is_another_is_refused() -> None:
    with pytest.raises(Fatal, match="first field is not _id"):
        id_only(bson.encode({"n": 1, "m": 2}))


def test_an_id_of_a_type_that_none_can_have_is_refused() -> None:
    with pytest.raises(Fatal, match="BSON type 4,"):
        id_only(bson.encode({"_id": [1]}))


def test_nan_is_told_from_numbers() -> None:
    assert [value for value in IDS if is_nan(bson.encode({"_id": value}))] == [IDS[5], IDS[8]]
