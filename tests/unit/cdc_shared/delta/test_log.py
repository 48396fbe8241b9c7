"""The log: entries, checkpoints, and what happens when they are not whole."""

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from obstore.store import LocalStore, MemoryStore

from cdc_shared.delta.actions import Action, AddFile, Metadata, Protocol, RemoveFile, TableFormat, Transaction
from cdc_shared.delta.log import DeltaLog, VersionGone, VersionTaken, entry_path
from cdc_shared.errors import Fatal

pytestmark = pytest.mark.unit


def add(path: str) -> Action:
    return Action(add=AddFile(path, {}, 10, 0, True, '{"numRecords":1}'))


def test_entries_apply_in_order():
    log = DeltaLog(MemoryStore())
    metadata = Metadata("id", TableFormat("parquet", {}), "{}", [], {"a": "b"})
    log.append(0, [Action(protocol=Protocol(1, 2)), Action(meta_data=metadata), add("a"), add("b")])
    log.append(1, [Action(remove=RemoveFile("a", True)), add("c"), Action(txn=Transaction("app", 7))])
    snapshot = log.load()
    assert snapshot.version == 1
    assert sorted(snapshot.files) == ["b", "c"]
    assert snapshot.txns == {"app": 7}
    assert snapshot.metadata == metadata


def test_a_taken_version_is_refused_and_kept():
    log = DeltaLog(MemoryStore())
    log.append(0, [add("a")])
    with pytest.raises(VersionTaken):
        log.append(0, [add("b")])
    assert log.read_entry(0) == [add("a")]


def test_no_table_is_version_minus_one():
    snapshot = DeltaLog(MemoryStore()).load()
    assert (snapshot.version, snapshot.metadata) == (-1, None)


def test_a_gap_is_fatal():
    store = MemoryStore()
    log = DeltaLog(store)
    for version in range(3):
        log.append(version, [add(str(version))])
    store.delete(entry_path(1))
    with pytest.raises(Fatal, match=f"lacks {entry_path(1)}"):
        log.load()


def test_checkpoints_of_delta_rs_are_read(tmp_path):
    for i in range(4):
        write_deltalake(tmp_path, pa.table({"x": [i]}), mode="append")
    table = DeltaTable(tmp_path)
    table.create_checkpoint()
    write_deltalake(tmp_path, pa.table({"x": [9]}), mode="append")
    (tmp_path / entry_path(0)).unlink()
    snapshot = DeltaLog(LocalStore(tmp_path)).load()
    assert snapshot.version == 4
    assert sorted(snapshot.files) == sorted(uri.rpartition("/")[2] for uri in DeltaTable(tmp_path).file_uris())
    assert snapshot.metadata is not None
    assert snapshot.protocol is not None
    assert all(file.stats for file in snapshot.files.values())


def test_unknown_actions_are_left_alone():
    store = MemoryStore()
    store.put(entry_path(0), b'{"domainMetadata":{"domain":"d"}}\n{"cdc":{"path":"x"}}\n')
    assert DeltaLog(store).load().version == 0


@pytest.mark.parametrize("keep_entries_from", [0, 4])
def test_a_past_version_is_read_from_the_checkpoint_before_it(tmp_path, keep_entries_from):
    for i in range(8):
        write_deltalake(tmp_path, pa.table({"x": [i]}), mode="append")
        if i in (3, 6):
            DeltaTable(tmp_path).create_checkpoint()
    for version in range(keep_entries_from):
        (tmp_path / entry_path(version)).unlink()
    log = DeltaLog(LocalStore(tmp_path))
    for version in range(3, 8):
        snapshot = log.load_version(version)
        assert snapshot.version == version
        uris = DeltaTable(tmp_path, version).file_uris()
        assert sorted(snapshot.files) == sorted(uri.rpartition("/")[2] for uri in uris)


def test_a_version_that_the_log_does_not_lead_to_is_named(tmp_path):
    for i in range(6):
        write_deltalake(tmp_path, pa.table({"x": [i]}), mode="append")
        if i == 3:
            DeltaTable(tmp_path).create_checkpoint()
    for version in range(3):
        (tmp_path / entry_path(version)).unlink()
    log = DeltaLog(LocalStore(tmp_path))
    with pytest.raises(VersionGone, match=rf"version 2 cannot be read: {entry_path(0)}"):
        log.load_version(2)
    with pytest.raises(VersionGone, match="version 6 cannot be read"):
        log.load_version(6)


def test_half_a_checkpoint_is_passed_over():
    store = MemoryStore()
    log = DeltaLog(store)
    for version in range(3):
        log.append(version, [add(str(version))])
    store.put(f"_delta_log/{1:020d}.checkpoint.{1:010d}.{2:010d}.parquet", b"the first part of two")
    assert sorted(log.load_version(2).files) == ["0", "1", "2"]
