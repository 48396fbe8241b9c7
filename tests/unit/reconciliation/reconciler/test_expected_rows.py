"""Expected rows are the rows that the writer makes of the events of the same documents, whatever the rules."""

import os
import random
from typing import Any

import bson
import numpy as np
import pyarrow as pa
import pytest
from bson import Int64
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from tests.support.decoding import known
from tests.support.raw_bson import raw_document
from tests.support.ruled_documents import KEY, document_texts, rule_lists

from cdc_shared.documents import (
    DocumentSchema,
    FieldPolicies,
    canonical_document,
    canonical_row,
    document_key,
    document_text,
    parse_document,
)
from cdc_shared.documents import types as t
from cdc_shared.documents.policies import NONE
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.compiled import Rules
from delta_writer.transformers.bson_to_delta import decode_events
from delta_writer.transformers.change_batch import ChangeEvents
from delta_writer.transformers.schema_inferrer import fit_documents
from delta_writer.transformers.transformation_engine import transformed
from delta_writer.validators.validation_engine import validated
from reconciliation.reconciler.expected_rows import expect
from reconciliation.reconciler.independent_path import canonical_of_raw, canonical_of_rows
from reconciliation.reconciler.row_digest import RESCUED, row_digests
from reconciliation.reconciler.spill import SourceStatus

pytestmark = pytest.mark.unit

SEED = int(os.environ.get("TEST_SEED", random.SystemRandom().randrange(2**32)))
EXAMPLES = int(os.environ.get("TEST_EXAMPLES", 60))
slow_is_fine = settings(
    deadline=None,
    max_examples=EXAMPLES,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(autouse=True)
def _show_seed() -> None:
    print(f"TEST_SEED={SEED}")


def rules_of(*transformation: dict[str, Any], validation: list[dict[str, Any]] | None = None) -> Rules:
    quality = QualitySpec.model_validate(
        {"version": 3, "transformation": list(transformation), "validation": validation or []}
    )
    return Rules.compile(quality, "orders", lambda _: KEY)


NO_RULES = rules_of()


def writers_rows(texts: list[str], keys: list[str], table: DocumentSchema, rules: Rules) -> tuple[pa.Table, Any]:
    """The steps of the writer's pipeline, one batch: the rows, and the schema that the table then has."""
    number = len(texts)
    events = ChangeEvents(keys, list(texts), [0] * number, [0] * number, list(range(number)), ["c"] * number, {})
    decoded = decode_events(events, rules.source_schema(table), {}, NONE)
    source = transformed(validated(decoded, rules, NONE), rules, NONE)
    assert not source.rejected
    fitted = fit_documents(source.decoded, table, NONE, np.ones(number, np.bool_)).decoded
    names = [*fitted.table.column_names, RESCUED]
    return pa.Table.from_arrays([*fitted.table.columns, fitted.rescued], names=names), (
        fitted.schema.typed(),
        source.events.keys,
    )


@slow_is_fine
@seed(SEED)
@given(document_texts(), st.data())
def test_the_rows_are_the_writers(texts: list[str], data: st.DataObject) -> None:
    documents = [parse_document(text) for text in texts]
    rules = Rules.compile(data.draw(rule_lists(documents)), "orders", lambda _: KEY)
    raw = [raw_document(document) for document in documents]
    assert [document_text(each) for each in raw] == texts
    keys = [document_key(each) for each in raw]
    first = data.draw(st.integers(1, len(texts)))
    _, (schema, _) = writers_rows(texts[:first], keys[:first], DocumentSchema(), rules)
    rows, (schema, masked_keys) = writers_rows(texts, keys, schema, rules)
    expected = expect(raw, schema, rules, NONE)
    assert expected.keys == masked_keys
    assert expected.source_keys == keys
    assert (expected.statuses == SourceStatus.EXPECTED).all()
    if not len(rows):
        return
    same = (row_digests(expected.table, schema) == row_digests(rows, schema)).all(axis=1)
    assert same.all(), (rows.to_pylist(), expected.table.to_pylist())
    forms = canonical_of_rows(expected.table, schema)
    assert forms == canonical_of_rows(rows, schema)
    for row, (text, each) in enumerate(zip(texts, raw, strict=True)):
        right = canonical_document(rules.transform_document(parse_document(text)))
        assert (
            canonical_row(expected.table.slice(row, 1).to_pylist()[0], schema, expected.table[RESCUED][row].as_py())
            == right
        )
        assert canonical_of_raw(each, rules) in (forms[row], None)


SCHEMA = known(_id=t.LONG, n=t.LONG, s=t.STRING)


def statuses_of(documents: list[dict[str, Any]], rules: Rules, **options: Any) -> list[SourceStatus]:
    expected = expect([bson.encode(each) for each in documents], SCHEMA, rules, NONE, **options)
    return [SourceStatus(status) for status in expected.statuses]


def test_what_a_rule_rejects_and_what_a_filter_does_not_match() -> None:
    rules = rules_of(
        validation=[
            {"rule": "range", "path": "/n", "min": 0},
            {"rule": "filter", "expression": "s <> 'old'"},
        ]
    )
    documents = [{"_id": 1, "n": 1, "s": "new"}, {"_id": 2, "n": -1, "s": "old"}, {"_id": 3, "n": 1, "s": "old"}]
    wanted = [SourceStatus.EXPECTED, SourceStatus.REJECTED, SourceStatus.FILTERED]
    assert statuses_of(documents, rules) == wanted


def test_documents_do_not_meet_in_the_rule_unique() -> None:
    rules = rules_of(validation=[{"rule": "unique", "path": "/n"}])
    assert statuses_of([{"_id": 1, "n": 1}, {"_id": 2, "n": 1}], rules) == [SourceStatus.EXPECTED] * 2


def test_a_document_beyond_the_size_is_rejected() -> None:
    documents = [{"_id": 1, "s": "x"}, {"_id": 2, "s": "x" * 100}]
    wanted = [SourceStatus.EXPECTED, SourceStatus.REJECTED]
    assert statuses_of(documents, NO_RULES, max_document_bytes=100) == wanted


def test_what_is_no_document_or_has_no_id_is_unreadable_and_the_others_are_not() -> None:
    good = bson.encode({"_id": 1, "n": 7})
    raw = [good, b"", good[:-3], bson.encode({"n": 1}), good]
    expected = expect(raw, SCHEMA, NO_RULES, NONE)
    bad = [SourceStatus.UNREADABLE] * 3
    assert expected.statuses.tolist() == [SourceStatus.EXPECTED, *bad, SourceStatus.EXPECTED]
    assert expected.keys[0::4] == ["1", "1"]
    assert expected.keys[1::2] == ["", ""]
    assert expected.table["n"].to_pylist()[0::4] == [7, 7]


def test_a_masked_id_has_two_keys() -> None:
    rules = rules_of({"rule": "hash", "path": "/_id", "key": "env:KEY"})
    expected = expect([bson.encode({"_id": 5})], known(_id=t.STRING), rules, NONE)
    assert expected.source_keys == ["5"]
    assert expected.keys == [rules.key_text("5")] != ["5"]


def test_a_field_that_the_table_has_no_column_for_is_rescued() -> None:
    expected = expect([bson.encode({"_id": 1, "n": 1, "new": {"x": 1}})], SCHEMA, NO_RULES, NONE)
    assert expected.table[RESCUED].to_pylist() == ['{"/new":{"x":{"$numberInt":"1"}}}']
    assert expected.statuses.tolist() == [SourceStatus.EXPECTED]


def test_a_schema_with_fields_of_no_type_loses_nothing() -> None:
    schema = DocumentSchema((*SCHEMA.fields, t.Field("u", t.NULL)))
    for value in (1, "x", [None], {"a": 1}):
        expected = expect([bson.encode({"_id": 1, "u": value})], schema, NO_RULES, NONE)
        assert expected.table[RESCUED].to_pylist() != [None]


def test_fields_that_were_only_null_do_not_slow_down_the_next_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = [bson.encode({"_id": n, "n": n, "gone": None}) for n in range(50)]
    expect(raw, SCHEMA, NO_RULES, NONE)
    monkeypatch.setattr("reconciliation.reconciler.bson_decoder.decode", None)  # the slow way
    assert expect(raw, SCHEMA, NO_RULES, NONE).table["n"].to_pylist() == list(range(50))


def test_named_fields_follow_their_policy() -> None:
    policies = FieldPolicies(named=(("/s", "string"),))
    table = known(_id=t.LONG, s=t.TEXT)
    expected = expect([bson.encode({"_id": 1, "s": Int64(5)})], table, NO_RULES, policies)
    assert expected.table["s"].to_pylist() == ["5"]
    assert expected.table[RESCUED].to_pylist() == ['{"/s":{"$numberLong":"5"}}']


def test_no_documents() -> None:
    expected = expect([], SCHEMA, NO_RULES, NONE)
    assert expected.table.num_rows == len(expected.keys) == len(expected.statuses) == 0
