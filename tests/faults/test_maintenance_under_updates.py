"""Compaction and vacuum running all the time under random updates of two writers, read at pinned versions meanwhile."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import obstore
import pyarrow as pa
import pytest
from delta_reading import READERS, canonical_rows, canonical_rows_of
from deltalake import DeltaTable, QueryBuilder
from maintained_table import Change, MaintainedTable, TableWriter, random_document
from obstore.store import ObjectStore
from stack_endpoints import Stack

from cdc_shared.analytics.duckdb_client import connect, delta_scan_sql
from cdc_shared.delta.deletion_vector import vector_location
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import app_id
from cdc_shared.delta.schema_history import HISTORY_DIR
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.metrics.prometheus_metrics import MaintenanceOutcome, MaintenanceTask
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import delete_everything, open_store
from delta_writer.maintenance.budget import Budget
from delta_writer.maintenance.policy import MaintenancePolicy
from delta_writer.maintenance.retention import Retention, retained_log
from delta_writer.maintenance.vacuum import clean_up_log, vacuum

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

RUN_S = 40.0
MAX_RUN_S = 150.0
"""On a machine that does much else, until there were enough compactions and reads."""
KEYS = 400
CHANGES = 15
RETENTION = Retention(versions_s=12.0, upload_grace_s=3.0, readers_grace_s=2.0)
POLICY = MaintenancePolicy(
    RETENTION,
    target_bytes=40_000,  # some thousand rows: tiers, full files and dead rows all have their turn
    cpu_share=1.0,
    bytes_per_s=1e9,
    vacuum_every_s=3.0,
    first_vacuum_s=1.0,
    commits_a_checkpoint=10,
)
MAX_ABORTED_SHARE = 1 / 20
MIN_COMPACTIONS = 20
MIN_PINNED_READS = 20
MIN_VACUUMS = 3
MIN_CHECKPOINTS = 3


@pytest.fixture
def url(stack: Stack, tests_root: str) -> Iterator[str]:
    """A table's place on the stack's object store."""
    url = f"{tests_root}/maintained-{uuid.uuid4().hex[:8]}"
    yield url
    delete_everything(url, stack.object_store)


def test_equal_readable_and_without_leaks(
    stack: Stack, url: str, tmp_path: Path, rng: random.Random, measured: Callable[[str, float, str], None]
) -> None:
    """Attacks I8 and I10, and I5 and I6 with them.

    One writer maintains the table, the other one's commits come in between. The retention is seconds, so that vacuum
    takes away what was current a moment ago; `upload_grace_s`, hours in production, is a few seconds too.
    """
    stores = stack.object_store
    over = threading.Event()
    with MaintainedTable(url, stores, tmp_path / "one", POLICY, partitions=2) as one, ThreadPoolExecutor(2) as pool:
        one.apply([(key, random_document(rng)) for key in range(0, KEYS, 2)], keep_state=True)
        one.writer.set_properties({"delta.deletedFileRetentionDuration": "interval 5 seconds"})
        two = TableWriter(url, stores, tmp_path / "two", partition=1, partitions=2)
        reader = PinnedReader(url, stores, (one, two), random.Random(rng.random()))

        def enough() -> bool:
            done = one.runs(MaintenanceTask.COMPACTION, MaintenanceOutcome.DONE)
            return done >= MIN_COMPACTIONS and reader.reads >= MIN_PINNED_READS

        beside = [
            pool.submit(_repeat, lambda: two.apply(_changes(rng, 1), keep_state=True), over),
            pool.submit(_repeat, reader.step, over),
        ]
        try:
            started = time.monotonic()
            while (time.monotonic() < started + RUN_S or not enough()) and not any(map(Future.done, beside)):
                assert time.monotonic() < started + MAX_RUN_S, "too few compactions or reads"
                one.apply(_changes(rng, 0), keep_state=True)
        finally:
            over.set()
        _raise_errors(beside)
        one.writer.refresh()
        done, aborted = (
            one.runs(MaintenanceTask.COMPACTION, outcome)
            for outcome in (MaintenanceOutcome.DONE, MaintenanceOutcome.ABORTED)
        )
        vacuums = one.runs(MaintenanceTask.VACUUM, MaintenanceOutcome.DONE)
        print(
            f"{one.writer.version + 1} commits, {done} compactions and {aborted} aborted, {vacuums} vacuums, "
            f"{reader.reads} reads of pinned versions, {len(one.writer.snapshot.files)} files at the end"
        )
        two.close()
    measured("commits under maintenance", one.writer.version + 1, "commits")
    measured("compactions", done, "runs")
    measured("aborted compactions", aborted, "runs")
    for name, read in READERS.items():
        assert canonical_rows(url, stores, read) == one.model | two.model, name
    assert aborted <= MAX_ABORTED_SHARE * (done + aborted)
    assert vacuums >= MIN_VACUUMS
    assert one.runs(MaintenanceTask.VACUUM, MaintenanceOutcome.FAILED) == 0
    assert one.runs(MaintenanceTask.COMPACTION, MaintenanceOutcome.FAILED) == 0
    assert one.runs(MaintenanceTask.CHECKPOINT, MaintenanceOutcome.DONE) >= MIN_CHECKPOINTS
    check_nothing_leaks(open_store(url, stores))
    assert canonical_rows(url, stores) == one.model | two.model


def check_nothing_leaks(store: ObjectStore) -> None:
    """Vacuum as of now, then as of when the newest version alone is retained: what lies there is what is named."""
    for now in (time.time(), time.time() + RETENTION.versions_s):
        retained = retained_log(store, RETENTION, now)
        assert retained is not None
        named = _named_since(DeltaLog(store), retained.oldest)
        budget = Budget(1.0, 1e9, threading.Event())
        vacuum(store, retained, RETENTION, budget)
        clean_up_log(store, retained, budget)
        found = {
            item["path"]: item["last_modified"].timestamp()
            for page in obstore.list(store)
            for item in page
            if not item["path"].startswith(("_delta_log/", f"{HISTORY_DIR}/"))  # the latter is kept for good
        }
        young = {path for path, at in found.items() if at >= retained.oldest_at - RETENTION.upload_grace_s}
        assert named <= set(found), f"files that are needed are gone: {named - set(found)}"
        assert set(found) <= named | young, f"files leak: {set(found) - named - young}"


@dataclass
class PinnedReader:
    """Reads versions again and again while they are retained: each must stay what its offsets say."""

    url: str
    stores: ObjectStoreSettings
    writers: tuple[TableWriter, ...]
    rng: random.Random
    reads: int = 0
    seen: list[tuple[int, float]] = field(default_factory=list)
    """Versions, and when each was the newest: it is retained for that long after."""

    def step(self) -> None:
        """Remember the newest version and read one of those remembered."""
        at = time.time()
        newest = DeltaTable(self.url, storage_options=self.stores.storage_options()).version()
        self.seen = [(v, seen) for v, seen in self.seen if time.time() - seen < RETENTION.versions_s / 2]
        self.seen.append((newest, at))
        version, seen = self.rng.choice(self.seen)
        try:
            self._check(version)
            self.reads += 1
        except Exception as error:
            if time.time() - seen < RETENTION.versions_s:
                raise AssertionError(f"version {version}, newest {time.time() - seen:.1f} s ago: {error}") from error

    def _check(self, version: int) -> None:
        table = DeltaTable(self.url, version, storage_options=self.stores.storage_options())
        if self.rng.random() < 0.5:
            rows = pa.table(QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all())
        else:
            with connect(self.stores) as connection:
                rows = connection.execute(f"SELECT * FROM {delta_scan_sql(self.url, version)}").to_arrow_table()
        expected: dict[str, bytes] = {}
        for partition, writer in enumerate(self.writers):
            expected |= writer.states[table.transaction_version(app_id(writer.topic, partition)) or 0]
        assert canonical_rows_of(rows, table.schema()) == expected


def _changes(rng: random.Random, partition: int) -> list[Change]:
    """Changes of the keys of one partition: those with its parity."""
    keys = [2 * rng.randrange(KEYS // 2) + partition for _ in range(CHANGES)]
    return [(key, None if rng.random() < 0.15 else random_document(rng)) for key in keys]


def _named_since(log: DeltaLog, version: int) -> set[str]:
    """Every file that the version's state or a later entry names: the promise, word for word."""
    state = log.load_version(version)
    files = list(state.files.values())
    while (entry := log.read_entry(state.version + 1)) is not None:
        files += [action.add for action in entry if action.add is not None]
        state = Snapshot(state.version + 1)
    vectors = [vector_location(file.deletion_vector)[0] for file in files if file.deletion_vector is not None]
    return {*vectors, *(file.path for file in files)}


def _repeat(action: Callable[[], None], over: threading.Event) -> None:
    while not over.is_set():
        action()


def _raise_errors(futures: list[Future[None]]) -> None:
    for future in futures:
        future.result()
