"""`decode_raw` gives the rows that the writer's decoder gives for the texts of the same documents."""

import os
import random
import struct
from typing import Any

import bson
import pytest
from bson import Decimal128, Int64
from hypothesis import HealthCheck, assume, event, given, seed, settings
from hypothesis import strategies as st
from tests.support.bson_cases import bson_cases, seed_document
from tests.support.decoding import known
from tests.support.raw_bson import raw_document
from tests.unit.cdc_shared.documents.test_decoding_properties import any_document, collections

from cdc_shared.documents import (
    DocumentSchema,
    InvalidBson,
    canonical_document,
    canonical_row,
    decode,
    document_text,
    fit_exactly,
    parse,
)
from cdc_shared.documents import types as t
from cdc_shared.documents.policies import NONE
from reconciliation.reconciler.bson_columns import read_columns
from reconciliation.reconciler.bson_decoder import decode_raw
from reconciliation.reconciler.bson_layout import MOST_ELEMENTS

pytestmark = pytest.mark.unit

SEED = int(os.environ.get("TEST_SEED", random.SystemRandom().randrange(2**32)))
EXAMPLES = int(os.environ.get("TEST_EXAMPLES", 100))
slow_is_fine = settings(
    deadline=None,
    max_examples=EXAMPLES,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(autouse=True)
def _show_seed() -> None:
    print(f"TEST_SEED={SEED}")


def is_bson(raw: bytes) -> bool:
    """BSON has no zero in names and regexes."""
    try:
        return bool(document_text(raw))
    except InvalidBson:
        return False


def rows_of(decoded: Any, schema: DocumentSchema) -> list[tuple[str, Any]]:
    """Each row, as it would be stored, and what is rescued, in a form that compares."""
    decoded.table.validate(full=True)
    decoded = fit_exactly(decoded, schema)
    rescued = [None if text is None else repr(sorted(parse(text).items())) for text in decoded.rescued.to_pylist()]
    return list(zip(map(repr, decoded.table.to_pylist()), rescued, strict=True))


def assert_same(raw: list[bytes], schema: DocumentSchema) -> DocumentSchema:
    texts = [document_text(each) for each in raw]
    right, ours = decode(texts, schema), decode_raw(raw, schema, NONE)
    assert ours.invalid == right.invalid == {}
    ours.table.validate(full=True)
    for row, rescued, text in zip(ours.table.to_pylist(), ours.rescued.to_pylist(), texts, strict=True):
        assert canonical_row(row, ours.schema, rescued) == canonical_document(text)
    assert rows_of(ours, right.schema) == rows_of(right, right.schema)
    return right.schema


@slow_is_fine
@seed(SEED)
@given(collections() | st.lists(any_document, min_size=1, max_size=8), st.data())
def test_rows_are_those_of_the_writers_decoder(documents: list[Any], data: st.DataObject) -> None:
    raw = [each for document in documents if is_bson(each := raw_document(document))]
    assume(raw)
    first = data.draw(st.integers(1, len(raw)))
    schema = decode([document_text(each) for each in raw[:first]], DocumentSchema()).schema
    if data.draw(st.booleans()):
        schema = schema.typed()
    columns = read_columns(raw, schema)
    event(f"refused: {columns.refused.sum()} of {len(raw)}, with odd fields: {len(columns.odd)}")
    assert_same(raw, schema)


@pytest.mark.parametrize("field", sorted({case.field for case in bson_cases()}))
def test_corner_values_of_every_type(field: str) -> None:
    cases = bson_cases()
    raw = [case.raw for case in cases if case.field == field]
    schema = decode([document_text(seed_document(cases))], DocumentSchema()).schema
    assert_same([seed_document(cases), *raw], schema)
    assert_same(raw, assert_same(raw, DocumentSchema()))


def usual(n: int) -> dict[str, Any]:
    return {
        "_id": bson.ObjectId(f"{n:024x}"),
        "text": "x" * (n % 20),
        "long": Int64(n) if n % 2 else n,
        "double": n / 3,
        "decimal": Decimal128(f"{n}.50"),
        "object": {"a": n, "deep": {"b": [f"{n}"] * (n % 3)}} if n % 5 else None,
        "objects": [{"sku": "s", "n": n}] * (n % 4),
    }


def test_usual_documents_are_not_refused_in_whatever_order_their_fields_stand() -> None:
    documents = [usual(n) for n in range(50)]
    documents += [dict(reversed(usual(n).items())) for n in range(50)]
    documents += [{name: value for name, value in usual(n).items() if len(name) % 3} for n in range(50)]
    raw = [bson.encode(document) for document in documents]
    schema = decode([document_text(each) for each in raw[:50]], DocumentSchema()).schema
    columns = read_columns(raw, schema)
    # One pass over the fields finds those in their order, three find few that are the other way round.
    assert not columns.refused[:50].any()
    assert not columns.refused[100:].any()
    assert columns.odd == {}
    assert_same(raw, schema)


def test_a_value_that_its_column_does_not_hold_leaves_the_others_to_be_read_at_once() -> None:
    documents = [usual(n) for n in range(20)]
    documents[3]["long"] = "odd"
    documents[7] |= {"long": 2.5, "object": {"a": "odd"}}
    raw = [bson.encode(document) for document in documents]
    schema = decode([document_text(bson.encode(usual(n))) for n in range(20)], DocumentSchema()).schema
    columns = read_columns(raw, schema)
    assert not columns.refused.any()
    assert {name: rows.tolist() for name, (rows, _) in columns.odd.items()} == {"long": [3, 7], "object": [7]}
    assert_same(raw, schema)


def test_long_arrays_deep_objects_and_many_fields() -> None:
    deep: Any = 1
    for _ in range(t.MAX_DEPTH + 5):
        deep = {"x": deep}
    documents = [{"_id": 1, "a": list(range(n)), "deep": deep} for n in (0, 1, MOST_ELEMENTS, MOST_ELEMENTS + 1, 500)]
    raw = [bson.encode(document) for document in documents]
    assert_same(raw, decode([document_text(raw[2])], DocumentSchema()).schema)


def test_a_name_that_a_text_would_take_for_a_value() -> None:
    schema = known(_id=t.LONG, **{"$oid": t.STRING, "s": t.Struct((t.Field("$date", t.LONG),))})
    raw = [bson.encode({"_id": 1, "$oid": "0" * 24}), bson.encode({"_id": 2, "s": {"$date": 5}})]
    assert_same([*raw, bson.encode({"$oid": "0" * 24, "_id": 3})], schema)


def test_no_documents() -> None:
    assert decode_raw([], known(a=t.LONG), NONE).table.num_rows == 0
    assert decode_raw([bson.encode({})], DocumentSchema(), NONE).rescued.to_pylist() == [None]


@slow_is_fine
@seed(SEED)
@given(st.integers(0, 2**32 - 1))
def test_bytes_that_are_no_document_are_invalid_and_disturb_no_other(number: int) -> None:
    rng = random.Random(number)
    documents = [bson.encode(usual(n)) for n in range(8)]
    schema = decode([document_text(each) for each in documents], DocumentSchema()).schema
    raw = [damaged(each, rng) if rng.random() < 0.5 else each for each in documents]
    decoded = decode_raw(raw, schema, NONE)
    for row, each in enumerate(raw):
        try:
            text = document_text(each)
        except InvalidBson:
            assert row in decoded.invalid, each
            continue
        if row not in decoded.invalid:
            held = canonical_row(
                decoded.table.slice(row, 1).to_pylist()[0], decoded.schema, decoded.rescued[row].as_py()
            )
            assert held == canonical_document(text)


def damaged(raw: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(raw))
    match rng.randrange(5):
        case 0:
            return raw[:place]
        case 1:
            return raw + b"\0"
        case 2:
            return b""
        case 3:
            return raw[:place] + bytes([rng.randrange(256)]) + raw[place + 1 :]
        case _:
            return raw[:place] + struct.pack("<i", rng.choice([-1, 2**31 - 1, -(2**31), 0, 5])) + raw[place + 4 :]
