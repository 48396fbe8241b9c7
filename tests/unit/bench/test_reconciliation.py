"""The benchmark of reconciliation: it measures what it says."""

from dataclasses import asdict

import pytest
from bench.reconciliation import measure_reconciling

pytestmark = pytest.mark.unit


def test_every_way_is_measured() -> None:
    cost = asdict(measure_reconciling(500, seed=1))
    assert cost.pop("documents") == 500
    assert all(per_s > 0 for per_s in cost.values())
