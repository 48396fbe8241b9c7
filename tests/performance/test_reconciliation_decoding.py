"""A source's documents are decoded and hashed, and a table's rows hashed, fast enough for a terabyte in a night."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bench.reconciliation import measure_reconciling
from machine_pace import best_at_full_pace, columnar_pace

pytestmark = pytest.mark.performance

DOCUMENTS = 10_000
MIN_SOURCE_PER_S = 25_000
"""Documents a second a core, rules and masks included. Measured: 110,000 with them, 170,000 without."""
MIN_SINK_PER_S = 1_000_000
"""Rows a second a core: twice what the whole of the table's side has to do. Measured: 1.1 to 1.6 M."""


def test_documents_and_rows_are_hashed_in_time(measured: Callable[[str, float, str], None]) -> None:
    def rows_hashed() -> float:
        cost = measure_reconciling(DOCUMENTS, seed=0)
        measured("documents to digests", cost.source_per_s, "/CPU s")
        measured("documents to digests, with rules", cost.source_with_rules_per_s, "/CPU s")
        measured("rows to digests", cost.sink_per_s, "/CPU s")
        assert min(cost.source_per_s, cost.source_with_rules_per_s) >= MIN_SOURCE_PER_S
        assert cost.source_per_s > 3 * cost.by_text_per_s, "reading raw BSON is no longer worth its code"
        return cost.sink_per_s

    assert best_at_full_pace(rows_hashed, MIN_SINK_PER_S, measured, columnar_pace) >= MIN_SINK_PER_S
