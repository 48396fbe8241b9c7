"""The benchmark of changes checks its own tables, so it can be trusted on a small scale too."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import changes
from bench.changes import CostOfChanges, measure_sizes

from cdc_shared.settings import ObjectStoreSettings

pytestmark = pytest.mark.unit


def test_it_fills_and_changes_both_tables_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "CHANGES_A_BATCH", 100)
    steps = list(
        measure_sizes(str(tmp_path / "tables"), ObjectStoreSettings(), tmp_path / "cache", [300], batches=2, seed=5)
    )
    assert steps[0] == 300
    cost = steps[-1]
    assert isinstance(cost, CostOfChanges)
    assert (cost.rows, cost.batches) == (300, 2)
    assert set(cost.commit) == {"deletion_vectors", "copy_on_write"}
    assert all(part.cpu_s > 0 for part in (cost.decode, *cost.commit.values()))


def test_a_table_that_lost_a_row_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = changes.ChangeBench(str(tmp_path / "tables"), ObjectStoreSettings(), tmp_path / "cache", seed=5)
    list(bench.fill(50))
    bench._factory._live.pop()
    with pytest.raises(AssertionError, match="deletion_vectors: the table holds"):
        bench._check_tables()
    bench.close()
