"""Attacks I8: rewritten files hold the rows that lived, in the table's columns, whatever happens beside."""

import json
import math
import threading

import pyarrow.parquet as pq
import pytest

from delta_writer.maintenance import compactor
from delta_writer.maintenance.budget import Budget, Stopped
from delta_writer.maintenance.compactor import rewrite_files
from delta_writer.maintenance.rewrite_plan import FileShape, choose_files
from delta_writer.writer import parquet_file
from delta_writer.writer.file_changes import RowsMoved

pytestmark = pytest.mark.unit


def free_budget(stop=None):
    return Budget(1.0, math.inf, stop or threading.Event())


def rewrite(writer, files=None, budget=None):
    """Rewrite the files (all, unless given) as of now; nothing is committed."""
    files = list(writer.snapshot.files.values()) if files is None else files
    schema = writer.snapshot.metadata.schema_string
    budget = budget or free_budget()
    return rewrite_files(writer.location.store, writer.version, schema, files, budget, writer.cache_dir)


def documents(rng, count=12, keys=60):
    """Random changes, with fields that come and go, nested ones too."""
    changes = []
    for _ in range(count):
        document = {"n": rng.randrange(100)}
        if rng.random() < 0.5:
            document["sub"] = {rng.choice("abcd"): rng.random(), "l": [{rng.choice("xy"): "t"}]}
        if rng.random() < 0.3:
            document[f"late{rng.randrange(6)}"] = rng.choice(["text", "more"])
        changes.append((rng.randrange(keys), None if rng.random() < 0.25 else document))
    return changes


@pytest.mark.parametrize("round_", range(3))
def test_random_histories_with_rewrites_at_random_moments(new_table, rng, round_):
    """Batches go on between the reading and the commit of a rewrite; fields are added meanwhile."""
    table = new_table()
    writer = table.open()
    pending = None
    landed = 0
    for _ in range(40):
        table.apply(writer, documents(rng))
        if pending is None and writer.version >= 0 and rng.random() < 0.5:
            files = list(writer.snapshot.files.values())
            pending = rewrite(writer, rng.sample(files, rng.randint(1, len(files))))
        elif pending is not None and rng.random() < 0.4:
            landed += writer.replace_files(pending) is not None
            pending = None
            table.assert_equals_model(writer)
        if rng.random() < 0.05:
            writer.close()
            writer, pending = table.open(), None
    assert landed > 3
    table.assert_equals_model(writer)
    table.assert_equals_model(table.open())


def test_columns_and_nested_fields_that_came_later_are_null(new_table):
    table = new_table()
    writer = table.open()
    table.apply(writer, [(1, {"n": 1, "sub": {"a": 1}, "l": [{"p": 1}, None]}), (2, {"n": 2})])
    table.apply(writer, [(3, {"new": "x", "sub": {"b": {"deep": True}}, "l": [{"q": "y"}]})])
    writer.replace_files(rewrite(writer))
    (file,) = writer.snapshot.files.values()
    columns = {field["name"] for field in json.loads(writer.snapshot.metadata.schema_string)["fields"]}
    assert set(pq.read_schema(f"{table.url}/{file.path}").names) == columns
    table.assert_equals_model(writer)


def test_a_schema_widened_between_reading_and_commit(new_table):
    table = new_table()
    writer = table.open()
    for key in range(4):
        table.apply(writer, [(key, {"sub": {"a": key}})])
    pending = rewrite(writer)
    table.apply(writer, [(9, {"sub": {"b": "new"}, "top": 1.5})])
    writer.replace_files(pending)
    table.apply(writer, [(0, {"sub": {"a": 7, "b": "changed"}})])
    table.assert_equals_model(writer)


def test_inputs_without_a_live_row_go_and_nothing_comes(new_table):
    table = new_table()
    writer = table.open()
    table.apply(writer, [(key, {"n": key}) for key in range(8)])
    pending = rewrite(writer)
    table.apply(writer, [(key, None) for key in range(4)])
    table.apply(writer, [(20, {"n": 20})])
    table.apply(writer, [(key, None) for key in range(4, 8)])
    assert writer.replace_files(pending) is None
    table.assert_equals_model(writer)


def test_a_rewrite_of_files_that_another_one_moved_is_dropped(new_table):
    table = new_table()
    writer = table.open()
    for key in range(4):
        table.apply(writer, [(key, {"n": key})])
    first, second = rewrite(writer), rewrite(writer)
    writer.replace_files(first)
    with pytest.raises(RowsMoved):
        writer.replace_files(second)
    table.assert_equals_model(writer)


def test_statistics_leave_out_what_cannot_be_said(new_table):
    """A file that holds NaN must not claim a highest value: readers would skip it."""
    table = new_table()
    writer = table.open()
    table.apply(writer, [(1, {"x": 1.5, "sub": {"y": 2.5}})])
    (file,) = writer.snapshot.files.values()
    schema = writer.snapshot.metadata.schema_string
    path = f"{table.url}/{file.path}"
    rows = pq.read_table(path)
    at = rows.column_names.index("x")
    pq.write_table(rows.set_column(at, "x", [[math.nan]]), path)
    rewritten = rewrite_files(writer.location.store, 0, schema, [file], free_budget(), writer.cache_dir)
    stats = json.loads(rewritten.outputs[0].add.stats)
    assert stats["numRecords"] == 1
    assert "x" not in stats["minValues"]
    assert stats["maxValues"]["sub"] == {"y": 2.5}


def test_files_of_any_size_pass_in_pieces(new_table, rng, monkeypatch):
    """Read by ranges and in batches, written row group by row group: nothing is lost at a seam."""
    monkeypatch.setattr(compactor, "SMALL_BYTES", 1000)
    monkeypatch.setattr(compactor, "BATCH_ROWS", 7)
    monkeypatch.setattr(parquet_file, "ROW_GROUP_ROWS", 50)
    table = new_table()
    writer = table.open()
    table.apply(writer, [(key, {"n": rng.random(), "text": f"{rng.random()}"}) for key in range(300)])
    table.apply(writer, [(key, {"n": 1}) for key in rng.sample(range(300), 90)])
    pending = rewrite(writer)
    table.apply(writer, [(key, None) for key in rng.sample(range(300), 60)])
    writer.replace_files(pending)
    footers = [pq.read_metadata(f"{table.url}/{path}") for path in writer.snapshot.files]
    assert [footer.num_row_groups for footer in footers if footer.num_rows == 300] == [6]
    table.assert_equals_model(writer)
    table.apply(writer, [(key, {"n": 2}) for key in rng.sample(range(300), 60)])
    table.assert_equals_model(writer)


def test_local_files_lie_in_the_cache_and_go_whatever_happens(new_table, monkeypatch):
    monkeypatch.setattr(compactor, "SMALL_BYTES", 100)
    table = new_table()
    writer = table.open()
    table.apply(writer, [(key, {"n": key}) for key in range(50)])
    seen = set()

    class Spy(Budget):
        def used(self, read=0, written=0, elsewhere_s=0.0):
            seen.update(path.name for path in (table.cache_dir / "rewrites").glob("*/*"))
            if written:
                raise Stopped

    with pytest.raises(Stopped):
        rewrite(writer, budget=Spy(1.0, math.inf, threading.Event()))
    assert seen >= {"input", "output"}
    assert not list((table.cache_dir / "rewrites").iterdir())


def test_it_stops_at_the_next_step(new_table):
    table = new_table()
    writer = table.open()
    table.apply(writer, [(1, {"n": 1})])
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        rewrite(writer, budget=free_budget(stop))
    assert len(writer.snapshot.files) == 1


def test_compaction_keeps_a_table_small_under_random_updates(new_table, rng):
    """Chosen by the plan, over and over: files and dead rows stay few, and every version equals the model."""
    table = new_table()
    writer = table.open()
    for _ in range(70):
        table.apply(writer, documents(rng, count=8, keys=100))
        shapes = [FileShape.of(file) for file in writer.snapshot.files.values()]
        if files := choose_files(shapes, 1_000_000):
            writer.replace_files(rewrite(writer, files))
    shapes = [FileShape.of(file) for file in writer.snapshot.files.values()]
    assert len(shapes) < 30
    table.assert_equals_model(writer)
