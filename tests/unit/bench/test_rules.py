"""The benchmark of rules: it measures what it says."""

import pytest
from bench.rules import measure_rules

pytestmark = pytest.mark.unit


def test_every_document_is_transformed() -> None:
    cost = measure_rules(2_000, seed=1)
    assert cost.changed_values == 3 * 2_000
    assert cost.share == cost.decoded_per_s / cost.transformed_per_s > 0
