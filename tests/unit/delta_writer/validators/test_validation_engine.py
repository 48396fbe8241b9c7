"""Which events a failed rule rejects, among deletes and documents that were rejected before."""

from __future__ import annotations

from typing import Any

import pytest

from cdc_shared.dead_letters.rejection import ReasonCode, Rejection
from cdc_shared.documents import DocumentSchema, FieldPolicies
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.compiled import Rules
from delta_writer.transformers.bson_to_delta import decode_events
from delta_writer.transformers.change_batch import ChangeEvents
from delta_writer.validators.validation_engine import validated

pytestmark = pytest.mark.unit


def rules(*validation: Any) -> Rules:
    quality = QualitySpec.model_validate({"version": 1, "validation": validation})
    return Rules.compile(quality, "things", lambda reference: reference.encode())


def decoded(*documents: str | None, rejected: dict[int, Rejection] | None = None) -> Any:
    number = len(documents)
    ops = ["d" if document is None else "u" for document in documents]
    events = ChangeEvents(
        [str(i) for i in range(number)], list(documents), [0] * number, [0] * number, list(range(number)), ops, {}
    )
    return decode_events(events, DocumentSchema(()), rejected or {})


def test_without_a_rule_events_stay_as_they_are():
    source = decoded('{"a": 1}')
    assert validated(source, rules(), FieldPolicies()) is source


def test_rows_are_told_from_events_and_earlier_reasons_stay():
    large = Rejection(ReasonCode.OVERSIZED_DOCUMENT, "too large")
    source = decoded(None, '{"a": null}', "[]", None, '{"a": 1}', "{}", "{}", rejected={5: large})
    result = validated(source, rules({"rule": "required", "path": "/a"}), FieldPolicies())
    assert {event: why.code.value for event, why in sorted(result.rejected.items())} == {
        1: "validation_failed",
        2: "malformed_document",
        5: "oversized_document",
        6: "validation_failed",
    }
    assert result.rows.tolist() == [-1, -1, -1, -1, 0, -1, -1]


def test_a_rejected_document_leaves_no_trace_in_the_schema():
    source = decoded('{"a": 1, "b": 2}', '{"a": "x", "b": "mixed", "c": {"of": "a rejected one"}}', '{"a": 3, "b": 4}')
    result = validated(source, rules({"rule": "type", "path": "/a", "types": ["long"]}), FieldPolicies())
    assert list(result.rejected) == [1]
    assert result.decoded.schema == decoded('{"a": 1, "b": 2}').decoded.schema
    again = decode_events(source.events, result.source_schema)
    assert again.source_schema.typed() != result.source_schema.typed()
    assert validated(
        again, rules({"rule": "type", "path": "/a", "types": ["long"]}), FieldPolicies()
    ).source_schema == (result.source_schema)


def test_a_rejected_document_has_no_row_and_counts_as_no_conflict():
    """Else a column would be promoted for values that a rule keeps out of it."""
    allowed = rules({"rule": "type", "path": "/a", "types": ["long"]}, {"rule": "required", "path": "/b"})
    known = decoded('{"a": 1, "b": 2}').source_schema
    source = decoded('{"a": 1, "b": 1}', None, '{"a": "x", "b": 2}', '{"a": 3}', '{"a": 4, "b": 4}')
    conflicting = validated(decode_events(source.events, known), allowed, FieldPolicies())
    assert conflicting.decoded.stats.conflicts == {}
    fitting = decode_events(source.events.taken([0, 1, 3, 4]), known)
    for result, rejected in ((conflicting, [2, 3]), (validated(fitting, allowed, FieldPolicies()), [2])):
        assert sorted(result.rejected) == rejected
        assert result.decoded.table.to_pylist() == [{"a": 1, "b": 1}, {"a": 4, "b": 4}]
        assert result.texts == ['{"a": 1, "b": 1}', '{"a": 4, "b": 4}']
        assert result.rows[[0, -1]].tolist() == [0, 1]
        assert (result.rows[1:-1] == -1).all()


def test_one_documents_versions_may_have_the_same_value_and_two_documents_may_not():
    source = decoded('{"mail": "a"}', '{"mail": "a"}', '{"mail": "b"}')
    source.events.keys[:] = ["1", "2", "1"]
    result = validated(source, rules({"rule": "unique", "path": "/mail"}), FieldPolicies())
    assert list(result.rejected) == [1]
    source.events.keys[:] = ["1", "1", "1"]
    assert validated(source, rules({"rule": "unique", "path": "/mail"}), FieldPolicies()).rejected == {}
