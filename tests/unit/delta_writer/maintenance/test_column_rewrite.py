"""A table rewritten in other columns, step by step, while it is written, compacted, swept and restored."""

import random
import threading
import time
import uuid
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, QueryBuilder

from cdc_shared.delta.schema_history import SchemaCause, SchemaOperation
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import TableIdentity, schema_of, with_schema
from cdc_shared.documents import DocumentSchema, parquet_schema
from cdc_shared.documents import types as t
from cdc_shared.metrics.prometheus_metrics import MaintenanceTask
from delta_writer.maintenance import column_rewrite
from delta_writer.maintenance.budget import Budget
from delta_writer.maintenance.column_rewrite import ColumnRewrite
from delta_writer.maintenance.compactor import rewrite_files
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.delta_writer import SchemaMoved
from delta_writer.writer.file_changes import Overtaken, RowsMoved

pytestmark = pytest.mark.unit


class Widening:
    """The column `n` from long to double."""

    task = MaintenanceTask.PROMOTION
    operation = "CDC PROMOTE"

    def schema(self, now):
        fields = schema_of(now).fields
        if all(field.type != t.LONG for field in fields if field.name == "n"):
            raise Overtaken("n is no long")
        return DocumentSchema(tuple(replace(f, type=t.DOUBLE) if f.name == "n" else f for f in fields))

    def metadata(self, now, version):
        return with_schema(now, self.schema(now))

    def cause(self, commit_id, at_ms):
        return SchemaCause(SchemaOperation.PROMOTED, commit_id, at_ms)

    def conversion(self, now):
        return Cast(parquet_schema(self.schema(now)))


class Cast:
    def __init__(self, schema):
        self.schema = schema

    def convert(self, rows):
        return pa.Table.from_arrays(
            [pc.cast(rows.column(field.name), field.type) for field in self.schema], schema=self.schema
        )


def free():
    return Budget(1.0, 1e12, threading.Event())


def finish(rewrite):
    """Run steps until it is committed."""
    steps = 0
    while (job := rewrite.step()) is not None:
        job(free())
        steps += 1
    rewrite.close()
    return steps


@pytest.fixture
def table(new_table):
    return new_table()


@pytest.fixture
def writer(table):
    writer = table.open()
    for start in range(0, 40, 10):
        table.apply(writer, [(i, {"n": i, "text": "x" * 100}) for i in range(start, start + 10)])
    table.apply(writer, [(3, {"n": -3}), (14, None)])
    yield writer
    writer.close()


@pytest.fixture
def nothing_late(monkeypatch):
    """Everything is rewritten beside the stream."""
    monkeypatch.setattr(column_rewrite, "MAX_LATE_ROWS", 0)


def rewriting(writer, target_bytes=1):
    """One file a step."""
    return ColumnRewrite(writer, Widening(), target_bytes, 1e9)


def column_type(writer):
    return next(field.type for field in writer.schema.fields if field.name == "n")


def rows_at(url, version):
    rows = (
        QueryBuilder().register("t", DeltaTable(url, version)).execute("SELECT * FROM t ORDER BY _cdc_key").read_all()
    )
    return pa.table(rows)


def test_small_tables_are_rewritten_by_the_commit_alone(table, writer):
    assert finish(rewriting(writer)) == 0
    assert column_type(writer) == t.DOUBLE
    table.assert_equals_model(writer)


def test_every_version_is_read_with_its_own_columns(table, writer, nothing_late):
    before, version = rows_at(table.url, writer.version), writer.version
    assert finish(rewriting(writer)) == 5
    after = rows_at(table.url, writer.version)
    assert rows_at(table.url, version).equals(before)
    assert (before["n"].type, after["n"].type) == (pa.int64(), pa.float64())
    assert after["n"].to_pylist() == before["n"].to_pylist()
    assert not list(writer.cache_dir.glob("rewrites/*"))


def test_changes_meanwhile_are_carried_over(table, writer, nothing_late):
    """Attacks I5, I7, I8: rows of files that were rewritten are superseded, deleted, and rewritten once more."""
    rewrite = rewriting(writer)
    for i in range(4):
        rewrite.step()(free())
        table.apply(writer, [(i, {"n": 1000 + i}), (10 + i, None), (100 + i, {"n": i}), (39, {"n": i})])
    table.apply(writer, [(i, {"n": i}) for i in range(20, 30)])  # no row is left of a file
    assert column_type(writer) == t.LONG
    finish(rewrite)
    assert column_type(writer) == t.DOUBLE
    table.assert_equals_model(writer)
    table.apply(writer, [(i, {"n": 0.5}) for i in range(0, 120, 3)] + [(1, None)])
    table.assert_equals_model(writer)
    table.assert_equals_model(table.open())


def test_the_index_knows_the_new_files_before_the_commit(table, writer, nothing_late, monkeypatch):
    rewrite = rewriting(writer)
    while (job := rewrite.step()) is not None and len(rewrite._rewrite.left(writer.snapshot.files)) > 1:
        job(free())
    job(free())
    monkeypatch.setattr(writer, "_read_key_hashes", None)  # nothing is read from the store
    assert rewrite.step() is None
    table.apply(writer, [(5, {"n": 5.5}), (35, None)])
    table.assert_equals_model(writer)


def test_a_batch_in_hand_is_encoded_again(table, writer):
    """Attacks I14."""
    records = table.batch([(1, {"n": 7}), (2, None)])
    batch = table.encode(writer, records)
    finish(rewriting(writer))
    with pytest.raises(SchemaMoved):
        writer.commit(batch)
    table.commit(writer, records)
    table.assert_equals_model(writer)


def test_fields_that_come_meanwhile_stay(table, writer, nothing_late):
    rewrite = rewriting(writer)
    rewrite.step()(free())
    table.apply(writer, [(50, {"n": 1, "new": {"deep": "x"}})])
    finish(rewrite)
    assert [field.name for field in writer.schema.fields] == ["_id", "n", "text", "new"]
    table.assert_equals_model(writer)


def test_a_compaction_meanwhile_makes_nothing_start_again(table, writer, nothing_late):
    """What it moved out of files that were rewritten is rewritten where it lies now."""
    rewrite = rewriting(writer)
    for _ in range(3):
        rewrite.step()(free())
    files = list(writer.snapshot.files.values())
    schema = writer.snapshot.metadata.schema_string
    compacted = rewrite_files(writer.location.store, writer.version, schema, files[1:4], free(), writer.cache_dir)
    writer.replace_files(compacted)
    table.apply(writer, [(i, {"n": -i}) for i in range(8, 24, 3)])
    finish(rewrite)
    table.assert_equals_model(writer)
    table.apply(writer, [(i, {"n": i}) for i in range(0, 40, 4)])
    table.assert_equals_model(writer)


def test_a_compaction_of_the_old_columns_comes_too_late(table, writer):
    files = list(writer.snapshot.files.values())
    schema = writer.snapshot.metadata.schema_string
    compacted = rewrite_files(writer.location.store, writer.version, schema, files[:2], free(), writer.cache_dir)
    finish(rewriting(writer))
    with pytest.raises(RowsMoved):
        writer.replace_files(compacted)


def test_another_change_of_the_column_ends_it(table, writer, nothing_late):
    rewrite = rewriting(writer)
    rewrite.step()(free())
    finish(rewriting(writer))
    with pytest.raises(Overtaken):
        rewrite.step()
    rewrite.close()
    table.assert_equals_model(writer)


def test_two_writers(table, writer, nothing_late):
    """Attacks I5, I7, I14: the other one's rows are in the table when it is rewritten, and its index follows."""
    location = TableLocation(table.url, table.store, {})
    other = DeletionVectorWriter(location, TableIdentity("p", "db", "things"), writer.topic, writer.cache_dir)
    rewrite = rewriting(writer)
    table.apply(other, [(1, {"n": 11}), (60, {"n": 60})])
    rewrite.step()(free())
    records = table.batch([(2, {"n": 22}), (61, {"n": 61}), (12, None)])
    batch = table.encode(other, records)
    finish(rewrite)
    with pytest.raises(SchemaMoved):
        other.commit(batch)
    table.commit(other, records)
    writer.refresh()
    table.apply(writer, [(60, {"n": 0.25}), (13, None)])
    table.assert_equals_model(writer)
    table.assert_equals_model(other)
    other.close()


def test_too_much_left_goes_back_to_the_background(table, writer, monkeypatch):
    """Another writer commits many rows between the look and the commit."""
    location = TableLocation(table.url, table.store, {})
    other = DeletionVectorWriter(location, TableIdentity("p", "db", "things"), writer.topic, writer.cache_dir)
    monkeypatch.setattr(column_rewrite, "MAX_LATE_ROWS", 50)
    rewrite = rewriting(writer)
    table.apply(other, [(i, {"n": i}) for i in range(100, 180)])
    assert finish(rewrite) > 0
    table.assert_equals_model(writer)
    other.close()


def test_old_uploads_are_made_again(table, writer, nothing_late):
    now = [time.time()]
    rewrite = ColumnRewrite(writer, Widening(), 1, 3600.0, lambda: now[0])
    for _ in range(3):
        rewrite.step()(free())
    now[0] += 7200
    assert finish(rewrite) == 5
    table.assert_equals_model(writer)


def test_abandoned_it_leaves_nothing_but_uploads(table, writer, nothing_late):
    rewrite = rewriting(writer)
    rewrite.step()(free())
    rewrite.step()
    version = writer.version
    rewrite.close()
    assert not list(writer.cache_dir.glob("rewrites/*"))
    table.apply(writer, [(i, {"n": -i}) for i in range(20)])
    assert writer.version == version + 1
    finish(rewriting(writer))
    table.assert_equals_model(writer)


@pytest.mark.parametrize("_", range(6))
def test_random_interleavings(table, writer, nothing_late, monkeypatch, _):
    """Attacks I5, I7, I8: batches, compactions and steps in any order, with the late limit at any height."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    monkeypatch.setattr(column_rewrite, "MAX_LATE_ROWS", rng.choice([0, 5, 40]))
    rewrite = rewriting(writer, rng.choice([1, 2000, 10**6]))
    job, done = rewrite.step(), False
    for _ in range(30):
        action = rng.choice(["batch", "batch", "step", "compaction"])
        if action == "batch":
            table.apply(
                writer,
                [(rng.randrange(50), rng.choice([None, {"n": rng.randrange(99)}])) for _ in range(rng.randrange(1, 6))],
            )
        elif action == "step" and not done:
            if job is not None:
                job(free())
            job = rewrite.step()
            done = job is None
        elif action == "compaction" and len(writer.snapshot.files) > 2:
            files = rng.sample(list(writer.snapshot.files.values()), 2)
            schema = writer.snapshot.metadata.schema_string
            part = rewrite_files(writer.location.store, writer.version, schema, files, free(), writer.cache_dir)
            writer.replace_files(replace(part, commit_id=str(uuid.uuid4())))
    if not done:
        if job is not None:
            job(free())
        finish(rewrite)
    assert column_type(writer) == t.DOUBLE
    table.assert_equals_model(writer)
    table.apply(writer, [(i, {"n": i}) for i in range(0, 50, 3)])
    table.assert_equals_model(writer)
    table.assert_equals_model(table.open())
