"""The log alone says how many rows live; what it leaves out, the file says."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from maintained_table import TableWriter
from msgspec.structs import replace

from cdc_shared.errors import Fatal
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from reconciliation.reconciler.counts import count_rows
from reconciliation.sources.deltalake_reader import PinnedTable

pytestmark = pytest.mark.unit

SEED = 4
STORES = ObjectStoreSettings(_env_file=None)  # type: ignore[call-arg]


def test_rows_are_counted_through_deletes_and_without_stats(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    writer = TableWriter(str(tmp_path / "table"), STORES, tmp_path / "cache")
    for _ in range(6):
        writer.apply([(key, None if rng.random() < 0.4 else {"n": 1}) for key in rng.sample(range(90), 30)])
        table = PinnedTable.newest(open_store(writer.url, STORES), writer.topic)
        assert count_rows(table) == len(writer.model), f"seed {SEED}"
        table.snapshot.files = {path: replace(file, stats=None) for path, file in table.snapshot.files.items()}
        assert count_rows(table) == len(writer.model), f"seed {SEED}"


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    writer = TableWriter(str(tmp_path / "table"), STORES, tmp_path / "cache")
    writer.apply([(1, {"n": 1})])
    table = PinnedTable.newest(open_store(writer.url, STORES), writer.topic)
    (path,) = table.snapshot.files
    (Path(writer.url) / path).unlink()
    assert count_rows(table) == 1
    table.snapshot.files[path] = replace(table.snapshot.files[path], stats=None)
    with pytest.raises(Fatal, match=f"{path}.*missing"):
        count_rows(table)
