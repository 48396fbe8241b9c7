"""After 20,000 commits a table is as cheap to write, to checkpoint and to open as after 10,000."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from delta_reading import canonical_rows, read_with_duckdb
from deltalake import DeltaTable
from maintained_table import Change, MaintainedTable, random_document

from cdc_shared.analytics.duckdb_client import connect, delta_scan_sql
from cdc_shared.delta.log import entry_path
from cdc_shared.metrics.prometheus_metrics import MaintenanceOutcome, MaintenanceTask
from cdc_shared.settings import ObjectStoreSettings
from delta_writer.maintenance.policy import MB, MaintenancePolicy
from delta_writer.maintenance.retention import Retention

pytestmark = [pytest.mark.performance, pytest.mark.timeout(900)]

COMMITS = 20_000
INTERVALS = 20
KEYS = 2000
CHANGES = 10
OPENINGS = 5
MAX_GROWTH = 1.5
"""From the third quarter to the last, of medians over five intervals each: the noise of a busy machine."""
RETENTION_S = 5.0


def test_after_20_000_commits_nothing_grows(tmp_path: Path, measured: Callable[[str, float, str], None]) -> None:
    """Bytes of log for each change, seconds for a checkpoint, seconds to open the table with delta-rs and DuckDB.

    20,000 commits are half a day of a busy table's life, and take minutes here: so what the platform keeps for 30 days
    and `delta.deletedFileRetentionDuration` keeps for an hour is kept for seconds, set as an operator would set it.
    """
    policy = MaintenancePolicy(
        Retention(RETENTION_S, 1.0), 128 * MB, 1.0, 1e9, vacuum_every_s=RETENTION_S, first_vacuum_s=RETENTION_S
    )
    rng = random.Random(4)
    figures: dict[str, list[float]] = {
        "log bytes a change": [],
        "checkpoint s": [],
        "delta-rs open s": [],
        "duckdb s": [],
    }
    stores = ObjectStoreSettings()
    with MaintainedTable(str(tmp_path / "table"), stores, tmp_path / "cache", policy) as table:
        table.apply([(key, random_document(rng)) for key in range(KEYS)])
        table.writer.set_properties({"delta.deletedFileRetentionDuration": f"interval {RETENTION_S:.0f} seconds"})
        log = _LogBytes(tmp_path / "table", table.writer.version)
        for interval in range(INTERVALS):
            checkpoints, spent = _checkpoints(table)
            started = time.perf_counter()
            for _ in range(COMMITS // INTERVALS):
                table.apply([_change(rng) for _ in range(CHANGES)])
                log.follow(table.writer.version)
            took = time.perf_counter() - started
            count, now = _checkpoints(table)
            figures["log bytes a change"].append(log.take() / (COMMITS // INTERVALS * CHANGES))
            figures["checkpoint s"].append((now - spent) / max(1, count - checkpoints))
            figures["delta-rs open s"].append(_least_s(lambda: DeltaTable(table.url)))
            figures["duckdb s"].append(_duckdb_s(table.url, stores))
            print(
                f"{(interval + 1) * COMMITS // INTERVALS:6} commits, version {table.writer.version}: "
                + ", ".join(f"{name} {values[-1]:.4g}" for name, values in figures.items())
                + f", {len(table.writer.snapshot.files)} files, {took / COMMITS * INTERVALS * 1000:.1f} ms a commit"
            )
        assert canonical_rows(table.url, stores, read_with_duckdb) == table.model
        aborted = table.runs(MaintenanceTask.COMPACTION, MaintenanceOutcome.ABORTED)
        print(f"compactions: {table.runs(MaintenanceTask.COMPACTION, MaintenanceOutcome.DONE)} done, {aborted} aborted")
    for name, values in figures.items():
        quarter = len(values) // 4
        third, last = statistics.median(values[2 * quarter : 3 * quarter]), statistics.median(values[3 * quarter :])
        measured(f"after {COMMITS:,} commits, {name}", last, "")
        measured(f"after {COMMITS:,} commits, {name}, growth over the last quarter", last / third, "times")
        assert last <= MAX_GROWTH * third, (name, values)


class _LogBytes:
    """Adds up the entries that the log has got, before log clean-up takes them."""

    def __init__(self, root: Path, version: int) -> None:
        self._root = root
        self._version = version
        self._bytes = 0

    def follow(self, version: int) -> None:
        for each in range(self._version + 1, version + 1):
            self._bytes += (self._root / entry_path(each)).stat().st_size
        self._version = version

    def take(self) -> int:
        taken, self._bytes = self._bytes, 0
        return taken


def _change(rng: random.Random) -> Change:
    return rng.randrange(KEYS), None if rng.random() < 0.1 else random_document(rng)


def _checkpoints(table: MaintainedTable) -> tuple[int, float]:
    task = MaintenanceTask.CHECKPOINT
    return table.runs(task, MaintenanceOutcome.DONE), table.seconds(task)


def _least_s(action: Callable[[], object]) -> float:
    seconds = []
    for _ in range(OPENINGS):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _duckdb_s(url: str, stores: ObjectStoreSettings) -> float:
    with connect(stores) as connection:
        return _least_s(lambda: connection.execute(f"SELECT count(*) FROM {delta_scan_sql(url)}").fetchone())
