"""What is due for a table, when, and what becomes of it: the worker's part and the pipeline's part together."""

import os
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import obstore
import pyarrow as pa
import pytest
import structlog
from deltalake import DeltaTable, QueryBuilder
from prometheus_client import CollectorRegistry
from waiting import wait_until

from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import TableIdentity
from cdc_shared.errors import Transient
from cdc_shared.metrics.prometheus_metrics import MaintenanceOutcome, MaintenanceTask, WriterMetrics
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import MaintenanceSpec
from cdc_shared.models.data_quality import EvolutionSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store, store_errors
from delta_writer.consumer.event_handler import read_events
from delta_writer.maintenance import table_maintenance
from delta_writer.maintenance.chore import Maintenance
from delta_writer.maintenance.copy_on_write_compactor import MIN_SMALL_FILES
from delta_writer.maintenance.policy import MB, MaintenancePolicy
from delta_writer.maintenance.retention import Retention
from delta_writer.maintenance.table_maintenance import TableMaintenance
from delta_writer.maintenance.worker import MaintenanceWorker, Urgency
from delta_writer.transformers.bson_to_delta import decode_events, encode_batch
from delta_writer.writer.batch_upload import MAX_UPLOAD_AGE_S
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.history_writer import HistoryWriter
from delta_writer.writer.schema_cache import SchemaCache
from delta_writer.writer.schema_manager import SchemaManager
from delta_writer.writer.sink import Sink
from delta_writer.writer.tables import Table

pytestmark = pytest.mark.unit

LABELS = ("p", "db", "things")
TOPIC = ChangeTopic("p.db.things", "topic-id", 1)
WAIT_S = 30.0


def policy(**changes):
    settings = {
        "retention": Retention(0.0, 0.0, 0.0),
        "target_bytes": 128 * MB,
        "cpu_share": 1.0,
        "bytes_per_s": 1e9,
        "first_vacuum_s": 1e9,
        "commits_a_checkpoint": 20,
    }
    return MaintenancePolicy(**(settings | changes))


class Maintained:
    """A table with a maintainer whose clock the test turns."""

    def __init__(self, table, worker, writer=None, **changes):
        self.table = table
        self.writer = writer or table.open()
        self.now = 0.0
        self.wall_ahead_s = 0.0
        self.metrics = WriterMetrics(CollectorRegistry())
        self.maintenance = TableMaintenance(
            self.writer,
            LABELS,
            policy(**changes),
            worker,
            self.metrics,
            lambda: self.now,
            lambda: time.time() + self.wall_ahead_s,
        )

    def apply(self, *keys, value=0):
        self.table.apply(self.writer, [(key, {"n": value}) for key in keys])

    def runs(self, task, outcome=MaintenanceOutcome.DONE):
        return self.metrics.maintenance_runs.labels(*LABELS, task, outcome)._value.get()

    def turn_until(self, condition, what):
        def turn():
            self.maintenance.turn()
            return condition()

        wait_until(turn, WAIT_S, what)


def age_files(it):
    """Make the data files older than any entry of the log: two commits may share a tick of the file system's clock."""
    for path in Path(it.table.url).glob("*.parquet"):
        os.utime(path, (1_700_000_000, 1_700_000_000))


@pytest.fixture
def worker():
    worker = MaintenanceWorker()
    yield worker
    worker.close()


@pytest.fixture
def maintained(new_table, worker):
    made = []

    def make(**changes):
        made.append(Maintained(new_table(), worker, **changes))
        return made[-1]

    yield make
    for each in made:
        each.maintenance.close()
        each.writer.close()


def test_small_files_become_one_and_the_table_stays_the_same(maintained):
    it = maintained()
    for key in range(8):
        it.apply(key)
    it.turn_until(lambda: len(it.writer.snapshot.files) == 1, "eight files are one")
    it.apply(3, value=9)
    it.table.assert_equals_model(it.writer)
    it.table.assert_equals_model(it.table.open())
    assert it.runs(MaintenanceTask.COMPACTION) == 1
    assert it.metrics.maintenance_bytes.labels(*LABELS, "read")._value.get() > 0
    assert it.metrics.maintenance_seconds.labels(*LABELS, MaintenanceTask.COMPACTION)._value.get() > 0


def test_a_table_that_does_not_exist_needs_nothing(maintained):
    it = maintained()
    it.maintenance.turn()
    assert it.writer.version == -1


def test_checkpoints_come_every_so_many_commits(maintained):
    it = maintained(commits_a_checkpoint=10)
    for version in range(25):
        it.apply(0, value=version)
        it.turn_until(lambda: it.runs(MaintenanceTask.CHECKPOINT) == version // 10, "its checkpoint is written")  # noqa: B023
    names = sorted(path.name for path in Path(it.table.url, "_delta_log").glob("*.checkpoint.parquet"))
    assert names == ["00000000000000000010.checkpoint.parquet", "00000000000000000020.checkpoint.parquet"]


def test_a_rewrite_overtaken_by_another_is_dropped_and_counted(maintained):
    it = maintained()
    for key in range(8):
        it.apply(key)
    it.maintenance.turn()
    wait_until(lambda: it.maintenance._rewrite is not None, WAIT_S, "the files are rewritten")
    mine = it.maintenance._rewrite
    it.maintenance._rewrite = None
    it.writer.replace_files(mine)
    it.maintenance._rewrite = replace(mine, commit_id="another")
    it.maintenance.turn()
    assert it.runs(MaintenanceTask.COMPACTION, MaintenanceOutcome.ABORTED) == 1
    assert it.maintenance._rewrite is None
    it.table.assert_equals_model(it.writer)


def test_a_rewrite_waits_for_a_store_that_is_away(maintained, monkeypatch):
    it = maintained()
    for key in range(8):
        it.apply(key)
    it.maintenance.turn()
    wait_until(lambda: it.maintenance._rewrite is not None, WAIT_S, "the files are rewritten")
    real, failures = obstore.put, iter([OSError("away"), OSError("away")])

    def put(store, path, *args, **kwargs):
        if path.startswith("_delta_log/") and (failure := next(failures, None)):
            raise failure
        return real(store, path, *args, **kwargs)

    monkeypatch.setattr(obstore, "put", put)
    for _ in range(2):
        with pytest.raises(Transient):
            it.maintenance.turn()
    it.maintenance.turn()
    assert len(it.writer.snapshot.files) == 1
    it.table.assert_equals_model(it.writer)


def test_a_failure_is_counted_and_tried_again_later(maintained, monkeypatch):
    it = maintained()
    real = table_maintenance.rewrite_files

    def fail(*args):
        with store_errors("reading files"):
            raise OSError("the store is away")

    monkeypatch.setattr(table_maintenance, "rewrite_files", fail)
    for key in range(8):
        it.apply(key)
    failed = (MaintenanceTask.COMPACTION, MaintenanceOutcome.FAILED)
    it.turn_until(lambda: it.runs(*failed) == 1, "the failure is counted")
    wait_until(lambda: not it.maintenance._queued, WAIT_S, "the job is over")
    monkeypatch.setattr(table_maintenance, "rewrite_files", real)
    for key in range(8, 16):
        it.apply(key)
        it.maintenance.turn()
    assert not it.maintenance._queued
    assert it.runs(*failed) == 1, "not before a while has passed"
    it.now += table_maintenance.AFTER_FAILURE_S
    it.turn_until(lambda: it.runs(MaintenanceTask.COMPACTION) == 1, "it is tried again")


def test_vacuum_comes_at_its_time_and_tells_others_of_the_retention(maintained):
    it = maintained(first_vacuum_s=600.0, vacuum_every_s=86_400.0)
    for key in range(5):
        it.apply(0, value=key)
    it.maintenance.turn()
    assert len(list(Path(it.table.url).glob("*.parquet"))) == 5
    age_files(it)
    it.now = 600.0
    it.turn_until(lambda: it.runs(MaintenanceTask.VACUUM) == 1, "the table is vacuumed")
    assert len(list(Path(it.table.url).glob("*.parquet"))) == 1
    assert it.metrics.maintenance_deleted_files.labels(*LABELS, "data")._value.get() == 4
    assert it.writer.snapshot.metadata.configuration["delta.logRetentionDuration"] == "interval 0 days"
    it.now += 86_399.0
    it.maintenance.turn()
    assert not it.maintenance._queued


def test_what_a_library_quotes_is_not_in_the_log(maintained, monkeypatch):
    it = maintained()
    monkeypatch.setattr(table_maintenance, "rewrite_files", lambda *_: pa.array([1, "jane.doe@corp"], pa.int64()))
    with structlog.testing.capture_logs() as said:
        for key in range(8):
            it.apply(key)
        failed = (MaintenanceTask.COMPACTION, MaintenanceOutcome.FAILED)
        it.turn_until(lambda: it.runs(*failed) == 1, "the rewrite has failed")
    assert "jane.doe@corp" not in str(said)
    (line,) = [each for each in said if each["event"].startswith("maintenance failed")]
    assert line["reason"].startswith("unexpected ArrowInvalid at delta_writer.maintenance.table_maintenance:")


def test_a_vacuum_is_not_put_off_for_a_day_when_the_store_is_away_at_its_time(maintained, monkeypatch):
    it = maintained(first_vacuum_s=600.0, vacuum_every_s=86_400.0)
    it.apply(0)
    it.now = 600.0
    with monkeypatch.context() as patch:
        patch.setattr(it.writer, "set_properties", Mock(side_effect=Transient("away")))
        with pytest.raises(Transient):
            it.maintenance.turn()
    it.turn_until(lambda: it.runs(MaintenanceTask.VACUUM) == 1, "the table is vacuumed")


def test_the_retention_of_a_spec_needs_no_commit_when_the_table_says_it_already(maintained):
    it = maintained(retention=MaintenancePolicy.of(MaintenanceSpec()).retention, first_vacuum_s=0.0)
    it.apply(1)
    it.turn_until(lambda: it.runs(MaintenanceTask.VACUUM) == 1, "the table is vacuumed")
    assert it.writer.version == 0


def test_closing_ends_the_job_under_way_at_once_and_drops_the_queued(maintained, worker):
    it = maintained(cpu_share=1e-6)  # every step rests for hours
    blocked = threading.Event()
    for key in range(8):
        it.apply(key)
    it.maintenance.turn()
    wait_until(lambda: it.maintenance._running.locked(), WAIT_S, "the job is under way")
    worker.submit(Urgency.VACUUM, blocked.set)
    started = time.monotonic()
    it.maintenance.close()
    assert time.monotonic() - started < 2
    assert blocked.wait(WAIT_S), "the worker goes on with other tables"
    assert it.maintenance._rewrite is None
    assert it.runs(MaintenanceTask.COMPACTION, MaintenanceOutcome.FAILED) == 0


def test_closing_does_not_wait_for_ever_for_a_library(maintained, monkeypatch):
    it = maintained()
    go = threading.Event()
    monkeypatch.setattr(table_maintenance, "CLOSE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(table_maintenance, "rewrite_files", lambda *args: go.wait(WAIT_S))
    for key in range(8):
        it.apply(key)
    it.maintenance.turn()
    wait_until(lambda: it.maintenance._running.locked(), WAIT_S, "the job is under way")
    it.maintenance.close()
    assert it.maintenance._running.locked()
    go.set()


def test_a_copy_on_write_table_is_compacted_and_vacuumed_too(new_table, worker):
    """delta-rs commits there, in the worker's thread; a MERGE that it overtakes is done again."""
    it = Maintained(new_table("copy_on_write"), worker)
    for key in range(MIN_SMALL_FILES):
        it.apply(key)
    it.turn_until(lambda: it.runs(MaintenanceTask.COMPACTION) == 1, "the small files are one")
    it.turn_until(lambda: len(it.writer.snapshot.files) == 1, "the writer has seen it")
    it.apply(3, 100, value=7)
    it.table.assert_equals_model(it.writer)
    age_files(it)
    it.now = 1e9
    it.turn_until(lambda: it.runs(MaintenanceTask.VACUUM) == 1, "the table is vacuumed")
    on_disk = {path.name for path in Path(it.table.url).glob("*.parquet")}
    assert on_disk == set(it.writer.snapshot.files)
    it.table.assert_equals_model(it.writer)
    it.maintenance.close()


def test_files_rewritten_long_ago_are_not_committed_any_more(maintained, monkeypatch):
    """Attacks I10: the store took no commit for hours; another writer's vacuum may have come to these files."""
    it = maintained()
    for key in range(8):
        it.apply(key)
    with monkeypatch.context() as patch:
        patch.setattr(it.writer, "replace_files", Mock(side_effect=Transient("away")))

        def finished():
            with suppress(Transient):
                it.maintenance.turn()
            return it.maintenance._rewrite is not None

        wait_until(finished, WAIT_S, "the files are rewritten")
        it.wall_ahead_s = MAX_UPLOAD_AGE_S + 1
        it.maintenance.turn()
    assert it.runs(MaintenanceTask.COMPACTION, MaintenanceOutcome.ABORTED) == 1
    assert len(it.writer.snapshot.files) == 8


def test_a_merge_leaves_the_log_to_maintenance(new_table):
    """delta-rs would write a checkpoint and clean the log up in the commit's own time, by its own rules."""
    table = new_table("copy_on_write")
    writer = table.open()
    table.apply(writer, [(0, {"n": 0})])
    writer.set_properties({"delta.checkpointInterval": "1", "delta.logRetentionDuration": "interval 0 days"})
    table.apply(writer, [(0, {"n": 1})])
    writer.delete_where("n = 1", {}, "CDC SWEEP", "id")
    log = Path(table.url, "_delta_log")
    assert len(list(log.glob("*.json"))) == writer.version + 1
    assert not list(log.glob("*checkpoint*"))


def test_a_history_is_compacted_too_and_keeps_every_event(new_table, worker):
    table = new_table()
    current = table.open()
    table.apply(current, [(0, {"n": 0})])
    location = TableLocation(f"{table.url}__changes", open_store(f"{table.url}__changes", ObjectStoreSettings()), {})
    history = HistoryWriter(location, TableIdentity("p", "db", "things"), TOPIC, table.cache_dir / "history")
    history.follow(current.snapshot)
    it = Maintained(table, worker, history)
    for number in range(8):
        decoded = decode_events(read_events(table.batch([(1, {"n": number}), (2, None)])).events, history.schema)
        encoded = encode_batch(decoded, history.schema, history=True)
        table.committed = encoded.ranges[0].end
        history.commit(encoded)
    it.turn_until(lambda: len(history.snapshot.files) == 1, "eight files are one")
    rows = pa.table(QueryBuilder().register("t", DeltaTable(location.url)).execute("SELECT * FROM t").read_all())
    assert sorted(filter(lambda n: n is not None, rows["n"].to_pylist())) == list(range(8))
    assert rows["_cdc_op"].to_pylist().count("d") == 8
    it.maintenance.close()


def test_other_writers_commits_count_too(new_table, worker):
    """Also while the one that looks after the table commits nothing itself."""
    table = new_table()
    topic = ChangeTopic("p.db.things", "topic-id", 2)

    def open_writer(cache):
        location = TableLocation(table.url, table.store, {})
        return DeletionVectorWriter(location, TableIdentity("p", "db", "things"), topic, table.cache_dir / cache)

    it, other = Maintained(table, worker, open_writer("one")), open_writer("two")
    for key in range(8):
        table.apply(other, [(key, {"n": 0})])
    it.maintenance.turn()
    assert it.writer.version == -1
    it.now += table_maintenance.LOOK_AT_OTHERS_S
    it.turn_until(lambda: len(it.writer.snapshot.files) == 1, "the other's files are one")
    table.apply(other, [(3, {"n": 1})])
    table.assert_equals_model(other)
    it.maintenance.close()


def test_of_several_writers_the_one_with_partition_0_looks_after_a_table(new_table, worker):
    table = new_table()
    writer = table.open()
    tables = {
        "p.db.things": Table(
            Collection("db", "things"),
            Sink("things", writer, SchemaManager(writer, "things", EvolutionSpec(), SchemaCache())),
        )
    }
    chore = Maintenance("p", policy(), worker, WriterMetrics(CollectorRegistry()))
    for key in range(8):
        table.apply(writer, [(key, {"n": 0})])
    for _ in range(3):
        chore.turn(tables, [("p.db.things", 1)])
    assert not chore._tables

    def turn():
        chore.turn(tables, [("p.db.things", 0), ("p.db.things", 1)])
        return len(writer.snapshot.files) == 1

    wait_until(turn, WAIT_S, "eight files are one")
    reopened = table.open()
    tables["p.db.things"] = Table(
        Collection("db", "things"),
        Sink("things", reopened, SchemaManager(reopened, "things", EvolutionSpec(), SchemaCache())),
    )
    chore.turn(tables, [("p.db.things", 0)])
    assert [each.writer for each in chore._tables.values()] == [reopened]
    chore.turn(tables, [])
    assert not chore._tables
    chore.close()


def test_a_job_that_fails_unexpectedly_does_not_end_the_worker(worker):
    done = threading.Event()

    def fail():
        raise ZeroDivisionError

    worker.submit(Urgency.REWRITE, fail)
    worker.submit(Urgency.REWRITE, done.set)
    assert done.wait(WAIT_S)


def test_the_more_urgent_job_goes_first(worker):
    order, go, over = [], threading.Event(), threading.Event()
    worker.submit(Urgency.CHECKPOINT, lambda: go.wait(WAIT_S))
    worker.submit(Urgency.VACUUM, lambda: (order.append("vacuum"), over.set()))
    worker.submit(Urgency.REWRITE, lambda: order.append("compaction"))
    worker.submit(Urgency.CHECKPOINT, lambda: order.append("checkpoint"))
    go.set()
    assert over.wait(WAIT_S)
    assert order == ["checkpoint", "compaction", "vacuum"]


def test_vacuum_has_its_turn_where_something_to_rewrite_is_always_waiting(worker):
    """A busy table gives a rewrite and a checkpoint for each that is done."""
    vacuumed, over = threading.Event(), threading.Event()
    passed = []

    def rewrite():
        passed.append("rewrite")
        if not vacuumed.is_set() and len(passed) < 1_000:
            worker.submit(Urgency.REWRITE, rewrite)
            worker.submit(Urgency.CHECKPOINT, lambda: passed.append("checkpoint"))
        else:
            over.set()

    worker.submit(Urgency.REWRITE, rewrite)
    worker.submit(Urgency.VACUUM, vacuumed.set)
    assert over.wait(WAIT_S)
    assert len(passed) <= 2 * Urgency.VACUUM
