"""The corner values of every BSON type become what docs/architecture/types.md says, before any part of the stack."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import bson
import pytest
from bson_cases import bson_cases, raw_document, seed_document
from bson_cells import EXACT, assert_cell
from documented_outcomes import column_type, documented_outcomes

from cdc_shared.documents import (
    DocumentSchema,
    canonical_document,
    canonical_row,
    decode,
    document_key,
    document_text,
    to_delta_schema,
)

pytestmark = pytest.mark.unit

CASES = bson_cases()
CORNER_TEXTS = Path(__file__).parents[3] / "payloads" / "debezium-corner-texts.jsonl"
TOO_LARGE_TO_KEEP = {"string/1 MB", "longs/10,000"}
OTHER_DIGITS = {"double/1E23", "double/smallest", "double/-smallest"}
"""Java before 19 does not write the shortest text of these; both texts are the same double's."""
READ_AS_ANOTHER = {"symbol", "undefined"}
"""Fields whose type the `bson` package reads as another one."""


def test_every_case_is_documented_and_every_documented_value_is_a_case() -> None:
    values: dict[str, tuple[str, ...]] = {}
    for case in CASES:
        values[case.field] = (*values.get(case.field, ()), case.name)
    assert values == {outcome.field: outcome.values for outcome in documented_outcomes().values()}
    assert len({case.id for case in CASES}) == len(CASES)
    assert all(outcome.rescued < set(outcome.values) for outcome in documented_outcomes().values())


def test_the_columns_have_the_documented_types() -> None:
    schema = decode([document_text(seed_document(CASES))], DocumentSchema()).schema
    columns = {each["name"]: each for each in json.loads(to_delta_schema(schema))["fields"]}
    found = {
        field: (None, None)
        if field not in columns
        else (column_type(columns[field]["type"]), columns[field]["metadata"]["cdc.type"])
        for field in documented_outcomes()
    }
    assert found == {each.field: (each.column, each.cdc_type) for each in documented_outcomes().values()}


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "each alone"])
def test_every_value_comes_to_its_documented_place(together: bool) -> None:
    outcomes = documented_outcomes()
    schema = decode([document_text(seed_document(CASES))], DocumentSchema()).schema
    texts = [document_text(case.raw) for case in CASES]
    batches = [texts] if together else [[text] for text in texts]
    cases = iter(CASES)
    for batch in batches:
        decoded = decode(batch, schema)
        assert not decoded.invalid
        for row, (text, rescued) in enumerate(zip(batch, decoded.rescued.to_pylist(), strict=True)):
            case = next(cases)
            outcome = outcomes[case.field]
            assert (rescued is not None) == (case.name in outcome.rescued), case.id
            values = {name: decoded.table[name][row].as_py() for name in decoded.table.column_names}
            assert canonical_row(values, decoded.schema, rescued) == canonical_document(text), case.id
            assert_cell(case, values.get(case.field), rescued, outcome.cdc_type)


def test_debezium_writes_the_same_text_byte_for_byte() -> None:
    """So what the end-to-end test puts into the topic itself is what Debezium would have put there."""
    payloads = {each["bson"]: each for each in map(json.loads, CORNER_TEXTS.read_text(encoding="utf-8").splitlines())}
    assert len(payloads) == len(CASES) - len(TOO_LARGE_TO_KEEP)
    for case in CASES:
        if case.id not in TOO_LARGE_TO_KEEP:
            payload = payloads[base64.b64encode(case.raw).decode()]
            assert payload["key"] == document_key(case.raw), case.id
            assert canonical_document(payload["after"]) == canonical_document(document_text(case.raw)), case.id
            assert (payload["after"] == document_text(case.raw)) == (case.id not in OTHER_DIGITS), case.id


def test_the_text_holds_what_the_bson_package_reads() -> None:
    compared = [case for case in CASES if case.field not in READ_AS_ANOTHER and case.id != "regex/unknown options"]
    assert len(compared) > 200
    for case in compared:
        decoded = bson.decode(case.raw, codec_options=EXACT)
        assert canonical_document(document_text(case.raw)) == canonical_document(decoded), case.id


def test_the_hand_made_bytes_are_what_the_bson_package_writes() -> None:
    for case in CASES:
        document = bson.decode(case.raw, codec_options=EXACT)
        if case.kept_by_secantus and not {"signalling", "payload", "-NaN", "significand"} & set(case.name.split()):
            assert bson.encode(document) == case.raw, case.id
    assert raw_document({}) == bson.encode({})
