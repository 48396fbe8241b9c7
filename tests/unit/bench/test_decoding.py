"""The benchmark of mixed types: it measures what it says."""

import pytest
from bench.decoding import measure_mixed_types

pytestmark = pytest.mark.unit


def test_odd_values_are_rescued_and_their_documents_stay_on_the_fast_path() -> None:
    none, all_mixed = measure_mixed_types(2_000, seed=1, odd_shares=(0.0, 0.8))
    assert none.rescued_values == none.walked_rows == all_mixed.walked_rows == 0
    assert 1_500 < all_mixed.rescued_values < 1_700
    assert none.plain_per_s > 0
    assert all_mixed.ratio == all_mixed.plain_per_s / all_mixed.mixed_per_s
