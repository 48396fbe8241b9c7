"""Documents whose fields change their types, decoded in batches under random policies, fitted to other schemas and
promoted to other types: columns and `_cdc_rescued` rebuild each document's canonical form at every step.
"""

import os
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from bson import Int64
from hypothesis import HealthCheck, event, given, seed, settings
from hypothesis import strategies as st
from tests.unit.cdc_shared.documents.test_decoding_properties import (
    SCALARS,
    SEED,
    any_document,
    collections,
    doubles,
    int32s,
    int64s,
    legacy_text,
    scalars,
    texts,
)

from cdc_shared.documents import (
    Decoded,
    DocumentSchema,
    FieldPolicies,
    NotExact,
    canonical_document,
    canonical_row,
    convert_column,
    decode,
    fit,
    from_delta_schema,
    parse,
    to_delta_schema,
    type_wide_enough,
)
from cdc_shared.documents import types as t
from cdc_shared.documents.bson_values import DuplicateKeys
from cdc_shared.documents.pointers import pointer_names
from cdc_shared.documents.walker import walk

pytestmark = pytest.mark.unit

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", 60))
random_cases = settings(
    deadline=None,
    max_examples=EXAMPLES,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(autouse=True)
def _show_seed() -> None:
    print(f"TEST_SEED={SEED}")


NAMES = ["a", "b", "c", "A", "x.y"]
POINTERS = ["/a", "/b", "/a/b", "/a/a", "/b/*", "/a/*/b", "/c"]
modes = st.sampled_from(["rescue", "string", "json", "fail"])
policies = st.builds(FieldPolicies, st.lists(st.tuples(st.sampled_from(POINTERS), modes), max_size=3).map(tuple), modes)


def documents_of(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(NAMES), values, max_size=4)


any_values = st.recursive(
    scalars,
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(st.sampled_from(NAMES), below, max_size=3)),
    max_leaves=6,
)
numbers = st.one_of(int32s, int64s, doubles)
small_doubles = st.builds(lambda size, digits: digits / 10.0**size, st.integers(0, 60), st.floats(1, 10))
document_lists = st.one_of(
    st.lists(documents_of(any_values), min_size=1, max_size=6),
    st.lists(documents_of(st.one_of(numbers, texts, st.lists(numbers, max_size=2))), min_size=1, max_size=6),
    collections(),
    st.lists(any_document, min_size=1, max_size=4),
)


def texts_of(documents: list[Any]) -> list[str]:
    """Without what is wholly an Extended JSON wrapper, which no document with an `_id` is."""
    written = [legacy_text(document) for document in documents]
    return [text for text in written if isinstance(parse(text), dict | DuplicateKeys)]


def assert_rebuilds(rows: Decoded, documents: list[str]) -> None:
    rows.table.validate(full=True)
    assert rows.table.schema.names == [field.column for field in rows.schema.stored]
    assert len(rows.rescued) == len(documents)
    values = rows.table.to_pylist() or [{}] * len(documents)
    for text, row, rescued in zip(documents, values, rows.rescued.to_pylist(), strict=True):
        assert canonical_row(row, rows.schema, rescued) == canonical_document(text)


def promoted(schema: DocumentSchema, pointer: str, to: t.FieldType) -> DocumentSchema:
    def struct(known: t.Struct, names: list[str]) -> tuple[t.Field, ...]:
        return tuple(
            replace(member, type=inner(member.type, names[1:])) if member.name == names[0] else member
            for member in known.fields
        )

    def inner(known: t.FieldType, names: list[str]) -> t.FieldType:
        return t.Struct(struct(known, names)) if names and isinstance(known, t.Struct) else to

    return DocumentSchema(struct(schema, pointer_names(pointer)))


@random_cases
@seed(SEED)
@given(st.lists(document_lists, min_size=1, max_size=3), policies, st.data())
def test_documents_are_rebuilt_through_changes_of_type_and_promotions(
    batches: list[list[Any]], policies: FieldPolicies, data: st.DataObject
) -> None:
    table = DocumentSchema()
    for documents in batches:
        batch = texts_of(documents)
        rows = decode(batch, table, policies=policies)
        assert_rebuilds(rows, batch)
        assert set(rows.failures) <= set(range(len(batch)))
        assert policies.may_fail or not rows.failures
        table = rows.schema
        for pointer, kinds in rows.stats.conflicts.items():
            known = field_type(table, pointer)
            if known is None:
                continue
            wide = data.draw(
                st.sampled_from([policies.wanted_type(pointer), type_wide_enough(known, kinds), t.Number(18), t.TEXT])
            )
            if pointer and wide is not None and data.draw(st.booleans()):
                table = promoted(table, pointer, wide)
                before, rows = rows, fit(rows, table, policies=policies)
                event(f"promoted to {wide.text}")
                assert rows.schema.typed() == table.typed()
                assert_rebuilds(rows, batch)
                if wide == t.JSON:  # which holds everything
                    assert not rescued_at(rows, pointer)
                    assert rows.stats.rescued_values <= before.stats.rescued_values
        assert from_delta_schema(to_delta_schema(table)) == table.typed()


def field_type(schema: DocumentSchema, pointer: str) -> t.FieldType | None:
    """None once an object around the field was promoted."""
    type_: t.FieldType = schema
    for name in pointer_names(pointer):
        if not isinstance(type_, t.Struct):
            return None
        type_ = type_.by_name[name].type
    return type_


def rescued_at(rows: Decoded, pointer: str) -> bool:
    return any(pointer in parse(text) for text in rows.rescued.to_pylist() if text is not None)


@random_cases
@seed(SEED)
@given(document_lists, document_lists, policies, policies)
def test_fitting_gives_what_decoding_against_that_schema_gives(
    documents: list[Any], others: list[Any], one: FieldPolicies, other: FieldPolicies
) -> None:
    batch = texts_of(documents)
    table = decode(texts_of(others), DocumentSchema(), policies=other).schema
    table = from_delta_schema(to_delta_schema(table))
    rows = decode(batch, DocumentSchema(), policies=one)
    fitted = fit(rows, table)
    assert_rebuilds(fitted, batch)
    if any(map(has_large_number, documents)):
        return  # of a whole number beyond 2^53 in a long column nobody knows whether it was a double
    walked = walk(batch, fitted.schema)
    nulls = [[value is None for value in column.to_pylist()] for column in fitted.table.columns]
    assert nulls == [[value is None for value in column.to_pylist()] for column in walked.columns(fitted.schema)]
    assert fitted.stats.rescued_values == walked.rescued_values
    assert fitted.stats.rescued_rows == len(batch) - walked.rescued.count(None)


def has_large_number(value: Any) -> bool:
    match value:
        case dict():
            return any(map(has_large_number, value.values()))
        case list():
            return any(map(has_large_number, value))
        case DuplicateKeys():
            return any(has_large_number(member) for _, member in value.pairs)
        case int() | float():
            return abs(value) > 2**53
    return False


@random_cases
@seed(SEED)
@given(st.integers(0, len(SCALARS) - 1), st.data())
def test_a_column_converted_holds_the_same_values(kind: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | SCALARS[kind], min_size=1, max_size=8))
    batch = [legacy_text({"f": value}) for value in values]
    rows = decode(batch, DocumentSchema())
    if not rows.schema.stored:
        return
    known = rows.schema.fields[0].type
    types: list[t.FieldType] = [t.JSON, t.DOUBLE, t.Number(18), t.Number(4), t.Decimal(18), t.Decimal(0)]
    wanted = data.draw(st.sampled_from(types))
    try:
        converted = convert_column(rows.table.column(0).combine_chunks(), known, wanted)
    except NotExact:
        assert wanted != t.JSON
        return
    event(f"{known.text} as {wanted.text}")
    schema = DocumentSchema((t.Field("f", wanted),))
    table = pa.table({"f": converted})
    assert_rebuilds(Decoded(schema, table, rows.rescued), batch)


@random_cases
@seed(SEED)
@given(st.lists(st.one_of(numbers, small_doubles), min_size=1, max_size=6), st.sampled_from([0, 4, 18]))
def test_numbers_keep_their_value_in_every_way_of_decoding(values: list[Any], scale: int) -> None:
    schema = DocumentSchema((t.Field("n", t.Number(scale)), t.Field("l", t.List(t.Number(scale)))))
    for batch in ([legacy_text({"n": value, "l": [value]}) for value in values], [legacy_text({"n": values[0]})]):
        rows, walked = decode(batch, schema), walk(batch, schema)
        assert_rebuilds(rows, batch)
        assert rows.table.combine_chunks().column(0).to_pylist() == walked.columns(schema)[0].to_pylist()
        assert rows.rescued.to_pylist() == walked.rescued


@pytest.mark.parametrize(
    ("value", "stays"),
    [
        (5, True), (Int64(2**63 - 1), True), (Int64(-(2**63)), True), (2.5, True), (5.0, True), (0.0, True),
        (2.0**53 + 2, True), (1e19, True), (2.0**63, True), (1.2345678901234567e18, True), (1e-18, True),
        (1e20, False), (-0.0, False), (float("nan"), False), (float("inf"), False), (1e-19, False), (1e300, False),
    ],
)  # fmt: skip
def test_a_number_column_holds_what_stands_for_one_value_only(value: float, stays: bool) -> None:
    schema = DocumentSchema((t.Field("n", t.Number(18)),))
    rows = decode([legacy_text({"n": value})], schema)
    assert_rebuilds(rows, [legacy_text({"n": value})])
    assert (rows.stats.rescued_values == 0) is stays
