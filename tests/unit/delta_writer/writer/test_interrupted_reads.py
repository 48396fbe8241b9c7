"""The store fails between two reads of a writer that follows others: what was half taken in must not count as known."""

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from cdc_shared.delta.actions import AddFile
from cdc_shared.delta.key_hash import hash_keys
from cdc_shared.delta.log import LAST_CHECKPOINT_PATH, entry_path
from cdc_shared.delta.offsets import Fenced
from cdc_shared.errors import Transient
from delta_writer.writer.delta_writer import MAX_SNAPSHOT_AGE_S
from delta_writer.writer.file_changes import FileRewrite, RewrittenFile
from delta_writer.writer.index_run import MemoryRun
from delta_writer.writer.key_index import KeyIndex

pytestmark = pytest.mark.unit


class Clock:
    now = 1_700_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def table(new_table):
    return new_table()


@pytest.fixture
def writer(table, clock):
    """A writer with rows in one file, and its index open."""
    writer = table.open(clock)
    table.apply(writer, [(i, {"n": i}) for i in range(10)])
    return writer


def fail_once(monkeypatch, failing):
    """Make the first read of a path for which `failing` is true end as one that timed out does."""
    real, failed = obstore.get, []

    def get(store, path, **options):
        if not failed and failing(path):
            failed.append(path)
            raise obstore.exceptions.GenericError("operation timed out")
        return real(store, path, **options)

    monkeypatch.setattr(obstore, "get", get)
    return failed


def move_all_rows(other):
    """Commit a rewrite of the table's only file by another writer: every row lies in a new file then."""
    ((path, file),) = other.snapshot.files.items()
    rows = pq.read_table(pa.BufferReader(obstore.get(other.location.store, path).bytes()))
    moved = "part-moved.zstd.parquet"
    obstore.copy(other.location.store, path, moved)
    keys = MemoryRun.of_file(moved, hash_keys(rows.column("_cdc_key").to_pylist()))
    numbers, positions = np.zeros(len(rows), np.uint32), np.arange(len(rows), dtype=np.uint32)
    add = AddFile(moved, {}, file.size, 0, False, file.stats)
    other.replace_files(
        FileRewrite(other.version, {path: other.vectors.of(file)}, [RewrittenFile(add, keys, numbers, positions)], "id")
    )
    return moved


def test_the_index_does_not_count_as_following_when_the_next_entry_could_not_be_read(table, writer, monkeypatch):
    """Attacks I5 and I7: a look at the table beside the stream fails half-way, and a batch is committed after it."""
    move_all_rows(table.open())
    with monkeypatch.context() as patch:
        failed = fail_once(patch, lambda path: path == entry_path(2))
        with pytest.raises(Transient):
            writer.refresh()
        assert failed
        assert writer.version == 1
    table.apply(writer, [(3, {"n": 33})])
    table.assert_equals_model(writer)


@pytest.mark.parametrize("by", ["refresh", "reload"])
def test_the_index_does_not_count_as_following_when_keys_could_not_be_read(table, writer, monkeypatch, by):
    """Attacks I5 and I7: as above, with the keys of a file that another writer added."""
    moved = move_all_rows(table.open())
    with monkeypatch.context() as patch:
        failed = fail_once(patch, lambda path: path == moved)
        with pytest.raises(Transient):
            getattr(writer, by)()
        assert failed
    table.apply(writer, [(3, {"n": 33})])
    table.assert_equals_model(writer)


def test_a_look_that_finds_nothing_new_goes_through_no_files(table, writer, monkeypatch):
    looked_through, missing = [], KeyIndex.missing
    monkeypatch.setattr(KeyIndex, "missing", lambda index, paths: looked_through.append(paths) or missing(index, paths))
    for _ in range(3):
        writer.refresh()
    assert looked_through == []
    moved = move_all_rows(table.open())
    looked_through.clear()
    for _ in range(3):
        writer.refresh()
    assert looked_through == [[moved]]


def test_a_view_stays_too_old_when_it_could_not_be_renewed(table, writer, clock, monkeypatch):
    """Attacks I4: a process wakes up behind log clean-up, and its connections are as dead as its view is old."""
    stale = table.encode(writer, table.batch([(1, {"n": 99})]))
    table.next_offset, table.model = table.committed, {i: {"_id": i, "n": i} for i in range(10)}
    awake = table.open(clock)
    for number in range(3):
        table.apply(awake, [(1, {"n": number})])
    awake_version = awake.version
    checkpoint_and_clean_up(table, awake_version)
    clock.now += MAX_SNAPSHOT_AGE_S + 1
    with monkeypatch.context() as patch:
        failed = fail_once(patch, lambda path: path == LAST_CHECKPOINT_PATH)
        with pytest.raises(Transient):
            writer.commit(stale)
        assert failed
    with pytest.raises(Fenced):
        writer.commit(stale)
    table.assert_equals_model(table.open(clock))


def checkpoint_and_clean_up(table, version):
    """Have a checkpoint take the place of every entry before `version`."""
    DeltaTable(table.url).create_checkpoint()
    for each in range(version):
        table.store.delete(entry_path(each))
