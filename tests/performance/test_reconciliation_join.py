"""The table's side of reconciliation: half a million rows a second a core, scanned, hashed, spilled and joined."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bench.reconciliation_join import DAMAGED, CostOfJoin, make_join, measure_join
from machine_pace import machine_pace

pytestmark = [pytest.mark.performance, pytest.mark.timeout(180)]

ROWS = 1_000_000
"""One task of the scan and two ranges of the join: more rows take more of them, one after the other, and no memory."""
SEED = 7  # figures of two runs are compared, so every run has the same rows
MIN_ROWS_PER_CPU_S = 500_000
MAX_RSS_MB = 1024
MAX_ATTEMPTS = 3


def test_the_tables_side(tmp_path: Path, measured: Callable[[str, float, str], None]) -> None:
    """All seeded damage is found, at the bar's pace and in its memory.

    The bar is one of a quiet machine. Where others slow it down it is tried again, and held against the machine's pace.
    """
    make_join(ROWS, SEED, tmp_path)
    attempts: list[tuple[float, float, CostOfJoin]] = []
    while len(attempts) < MAX_ATTEMPTS and max((rate for rate, *_ in attempts), default=0) < MIN_ROWS_PER_CPU_S:
        pace = machine_pace()
        cost = measure_join(ROWS, tmp_path, times=2)
        pace = max(pace, machine_pace())
        attempts.append((cost.rows_per_s / pace, pace, cost))
        assert cost.found == dict.fromkeys(("missing", "extra", "different", "duplicated"), DAMAGED)
        measured("rows scanned, hashed, spilled and joined", cost.rows_per_s, "rows a second of one core")
        measured("the machine's pace meanwhile", pace, "of a quiet one's")
        measured("memory of that process", cost.peak_rss_mb, "MB")
        assert cost.peak_rss_mb <= MAX_RSS_MB
    assert max(at_full_pace for at_full_pace, *_ in attempts) >= MIN_ROWS_PER_CPU_S, attempts
