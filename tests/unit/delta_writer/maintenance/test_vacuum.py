"""Attacks I10: what is deleted is exactly what no retained version names.

Ages are made with `utime`: version v was committed at `v * MINUTE_S`, and what it brought was uploaded then.
"""

import math
import os
import threading
from contextlib import suppress
from pathlib import Path

import obstore
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder

from cdc_shared.delta.actions import Action, RemoveFile
from cdc_shared.delta.deletion_vector import vector_location
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.oldest_version import PATH, announce_oldest_version, oldest_version
from cdc_shared.delta.schema_history import read_schema_history
from cdc_shared.delta.table_metadata import restored_metadata
from delta_writer.maintenance.budget import Budget, Stopped
from delta_writer.maintenance.compactor import rewrite_files
from delta_writer.maintenance.retention import Retention, deletable_log, retained_log
from delta_writer.maintenance.vacuum import clean_up_log, vacuum

pytestmark = pytest.mark.unit

MINUTE_S = 60.0
BIRTH_S = 1_700_000_000.0
GRACE_S = 30.0


def free_budget(stop=None):
    return Budget(1.0, math.inf, stop or threading.Event())


class AgedTable:
    """A table whose files look as old as their versions."""

    def __init__(self, table):
        self.table = table
        self.writer = table.open()
        self.root = Path(table.url)
        self.store = table.store
        self.seen = set()

    def age(self):
        """Everything new since the last call is of the newest version."""
        at = BIRTH_S + max(0, self.writer.version) * MINUTE_S
        for path in self.root.rglob("*"):
            if path.is_file() and path not in self.seen:
                os.utime(path, (at, at))
                self.seen.add(path)

    def apply(self, changes):
        self.table.apply(self.writer, changes)
        self.age()

    def checkpoint(self):
        DeltaTable(self.table.url).create_checkpoint()
        self.age()

    def compact(self, rng):
        files = list(self.writer.snapshot.files.values())
        chosen = rng.sample(files, rng.randint(1, len(files)))
        schema, cache_dir = self.writer.snapshot.metadata.schema_string, self.writer.cache_dir
        rewrite = rewrite_files(self.store, self.writer.version, schema, chosen, free_budget(), cache_dir)
        self.writer.replace_files(rewrite)
        self.age()

    def retained(self, versions):
        """What is retained when only the newest `versions` are younger than the retention."""
        now = BIRTH_S + self.writer.version * MINUTE_S
        retention = Retention(versions * MINUTE_S, GRACE_S)
        return retained_log(self.store, retention, now), retention

    def sweep(self, versions, **options):
        """Vacuum and clean up; return what was kept from, and how many files of each kind went."""
        log, retention = self.retained(versions)
        deleted = vacuum(self.store, log, retention, free_budget(), **options).files
        return log, deleted | clean_up_log(self.store, log, free_budget(), **options).files

    def named_since(self, version):
        """Return every file that the version's state or a later entry names: the promise, word for word."""
        log = DeltaLog(self.store)
        named, files = set(), list(log.load_version(version).files.values())
        for later in range(version + 1, self.writer.version + 1):
            files += [action.add for action in log.read_entry(later) if action.add is not None]
        for file in files:
            named.add(file.path)
            if file.deletion_vector is not None:
                named.add(vector_location(file.deletion_vector)[0])
        return named

    def files(self):
        return {path.name for path in self.root.iterdir() if path.is_file()}

    def rows(self, version):
        table = DeltaTable(self.table.url, version)
        query = QueryBuilder().register("t", table).execute("SELECT * FROM t ORDER BY _cdc_key")
        return pa.table(query.read_all()).to_pylist()


@pytest.fixture
def aged(new_table):
    return AgedTable(new_table())


def random_changes(rng, keys=40):
    return [
        (rng.randrange(keys), None if rng.random() < 0.2 else {"n": rng.random()}) for _ in range(rng.randint(1, 12))
    ]


@pytest.mark.parametrize("round_", range(3))
def test_random_histories_keep_exactly_what_retained_versions_name(aged, rng, round_):
    """With rewrites, checkpoints at random, uploads never committed, and vacuums between."""
    versions = rng.randint(1, 20)
    memories, abandoned = {}, set()
    for _ in range(50):
        aged.apply(random_changes(rng))
        version = aged.writer.version
        if version < 0:
            continue
        if rng.random() < 0.25:
            aged.compact(rng)
            version = aged.writer.version
        if rng.random() < 0.3:
            aged.checkpoint()
        if rng.random() < 0.2:
            name = rng.choice(["part-{}.zstd.parquet", "deletion_vector_{}.bin"]).format(f"lost-{version}")
            (aged.root / name).write_bytes(b"lost")
            abandoned.add((version, name))
            aged.age()
        memories[version] = aged.rows(version) if rng.random() < 0.2 else None
        if rng.random() < 0.15:
            log, _ = aged.sweep(versions)
            named = aged.named_since(log.oldest)
            young = {name for at, name in abandoned if at >= log.oldest}
            assert aged.files() == named | young
            for known in sorted(memories):
                if known < log.oldest:
                    del memories[known]
                elif memories[known] is not None:
                    assert aged.rows(known) == memories[known]
    aged.table.assert_equals_model(aged.writer)
    aged.table.assert_equals_model(aged.table.open())


def test_the_version_in_force_when_the_retention_began_is_retained(aged):
    for key in range(30):
        aged.apply([(0, {"n": key})])
        if key % 10 == 0:
            aged.checkpoint()
    log, deleted = aged.sweep(9)  # versions 21 to 29 are younger; 20, which is a checkpoint too, was in force
    assert log.oldest == 20
    assert [row["n"] for row in aged.rows(20)] == [20]
    assert deleted == {"data": 20, "log": 22}
    aged.sweep(9)
    assert [row["n"] for row in aged.rows(20)] == [20]
    # 19 and the state at it are gone, but one that is read from an older checkpoint stays readable.
    log, _ = aged.sweep(5)
    assert (log.oldest, [row["n"] for row in aged.rows(24)]) == (24, [24])


def test_offsets_survive_log_clean_up_and_the_table_opens(aged):
    for key in range(25):
        aged.apply([(key, {"n": key})])
    aged.checkpoint()
    log, deleted = aged.sweep(0)
    assert log.oldest == 24
    assert deleted["log"] == 24
    assert sorted(path.name for path in (aged.root / "_delta_log").iterdir()) == [
        "00000000000000000024.checkpoint.parquet",
        "00000000000000000024.json",
        "_last_checkpoint",
    ]
    reopened = aged.table.open()
    assert reopened.next_offset(0, 0, 25) == 25
    aged.table.assert_equals_model(reopened)


def test_without_a_checkpoint_the_log_stays(aged):
    for key in range(10):
        aged.apply([(0, {"n": key})])
    _, deleted = aged.sweep(0)
    assert deleted == {"data": 9}
    assert DeltaTable(aged.table.url).version() == 9


def test_a_checkpoint_that_is_not_whole_is_not_relied_on(aged):
    for key in range(10):
        aged.apply([(0, {"n": key})])
        if key in (2, 9):
            aged.checkpoint()
    half = "00000000000000000005.checkpoint.0000000001.0000000002.parquet"
    (aged.root / "_delta_log" / half).write_bytes(b"one of two")
    aged.age()
    log, _ = aged.sweep(3)
    assert log.oldest == 6
    assert sorted(file.version for file in log.expired) == [0, 1]
    assert aged.rows(6)[0]["n"] == 6


def test_the_checkpoint_that_readers_begin_with_stays(aged):
    """A crash between a checkpoint and `_last_checkpoint` leaves the older one named."""
    for key in range(10):
        aged.apply([(0, {"n": key})])
    aged.checkpoint()
    last = aged.root / "_delta_log" / "_last_checkpoint"
    named = last.read_bytes()
    for key in range(10, 20):
        aged.apply([(0, {"n": key})])
    aged.checkpoint()
    last.unlink()
    aged.apply([(0, {"n": 20})])
    _, deleted = aged.sweep(0)
    assert "log" not in deleted, "without it, readers begin with the first entry"
    last.write_bytes(named)
    _, deleted = aged.sweep(0)
    assert deleted == {"log": 9}
    aged.table.assert_equals_model(aged.table.open())


def test_a_young_table_loses_nothing(aged):
    for key in range(5):
        aged.apply([(0, {"n": key})])
    log, deleted = aged.sweep(100)
    assert (log.oldest, deleted) == (0, {})
    assert [row["n"] for row in aged.rows(0)] == [0]


def test_an_upload_in_hand_is_not_touched_and_an_abandoned_one_goes(aged):
    aged.apply([(0, {"n": 0})])
    lost = aged.root / "part-lost.zstd.parquet"
    lost.write_bytes(b"lost")
    at = BIRTH_S + 5 * MINUTE_S - GRACE_S
    os.utime(lost, (at, at))
    aged.seen.add(lost)
    for key in range(5):
        aged.apply([(0, {"n": key})])
    aged.sweep(0)
    assert lost.exists(), "not older than the oldest retained version and the grace"
    aged.apply([(0, {"n": 6})])
    aged.sweep(0)
    assert not lost.exists()


def test_files_of_others_and_the_log_are_not_touched(aged):
    strangers = ["notes.txt", "part-1.csv", "sub/part-1.parquet", "_delta_log/part-1.parquet", "_index/x.bin"]
    for name in strangers:
        (aged.root / name).parent.mkdir(parents=True, exist_ok=True)
        (aged.root / name).write_bytes(b"theirs")
    aged.apply([(0, {"n": 0})])
    for key in range(5):
        aged.apply([(0, {"n": key})])
    aged.sweep(0)
    assert all((aged.root / name).exists() for name in strangers)


def test_the_history_of_the_schema_is_kept_by_every_vacuum(aged):
    """delta-rs's too: underscore directories are no data of the table's."""
    for n in range(4):
        aged.apply([(0, {f"field{number}": number for number in range(n + 1)})])
    history = read_schema_history(aged.store)
    aged.sweep(0)
    for full in (False, True):
        DeltaTable(aged.table.url).vacuum(0, enforce_retention_duration=False, dry_run=False, full=full)
    assert read_schema_history(aged.store) == history
    assert [change.version for change in history] == [1, 2, 3, 4]


def test_what_a_restore_brought_back_is_kept_while_a_version_names_it(aged):
    """The restored file is older than the oldest retained version, not in its state, and not in the newest."""
    aged.apply([(0, {"n": 0})])
    (first,) = aged.writer.snapshot.files
    for key in range(1, 20):
        aged.apply([(0, {"n": key})])
    then = DeltaLog(aged.store).load_version(0)
    restore_as_version_20(aged, then)
    for key in range(21, 25):
        aged.apply([(0, {"n": key})])
    assert first not in aged.writer.snapshot.files
    log, _ = aged.sweep(10)
    assert log.oldest == 14
    assert first in aged.files()
    assert [row["n"] for row in aged.rows(20)] == [0]
    log, _ = aged.sweep(3)
    assert log.oldest == 21
    assert first not in aged.files()


def restore_as_version_20(aged, then):

    now = aged.writer.snapshot
    (live,) = now.files.values()
    actions = [
        Action(commit_info={"operation": "RESTORE", "engineInfo": "cdc-delta-writer", "txnId": "r"}),
        Action(meta_data=restored_metadata(then.metadata, now.metadata, "r")),
        Action(remove=RemoveFile(live.path, True, 0, True, {}, live.size)),
        *(Action(add=file) for file in then.files.values()),
    ]
    DeltaLog(aged.store).append(20, actions)
    aged.writer.reload()
    aged.age()


def test_a_dry_run_counts_and_deletes_nothing(aged):
    aged.apply([(key, {"n": key}) for key in range(20)])
    for key in range(10):
        aged.apply([(key, {"n": 0})])
        aged.apply([(key, {"n": 1})])
    aged.checkpoint()
    before = aged.files()
    _, counted = aged.sweep(0, dry_run=True)
    assert aged.files() == before
    _, deleted = aged.sweep(0)
    assert counted == deleted
    assert min(counted[kind] for kind in ("data", "deletion_vector", "log")) > 5


def test_what_another_vacuum_deleted_first_is_no_error(aged, monkeypatch):
    for key in range(10):
        aged.apply([(0, {"n": key})])
    real = obstore.delete

    def delete(store, paths):
        if isinstance(paths, list):
            with suppress(FileNotFoundError):
                real(store, paths[::2])
        real(store, paths)

    monkeypatch.setattr(obstore, "delete", delete)
    _, deleted = aged.sweep(0)
    assert deleted == {"data": 9}
    assert len(aged.files()) == 1


def test_it_stops_at_the_next_step(aged):
    for key in range(10):
        aged.apply([(0, {"n": key})])
    stop = threading.Event()
    stop.set()
    log, retention = aged.retained(0)
    before = aged.files()
    with pytest.raises(Stopped):
        vacuum(aged.store, log, retention, free_budget(stop))
    assert aged.files() == before


def test_no_log_is_nothing_to_do(new_table):
    assert retained_log(new_table().store, Retention(0), BIRTH_S) is None


def test_what_is_to_go_is_announced_first_and_goes_when_its_readers_are_done(aged):
    """Whoever began to read a version before it was announced as gone can read it for the whole of the grace."""
    for key in range(30):
        aged.apply([(0, {"n": key})])
        if key % 10 == 0:
            aged.checkpoint()
    now = BIRTH_S + 29 * MINUTE_S
    marker = aged.root / PATH

    def deletable(at, versions):
        return deletable_log(aged.store, Retention(versions * MINUTE_S, GRACE_S, readers_grace_s=600.0), at)

    assert DeltaLog(aged.store).readable_versions() == range(30)
    assert deletable(now, 9) is None
    os.utime(marker, (now, now))
    assert DeltaLog(aged.store).readable_versions() == range(20, 30)
    assert [row["n"] for row in aged.rows(13)] == [13], "its files are still there"
    assert deletable(now + 599, 9) is None
    log = deletable(now + 600, 2)
    os.utime(marker, (now + 600, now + 600))
    assert log.oldest == 20, "what was announced, not what has expired since"
    assert DeltaLog(aged.store).readable_versions() == range(29, 30)
    assert vacuum(aged.store, log, Retention(0, GRACE_S), free_budget()).files == {"data": 20}
    assert [row["n"] for row in aged.rows(20)] == [20]
    assert deletable(now + 1200, 2).oldest == 29


def test_an_announcement_is_never_taken_back_and_none_of_another_table_counts(aged):
    for key in range(5):
        aged.apply([(0, {"n": key})])
    announce_oldest_version(aged.store, 3)
    announce_oldest_version(aged.store, 2)
    assert oldest_version(aged.store).version == 3
    assert DeltaLog(aged.store).readable_versions() == range(3, 5)
    announce_oldest_version(aged.store, 900)
    assert DeltaLog(aged.store).readable_versions() == range(5)
