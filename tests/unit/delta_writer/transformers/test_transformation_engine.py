"""What the rules leave of events: documents and keys of their making, counts, and which version it was."""

from __future__ import annotations

from typing import Any

import pytest

from cdc_shared.documents import DocumentSchema, FieldPolicies
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.compiled import Rules
from delta_writer.transformers.bson_to_delta import decode_events, encode_batch
from delta_writer.transformers.change_batch import ChangeEvents
from delta_writer.transformers.transformation_engine import transformed

pytestmark = pytest.mark.unit

HASH_ID = {"rule": "hash", "path": "/_id", "key": "env:KEY"}


def rules(*transformation: Any, version: int = 3) -> Rules:
    quality = QualitySpec.model_validate({"version": version, "transformation": transformation})
    return Rules.compile(quality, "things", lambda reference: reference.encode() * 8)


def decoded(*documents: str | None) -> Any:
    number = len(documents)
    ops = ["d" if document is None else "u" for document in documents]
    events = ChangeEvents(
        [f'"{i}"' for i in range(number)], list(documents), [0] * number, [0] * number, list(range(number)), ops, {}
    )
    return decode_events(events, DocumentSchema(()))


def test_without_a_rule_nothing_is_touched_and_rows_have_no_version():
    source = decoded('{"a": 1}')
    result = transformed(source, rules(version=0), FieldPolicies())
    assert (result.decoded, result.events) == (source.decoded, source.events)
    assert encode_batch(result, DocumentSchema(())).rows.column("_cdc_rules_version").to_pylist() == [None]


def test_a_version_that_took_every_rule_away_is_still_told_from_none_ever():
    result = transformed(decoded('{"a": 1}', None), rules(version=2), FieldPolicies())
    batch = encode_batch(result, DocumentSchema(()), history=True)
    assert batch.rows.column("_cdc_rules_version").to_pylist() == [2, 2]
    assert batch.rules_version == 2


def test_documents_are_of_the_rules_making_and_the_source_keeps_its_schema():
    source = decoded('{"a": "7", "b": "x"}', '{"a": "no number"}')
    result = transformed(
        source,
        rules({"rule": "convert", "path": "/a", "to": "long"}, {"rule": "redact", "path": "/b"}),
        FieldPolicies(),
    )
    assert result.source_schema == source.decoded.schema
    assert result.texts == source.texts
    assert result.decoded.table.column("b").to_pylist() == ["***", None]
    assert result.changed_values == {("convert", "/a"): 1, ("redact", "/b"): 1}


def test_masked_keys_are_those_of_deletes_too_and_stay_apart():
    source = decoded('{"_id": "0"}', None, '{"_id": "2"}')
    result = transformed(source, rules(HASH_ID), FieldPolicies())
    assert len(set(result.events.keys)) == 3
    assert all(
        len(key) >= 64 and plain not in key for key, plain in zip(result.events.keys, source.events.keys, strict=True)
    )
    batch = encode_batch(result, DocumentSchema(()))
    assert batch.deleted_keys == [result.events.keys[1]]
    for identity, key in zip(
        batch.rows.column("_id").to_pylist(), batch.rows.column("_cdc_key").to_pylist(), strict=True
    ):
        assert identity in key
