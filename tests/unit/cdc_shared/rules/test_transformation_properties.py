"""Random documents under random rules: the Arrow engine gives what the rules mean document by document."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, seed, settings
from hypothesis import strategies as st
from ruled_documents import KEY, document_texts, rule_lists

from cdc_shared.documents import DocumentSchema, canonical_document, canonical_row, decode, parse_document
from cdc_shared.documents.fitting import fit
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.compiled import Rules
from cdc_shared.rules.transformation import Counts

pytestmark = pytest.mark.unit

SEED = int(os.environ.get("TEST_SEED", random.SystemRandom().randrange(2**32)))
EXAMPLES = int(os.environ.get("TEST_EXAMPLES", 40))
MASKS = {"redact", "partial", "hash", "email", "truncate_date"}


@pytest.fixture(autouse=True)
def _show_seed() -> None:
    print(f"TEST_SEED={SEED}")


@settings(
    deadline=None,
    max_examples=EXAMPLES,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@seed(SEED)
@given(document_texts(), st.data())
def test_a_row_is_its_transformed_document(texts: list[str], data: st.DataObject) -> None:
    quality: QualitySpec = data.draw(rule_lists([parse_document(text) for text in texts]))
    rules = Rules.compile(quality, "any", lambda _: KEY)
    known, table = DocumentSchema(), DocumentSchema()
    rest = texts
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        batch, rest = rest[:size], rest[size:]
        decoded = decode(batch, known)
        known = decoded.schema
        transformed = rules.transform(decoded, batch)
        result = transformed.decoded
        expected = [canonical_document(rules.transform_document(parse_document(text))) for text in batch]
        assert rows_of(result) == expected
        fitted = fit(result, table)
        assert rows_of(fitted) == expected
        table = fitted.schema.typed()
        assert masked(transformed.counts) == masked(document_counts(rules, batch))
        assert result.stats.rescued_rows == len(batch) - result.rescued.null_count
        if data.draw(st.booleans()):  # the writer was restarted: it knows what the table says
            known = rules.source_schema(table)
    for rule in quality.transformation:
        event(rule.rule)


def rows_of(decoded: Any) -> list[bytes]:
    decoded.table.validate(full=True)
    rows = decoded.table.to_pylist() if decoded.table.num_columns else [{}] * len(decoded.rescued)
    assert len(rows) == len(decoded.rescued)
    assert decoded.table.schema.names == [field.column for field in decoded.schema.stored]
    return [
        canonical_row(row, decoded.schema, rescued)
        for row, rescued in zip(rows, decoded.rescued.to_pylist(), strict=True)
    ]


def document_counts(rules: Rules, texts: list[str]) -> Counts:
    counts = Counts()
    for text in texts:
        rules._transformation.document(parse_document(text), counts)
    return counts


def masked(counts: Any) -> dict[tuple[str, str], int]:
    """Of conversions the two ways may count differently: a column does not tell 5 from 5.0."""
    return {counted: count for counted, count in counts.items() if counted[0] in MASKS and count}
