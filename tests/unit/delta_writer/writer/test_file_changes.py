"""Commits that are no batches: rows deleted that were found before, files rewritten as of an older version."""

import json
import time
import uuid
from dataclasses import replace
from unittest.mock import Mock

import msgspec
import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyroaring import BitMap

from cdc_shared.delta.actions import AddFile
from cdc_shared.delta.key_hash import hash_keys
from cdc_shared.delta.table_metadata import TableIdentity
from cdc_shared.errors import Transient
from delta_writer.maintenance.restore import TableRestore
from delta_writer.maintenance.rewrite_plan import FileShape
from delta_writer.writer.file_changes import FileRewrite, RewrittenFile, RowDeletion, RowsMoved
from delta_writer.writer.index_run import MemoryRun
from delta_writer.writer.key_index import KeyIndex
from delta_writer.writer.parquet_file import encode_data_file

pytestmark = pytest.mark.unit


def rewrite_of(writer):
    """Return a rewrite of all files of the table into one, as of now."""
    inputs, tables, numbers, positions = {}, [], [], []
    for number, (path, file) in enumerate(writer.snapshot.files.items()):
        inputs[path] = writer.vectors.of(file)
        table = pq.read_table(pa.BufferReader(obstore.get(writer.location.store, path).bytes()))
        live = np.setdiff1d(np.arange(table.num_rows), inputs[path].to_array())
        tables.append(table.take(live))
        numbers.append(np.full(len(live), number, np.uint32))
        positions.append(live.astype(np.uint32))
    rows = pa.concat_tables(tables)
    file = encode_data_file(rows)
    path = f"part-{uuid.uuid4()}.zstd.parquet"
    obstore.put(writer.location.store, path, bytes(file.body))
    add = AddFile(path, {}, file.body.size, 0, False, file.stats)
    keys = MemoryRun.of_file(path, hash_keys(rows.column("_cdc_key").to_pylist()))
    output = RewrittenFile(add, keys, np.concatenate(numbers), np.concatenate(positions))
    return FileRewrite(writer.version, inputs, [output], str(uuid.uuid4()))


def deletion_of(writer, *keys, txns=None):
    """Return the deletion of the rows of the keys, as of now."""
    found = {}
    for path, file in writer.snapshot.files.items():
        table = pq.read_table(pa.BufferReader(obstore.get(writer.location.store, path).bytes()), columns=["_cdc_key"])
        rows = [i for i, key in enumerate(table.column(0).to_pylist()) if int(key) in keys]
        if live := BitMap(rows) - writer.vectors.of(file):
            found[path] = live
    return RowDeletion(writer.version, found, txns or {}, "CDC SWEEP", str(uuid.uuid4()))


@pytest.fixture
def table(new_table):
    return new_table()


@pytest.fixture
def writer(table):
    writer = table.open()
    for start in range(0, 40, 10):
        table.apply(writer, [(i, {"n": i}) for i in range(start, start + 10)])
    table.apply(writer, [(3, {"n": -3}), (14, None)])
    return writer


def test_a_rewrite_carries_over_what_changed_meanwhile(table, writer):
    """Attacks I8: rows deleted since the inputs were read stay deleted, also those of an input that is gone."""
    rewrite = rewrite_of(writer)
    table.apply(writer, [(i, {"n": i + 100}) for i in range(20, 30)])  # no row is left of an input
    table.apply(writer, [(1, None), (3, {"n": 33}), (50, {"n": 50})])
    assert writer.replace_files(rewrite).files_swapped == 3
    table.assert_equals_model(writer)
    assert len(writer.snapshot.files) == 3
    table.apply(writer, [(1, {"n": 11}), (3, None), (35, {"n": 350}), (21, None)])
    table.assert_equals_model(writer)
    table.assert_equals_model(table.open())


def test_a_rewrite_forgets_no_file_that_the_index_still_lacks(table, writer, monkeypatch):
    """Attacks I7: a batch landed, the index did not hear of it, and a rewrite is committed before the batch's retry."""
    rewrite = rewrite_of(writer)
    records = table.batch([(1, {"n": 100}), (60, {"n": 60})])
    batch = table.encode(writer, records)
    with monkeypatch.context() as patch:
        patch.setattr(KeyIndex, "add_run", Mock(side_effect=OSError("disk")))
        with pytest.raises(Transient):
            writer.commit(batch)
    assert writer.replace_files(rewrite)
    assert writer.commit(batch)
    table.committed = records.ranges[0].end
    table.apply(writer, [(1, {"n": 101}), (60, {"n": 61}), (2, None)])
    table.assert_equals_model(writer)


def test_a_second_rewrite_of_the_same_files_is_refused(table, writer):
    first, second = rewrite_of(writer), rewrite_of(writer)
    writer.replace_files(first)
    with pytest.raises(RowsMoved, match="was rewritten"):
        writer.replace_files(second)
    table.assert_equals_model(writer)


def test_a_rewrite_after_a_reload_is_refused_when_an_input_is_gone(table, writer):
    """What removed it is no longer known: it may have been another rewrite."""
    rewrite = rewrite_of(writer)
    table.apply(writer, [(i, {"n": i + 100}) for i in range(20, 30)])
    writer.reload()
    with pytest.raises(RowsMoved):
        writer.replace_files(rewrite)


def test_a_rewrite_from_before_a_restore_is_refused(table, writer):
    """Attacks I8: rows that were deleted when the inputs were read, and so are in no output, have come back."""
    rewrite = rewrite_of(writer)
    restore = TableRestore(writer.location, TableIdentity("p", "db", "things"), writer.topic, table.mode, time.time)
    restore.apply(restore.plan(writer.version - 1, lambda _: (0, table.next_offset)))
    table.model |= {key: {"_id": key, "n": key} for key in (3, 14)}
    with pytest.raises(RowsMoved, match="restored"):
        writer.replace_files(rewrite)
    table.assert_equals_model(writer)


def test_rows_found_before_a_restore_must_be_found_again(table, writer):
    """Attacks I9: with a sweep's last rows its mark is set, but rows that it deleted before have come back."""
    deletion = deletion_of(writer, 1, txns={"cdc-swept:x:0": 7})
    restore = TableRestore(writer.location, TableIdentity("p", "db", "things"), writer.topic, table.mode, time.time)
    restore.apply(restore.plan(writer.version - 1, lambda _: (0, table.next_offset)))
    table.model |= {key: {"_id": key, "n": key} for key in (3, 14)}
    with pytest.raises(RowsMoved, match="restored"):
        writer.delete_rows(deletion)
    assert "cdc-swept:x:0" not in writer.snapshot.txns
    table.assert_equals_model(writer)


@pytest.mark.parametrize("stats", [None, "{}", '{"nullCount":{}}'])
def test_files_that_another_program_moved_without_counting_their_rows(table, writer, stats):
    """Attacks I5: rows of such files are superseded, all too, and the entry then says how many rows there are."""
    rewrite = rewrite_of(writer)
    (output,) = rewrite.outputs
    uncounted = replace(output, add=msgspec.structs.replace(output.add, stats=stats))
    writer.replace_files(replace(rewrite, outputs=[uncounted]))
    rows = len(table.model)
    assert FileShape.of(writer.snapshot.files[output.add.path]) is None
    table.apply(writer, [(5, {"n": 55})])
    table.assert_equals_model(writer)
    file = writer.snapshot.files[output.add.path]
    assert json.loads(file.stats)["numRecords"] == rows
    assert (FileShape.of(file).rows, FileShape.of(file).dead) == (rows, 1)
    table.apply(writer, [(key, None) for key in range(40)])
    assert output.add.path not in writer.snapshot.files
    table.assert_equals_model(table.open())


def test_nothing_is_written_when_every_input_is_gone(table, writer):
    rewrite = rewrite_of(writer)
    table.apply(writer, [(i, None) for i in range(40)])
    version = writer.version
    assert writer.replace_files(rewrite) is None
    assert writer.version == version
    table.assert_equals_model(writer)


def test_two_writers_rewrite_and_commit_at_once(table, writer):
    """Attacks I4 and I8: a rewrite is planned anew on what another writer has committed."""
    other = table.open()
    rewrite = rewrite_of(other)
    table.apply(writer, [(5, {"n": 55}), (6, None)])
    assert other.replace_files(rewrite).conflicts == 1
    table.assert_equals_model(other)
    table.apply(writer, [(5, {"n": 56}), (7, {"n": 77})])
    table.assert_equals_model(writer)


def test_rows_found_before_are_deleted_once(table, writer):
    deletion = deletion_of(writer, 1, 2, 3, txns={"cdc-swept:x:0": 7})
    table.apply(writer, [(2, {"n": 22}), (3, None)])
    assert writer.delete_rows(deletion).rows_removed == 1
    del table.model[1]
    table.assert_equals_model(writer)
    assert writer.snapshot.txns["cdc-swept:x:0"] == 7
    assert writer.delete_rows(deletion) is None
    lower = deletion_of(writer, txns={"cdc-swept:x:0": 6})
    assert writer.delete_rows(lower) is None
    assert writer.snapshot.txns["cdc-swept:x:0"] == 7


def test_rows_that_were_moved_must_be_found_again(table, writer):
    deletion = deletion_of(writer, 1)
    writer.replace_files(rewrite_of(writer))
    with pytest.raises(RowsMoved):
        writer.delete_rows(deletion)
    table.assert_equals_model(writer)


@pytest.mark.parametrize("happened", [True, False])
def test_a_put_that_seems_to_fail_is_repeated_only_when_it_did(table, writer, monkeypatch, happened):
    """Attacks I3, with a batch of its own between the two tries."""
    real, failures = obstore.put, iter([TimeoutError("no answer")])

    def put(store, path, *args, **kwargs):
        if path.startswith("_delta_log/") and (failure := next(failures, None)):
            if happened:
                real(store, path, *args, **kwargs)
            raise OSError from failure
        return real(store, path, *args, **kwargs)

    rewrite = rewrite_of(writer)
    monkeypatch.setattr(obstore, "put", put)
    with pytest.raises(Exception, match="committing to"):
        writer.replace_files(rewrite)
    table.apply(writer, [(5, {"n": 55})])
    writer.replace_files(rewrite)
    table.assert_equals_model(writer)
    assert len(writer.snapshot.files) == 2
