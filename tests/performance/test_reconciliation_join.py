"""The table's side of reconciliation: half a million rows a second a core, scanned, hashed, spilled and joined."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bench.reconciliation_join import DAMAGED, make_join, measure_join
from machine_pace import columnar_pace

pytestmark = [pytest.mark.performance, pytest.mark.timeout(180)]

ROWS = 1_000_000
"""One task of the scan and two ranges of the join: more rows take more of them, one after the other, and no memory."""
SEED = 7  # figures of two runs are compared, so every run has the same rows
MIN_ROWS_PER_CPU_S = 500_000
MAX_RSS_MB = 1024
TIMES = 6


def test_the_tables_side(tmp_path: Path, measured: Callable[[str, float, str], None]) -> None:
    """All seeded damage is found, at the bar's pace and in its memory.

    The bar is one of a quiet machine: the best of some times is held against the machine's pace just before and after.
    """
    make_join(ROWS, SEED, tmp_path)
    cost = measure_join(ROWS, tmp_path, TIMES, columnar_pace)
    assert cost.found == dict.fromkeys(("missing", "extra", "different", "duplicated"), DAMAGED)
    measured("rows scanned, hashed, spilled and joined", cost.rows_per_s, "rows a second of one core")
    measured("the machine's pace meanwhile", cost.pace, "of a quiet one's")
    measured("memory of that process", cost.peak_rss_mb, "MB")
    assert cost.peak_rss_mb <= MAX_RSS_MB
    assert cost.rows_per_s_at_full_pace >= MIN_ROWS_PER_CPU_S, cost
