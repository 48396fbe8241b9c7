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
from delta_writer.maintenance.checkpointer import COMMITS_A_CHECKPOINT
from delta_writer.maintenance.policy import MB, MaintenancePolicy
from delta_writer.maintenance.retention import Retention

pytestmark = [pytest.mark.performance, pytest.mark.timeout(900)]

COMMITS = 20_000
INTERVALS = 20
KEYS = 2000
CHANGES = 10
OPENINGS = 10
MAX_GROWTH = 1.5
"""From the third quarter to the last, of medians over five intervals each: the noise of a busy machine."""
RETENTION_S = 5.0
PLACE = COMMITS_A_CHECKPOINT // 2
SETTLE_TIMEOUT_S = 60.0


def test_after_20_000_commits_nothing_grows(tmp_path: Path, measured: Callable[[str, float, str], None]) -> None:
    """Bytes of log for each change, seconds for a checkpoint, seconds to open the table with delta-rs and DuckDB.

    20,000 commits are half a day of a busy table's life, and take minutes here: so what the platform keeps for 30 days
    and `delta.deletedFileRetentionDuration` keeps for an hour is kept for seconds, set as an operator would set it.
    """
    policy = MaintenancePolicy(
        Retention(RETENTION_S, 1.0, 0.0), 128 * MB, 1.0, 1e9, vacuum_every_s=RETENTION_S, first_vacuum_s=RETENTION_S
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
        watch = _Watch(table)
        for interval in range(INTERVALS):
            started = time.perf_counter()
            for _ in range(COMMITS // INTERVALS):
                table.apply([_change(rng) for _ in range(CHANGES)])
                watch.look()
            took = time.perf_counter() - started
            figures["log bytes a change"].append(watch.log_bytes / (COMMITS // INTERVALS * CHANGES))
            figures["checkpoint s"].append(statistics.median(watch.checkpoints_s))
            _come_to_rest(table, rng)
            watch = _Watch(table)
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


def _come_to_rest(table: MaintainedTable, rng: random.Random) -> None:
    """Measure always at the same place: that many entries after a checkpoint, and with maintenance at rest."""
    while not PLACE <= table.writer.version % COMMITS_A_CHECKPOINT < PLACE + 5:
        table.apply([_change(rng) for _ in range(CHANGES)])
    table.settle(SETTLE_TIMEOUT_S)


class _Watch:
    """Sees what a table's log gets, before log clean-up takes it: bytes of entries, seconds of each checkpoint."""

    def __init__(self, table: MaintainedTable) -> None:
        self._table = table
        self._version = table.writer.version
        self._written_s = table.seconds(MaintenanceTask.CHECKPOINT)
        self.log_bytes = 0
        self.checkpoints_s: list[float] = []

    def look(self) -> None:
        """To be called after every commit."""
        for version in range(self._version + 1, self._table.writer.version + 1):
            self.log_bytes += Path(self._table.url, entry_path(version)).stat().st_size
        self._version = self._table.writer.version
        written_s = self._table.seconds(MaintenanceTask.CHECKPOINT)
        if written_s > self._written_s:
            self.checkpoints_s.append(written_s - self._written_s)
            self._written_s = written_s


def _change(rng: random.Random) -> Change:
    return rng.randrange(KEYS), None if rng.random() < 0.1 else random_document(rng)


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
