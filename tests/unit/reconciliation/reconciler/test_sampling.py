"""A sample is as large as was asked for, and never a handful."""

from __future__ import annotations

import pytest

from cdc_shared.delta.key_hash import hash_keys
from reconciliation.reconciler.sampling import MIN_SAMPLED, sample_mask

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("share", "rows", "mask"),
    [(0.0, 10**9, None), (1.0, 10**9, 0), (0.5, 10**9, 1), (0.3, 10**9, 1), (0.002, 10**9, 0xFF), (0.002, 10, 0)],
)
def test_mask(share: float, rows: int, mask: int | None) -> None:
    assert sample_mask(share, rows) == mask


def test_a_small_collection_has_its_least() -> None:
    rows = 20_000
    mask = sample_mask(0.002, rows)
    assert mask is not None
    sampled = sum(int(low) & mask == 0 for _, low in hash_keys(str(number) for number in range(rows)))
    assert 0.9 * MIN_SAMPLED < sampled < 2.2 * MIN_SAMPLED
