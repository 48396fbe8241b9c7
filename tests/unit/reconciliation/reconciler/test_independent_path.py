"""The second way to a document and its row: it agrees with the first, and tells of faults that the first cannot see.

Faults are planted in the writer's decoder and in the reader of raw BSON alike, so that the rows of both sides are wrong
in the same way and their digests equal.
"""

from datetime import UTC, datetime
from typing import Any

import bson
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from bson import DatetimeMS, Int64
from tests.support.bson_cases import bson_cases, seed_document
from tests.support.bson_documents import uniform_document
from tests.support.raw_bson import raw_document

from cdc_shared.documents import DocumentSchema, decode, document_text, fast_decoder, parse_document
from cdc_shared.documents import types as t
from cdc_shared.documents.bson_values import DbPointer, DuplicateKeys, RegularExpression, Symbol, Undefined
from cdc_shared.documents.policies import NONE
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.compiled import Rules
from reconciliation.reconciler import bson_columns
from reconciliation.reconciler.expected_rows import expect
from reconciliation.reconciler.independent_path import canonical_of_raw, canonical_of_rows
from reconciliation.reconciler.row_digest import RESCUED, row_digests

pytestmark = pytest.mark.unit

KEY = b"a key of sixteen bytes or more"
NO_RULES = Rules.compile(QualitySpec(version=1), "orders", lambda _: KEY)
HOUR_US = 3_600_000_000
DOCUMENTS = [
    {"_id": n, "at": datetime(2024, 1, 1 + n, tzinfo=UTC), "big": Int64(2**40 + n), "in": {"at": DatetimeMS(n)}}
    for n in range(20)
]


def writers_table(raw: list[bytes], schema: DocumentSchema | None = None) -> tuple[pa.Table, DocumentSchema]:
    decoded = decode([document_text(each) for each in raw], schema or DocumentSchema())
    table = pa.Table.from_arrays(
        [*decoded.table.columns, decoded.rescued], names=[*decoded.table.column_names, RESCUED]
    )
    return table, decoded.schema.typed()


def shifted_by_an_hour(read: Any) -> Any:
    return lambda array: pc.add(read(array).view(pa.int64()), HOUR_US).view(pa.timestamp("us", "UTC"))


def truncated_to_32_bits(read: Any) -> Any:
    return lambda array: pa.array(read(array).to_numpy(zero_copy_only=False).astype(np.int32).astype(np.int64))


def plant(monkeypatch: pytest.MonkeyPatch, kind: t.Kind, fault: Any) -> None:
    """Put the fault into the writer's decoder and into the reader of raw BSON."""
    of_writer, of_raw = fast_decoder._SCALARS[kind], bson_columns._SCALARS[kind]

    def faulty(block: Any, cells: Any) -> Any:
        values, refused = of_raw(block, cells)
        return fault(lambda array: array)(values), refused

    monkeypatch.setitem(fast_decoder._SCALARS, kind, fault(of_writer))
    monkeypatch.setitem(bson_columns._SCALARS, kind, faulty)
    fast_decoder._unwraps.cache_clear()  # it keeps the functions that it was made with


@pytest.fixture(autouse=True)
def _decoder_without_faults() -> Any:
    yield
    fast_decoder._unwraps.cache_clear()


@pytest.mark.parametrize(("kind", "fault"), [(t.Kind.DATE, shifted_by_an_hour), (t.Kind.LONG, truncated_to_32_bits)])
def test_a_fault_of_the_decoder_that_both_sides_share_is_seen(
    monkeypatch: pytest.MonkeyPatch, kind: t.Kind, fault: Any
) -> None:
    raw = [bson.encode(document) for document in DOCUMENTS]
    _, schema = writers_table(raw)
    forms = [canonical_of_raw(each, NO_RULES) for each in raw]
    plant(monkeypatch, kind, fault)
    rows, _ = writers_table(raw, schema)
    expected = expect(raw, schema, NO_RULES, NONE)
    assert (row_digests(expected.table, schema) == row_digests(rows, schema)).all(), "both sides are wrong alike"
    assert [canonical_of_raw(each, NO_RULES) for each in raw] == forms, "the second way has no part in the fault"
    of_rows = canonical_of_rows(rows, schema)
    assert not set(of_rows) & set(forms), "every document has a date and a long beyond 32 bits"


def test_a_fault_of_the_writers_decoder_alone_shows_in_the_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = [bson.encode(document) for document in DOCUMENTS]
    _, schema = writers_table(raw)
    monkeypatch.setitem(fast_decoder._SCALARS, t.Kind.DATE, shifted_by_an_hour(fast_decoder._SCALARS[t.Kind.DATE]))
    fast_decoder._unwraps.cache_clear()
    rows, _ = writers_table(raw, schema)
    expected = row_digests(expect(raw, schema, NO_RULES, NONE).table, schema)
    assert (row_digests(rows, schema) != expected).any(axis=1).all()


def test_the_two_ways_agree_on_every_type() -> None:
    raw = [bson.encode(uniform_document(n)) for n in range(30)]
    cases = [case.raw for case in bson_cases()]
    for documents in (raw, [seed_document(bson_cases()), *cases]):
        table, schema = writers_table(documents)
        forms = [canonical_of_raw(each, NO_RULES) for each in documents]
        held = canonical_of_rows(table, schema)
        assert [form for form in forms if form] == [mine for mine, form in zip(held, forms, strict=True) if form]
    assert None not in [canonical_of_raw(each, NO_RULES) for each in raw]


def test_the_two_ways_agree_about_masks_and_conversions() -> None:
    quality = QualitySpec.model_validate(
        {
            "version": 2,
            "transformation": [
                {"rule": "hash", "path": "/_id", "key": "env:KEY"},
                {"rule": "convert", "path": "/big", "to": "string"},
                {"rule": "truncate_date", "path": "/at", "to": "month"},
                {"rule": "rename", "path": "/in", "to": "inner"},
            ],
        }
    )
    rules = Rules.compile(quality, "orders", lambda _: KEY)
    raw = [bson.encode(document) for document in DOCUMENTS]
    changed = [rules.transform_document(parse_document(document_text(each))) for each in raw]
    _, schema = writers_table([raw_document(document) for document in changed])
    expected = expect(raw, schema, rules, NONE)
    assert [canonical_of_raw(each, rules) for each in raw] == canonical_of_rows(expected.table, schema)


@pytest.mark.parametrize(
    "value",
    [
        Symbol("s"),
        Undefined(),
        DbPointer("a.b", "0" * 24),
        RegularExpression("a", "iq"),
        DuplicateKeys((("a", 1), ("a", 2))),
        {"in": [Undefined()]},
    ],
)
def test_what_the_driver_does_not_give_back_bears_no_witness(value: Any) -> None:
    assert canonical_of_raw(raw_document({"_id": 1, "f": value}), NO_RULES) is None


def test_bytes_that_are_no_document_bear_no_witness() -> None:
    good = bson.encode({"_id": 1, "s": "text"})
    assert canonical_of_raw(b"", NO_RULES) is None
    assert canonical_of_raw(good[:-2], NO_RULES) is None
    assert canonical_of_raw(good.replace(b"text", b"\xff\xfe\xfd\xfc"), NO_RULES) is None


def test_a_row_that_holds_no_document_equals_none() -> None:
    raw = [bson.encode({"_id": bson.ObjectId(), "j": [1, "x"]})]
    table, schema = writers_table(raw)
    for column, value in (("_id", "no object id"), (RESCUED, "{no json"), ("j", '{"$oid":')):
        damaged = table.set_column(table.column_names.index(column), column, pa.array([value]))
        assert canonical_of_rows(damaged, schema) != canonical_of_rows(table, schema)
