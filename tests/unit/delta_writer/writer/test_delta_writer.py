"""One table's writer: exactly once, whatever happens to a put, a process or another writer."""

import json
from collections.abc import Callable
from typing import Any

import obstore
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from msgspec.structs import replace

from cdc_shared.delta.actions import Action
from cdc_shared.delta.foreign_commits import ENGINE
from cdc_shared.delta.log import DeltaLog, entry_path
from cdc_shared.delta.offsets import ChangeTopic, Fenced
from cdc_shared.delta.table_metadata import TableIdentity
from cdc_shared.errors import Fatal, ResyncNeeded, Transient
from delta_writer.writer.delta_writer import MAX_SNAPSHOT_AGE_S, SchemaMoved
from delta_writer.writer.key_index import KeyIndex
from delta_writer.writer.tables import WRITERS

pytestmark = pytest.mark.unit

MODES = ["deletion_vectors", "copy_on_write"]


@pytest.mark.parametrize("mode", MODES)
def test_inserts_updates_and_deletes(new_table, mode):
    table = new_table(mode)
    writer = table.open()
    table.apply(writer, [(i, {"n": i, "s": f"v{i}"}) for i in range(100)])
    table.apply(writer, [(i, {"n": -i, "s": "new"}) for i in range(0, 100, 3)] + [(5, None), (7, None), (200, None)])
    table.apply(
        writer, [(5, {"n": 55, "s": "again"}), (5, None), (6, {"n": 6, "s": "last"}), (6, {"n": 7, "s": "wins"})]
    )
    table.assert_equals_model(writer)
    assert writer.next_offset(0, 0, table.next_offset) == table.next_offset


def test_a_file_without_live_rows_leaves_the_table(new_table):
    table = new_table()
    writer = table.open()
    table.apply(writer, [(1, {"n": 1}), (2, {"n": 2})])
    table.apply(writer, [(1, {"n": 3}), (2, None)])
    assert len(writer.snapshot.files) == 1
    table.assert_equals_model(writer)


@pytest.mark.parametrize("mode", MODES)
def test_a_replay_is_fenced(new_table, mode):
    table = new_table(mode)
    writer = table.open()
    records = table.batch([(1, {"n": 1})])
    table.commit(writer, records)
    with pytest.raises(Fenced, match="begins at 0, the table stands at 1"):
        writer.commit(table.encode(writer, records))


@pytest.mark.parametrize("mode", MODES)
def test_a_zombie_writes_nothing(new_table, mode):
    """A writer that lost its partition still believes in the version it knew."""
    table = new_table(mode)
    zombie = table.open()
    table.apply(zombie, [(1, {"n": 1})])
    in_hand = table.batch([(1, {"n": 2}), (2, {"n": 2})])
    zombies = table.encode(zombie, in_hand)
    successor = table.open()
    table.commit(successor, in_hand)
    table.apply(successor, [(1, {"n": 3})])
    with pytest.raises(Fenced):
        zombie.commit(zombies)
    table.assert_equals_model(successor)


def put_that_times_out(monkeypatch: pytest.MonkeyPatch, *, after_success: bool) -> Callable[[], int]:
    """Make the next put of a log entry raise as a timed-out request does, after or before it took effect."""
    real, calls = obstore.put, []

    def put(store: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        if path.startswith("_delta_log/") and not calls:
            calls.append(path)
            if after_success:
                real(store, path, *args, **kwargs)
            raise obstore.exceptions.GenericError("operation timed out")
        return real(store, path, *args, **kwargs)

    monkeypatch.setattr(obstore, "put", put)
    return lambda: len(calls)


@pytest.mark.parametrize("after_success", [True, False])
@pytest.mark.parametrize("first_commit", [True, False])
def test_a_put_that_timed_out_is_never_doubled(new_table, monkeypatch, after_success, first_commit):
    table = new_table()
    writer = table.open()
    if not first_commit:
        table.apply(writer, [(1, {"n": 1}), (2, {"n": 1})])
    records = table.batch([(1, {"n": 2}), (3, {"n": 3})])
    batch = table.encode(writer, records)
    calls = put_that_times_out(monkeypatch, after_success=after_success)
    with pytest.raises(Transient, match="timed out"):
        writer.commit(batch)
    assert calls() == 1
    assert writer.commit(batch) is not None
    table.committed = records.ranges[0].end
    table.assert_equals_model(writer)
    table.apply(writer, [(3, {"n": 4}), (1, None)])
    table.assert_equals_model(writer)
    assert writer.version == (1 if first_commit else 2)


@pytest.mark.parametrize("mode", MODES)
def test_a_restart_goes_on_where_the_table_stands(new_table, mode):
    table = new_table(mode)
    for round_ in range(4):
        writer = table.open()
        assert writer.next_offset(0, 0, 10**6) == table.next_offset
        table.apply(writer, [(i, {"n": round_, "s": "x"}) for i in range(round_, 40, 2)])
        if round_ % 2:
            writer.close()  # the others die without a word: no index is persisted
        table.assert_equals_model(writer)


def test_a_deleted_cache_is_rebuilt(new_table):
    table = new_table()
    writer = table.open()
    table.apply(writer, [(i, {"n": i}) for i in range(50)])
    writer.close()
    for path in sorted(table.cache_dir.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    writer = table.open()
    table.apply(writer, [(i, {"n": -1}) for i in range(50)])
    table.assert_equals_model(writer)


def test_a_damaged_cache_is_rebuilt(new_table):
    """Attacks I5: a flipped bit in the index must not hide a row."""
    table = new_table()
    writer = table.open()
    table.apply(writer, [(i, {"n": i}) for i in range(100)])
    writer.close()
    (run,) = table.cache_dir.glob("*/*.run")
    body = bytearray(run.read_bytes())
    for entry in range(100):
        body[8 * entry] ^= 1
    run.write_bytes(body)
    writer = table.open()
    table.apply(writer, [(i, {"n": -i}) for i in range(0, 110, 2)])
    table.assert_equals_model(writer)


def test_a_schema_that_somebody_else_widened_means_encoding_again(new_table):
    table = new_table()
    writer = table.open()
    table.apply(writer, [(1, {"n": 1})])
    behind = table.open()
    records = table.batch([(2, {"n": 2, "behind": True})])
    encoded = table.encode(behind, records)
    metadata = behind._snapshot.metadata
    schema = json.loads(metadata.schema_string)
    schema["fields"].append({"name": "x", "type": "string", "nullable": True, "metadata": {"cdc.type": "string"}})
    wider = replace(metadata, schema_string=json.dumps(schema))
    DeltaLog(table.store).append(
        1, [Action(commit_info={"operation": "SET SCHEMA", "engineInfo": ENGINE}), Action(meta_data=wider)]
    )
    with pytest.raises(SchemaMoved):
        behind.commit(encoded)
    table.commit(behind, records)
    table.assert_equals_model(behind)


@pytest.mark.parametrize("mode", MODES)
def test_offsets_of_a_batch_without_changes(new_table, mode):
    table = new_table(mode)
    writer = table.open()
    table.apply(writer, [(1, {"n": 1})])
    version = writer.version
    nothing = table.batch([(99, None)])
    assert writer.commit(table.encode(writer, nothing)) is None
    assert writer.version == version
    nothing.must_commit = True
    assert writer.commit(table.encode(writer, nothing)) is not None
    assert table.open().next_offset(0, 0, 10) == 2


def test_a_table_made_by_others_is_left_alone(new_table):
    table = new_table()
    write_deltalake(table.url, pa.table({"theirs": [1]}))
    with pytest.raises(Fatal) as caught:
        table.open()
    for text in (table.url, "theirs long", "_cdc_key string", "nothing was written"):
        assert text in str(caught.value)
    assert DeltaTable(table.url).version() == 0


def test_a_table_of_another_collection_mode_or_partitioning_is_refused(new_table):
    table = new_table()
    table.apply(table.open(), [(1, {"n": 1})])
    writer = table.open()
    for change, error, text in (
        ({"identity": TableIdentity("p", "db", "others")}, Fatal, "belongs to"),
        ({"topic": ChangeTopic("p.db.things", "topic-id", 2)}, ResyncNeeded, "1 partitions and now has 2"),
        ({"mode": "copy_on_write"}, Fatal, "sink.mode"),
    ):
        arguments = {"identity": TableIdentity("p", "db", "things"), "topic": writer.topic, "mode": "deletion_vectors"}
        arguments |= change
        with pytest.raises(error, match=text):
            WRITERS[arguments["mode"]](writer.location, arguments["identity"], arguments["topic"], table.cache_dir)


def test_a_feature_that_the_writer_does_not_know_is_fatal(new_table):
    table = new_table()
    table.apply(table.open(), [(1, {"n": 1})])
    DeltaTable(table.url).alter.set_table_properties({"delta.enableChangeDataFeed": "true"})
    with pytest.raises(Fatal, match="enableChangeDataFeed"):
        table.open()


@pytest.mark.parametrize("mode", MODES)
def test_other_readers_agree(new_table, mode):
    table = new_table(mode)
    writer = table.open()
    for round_ in range(5):
        table.apply(writer, [(i, {"n": round_, "s": {"x": [i]}}) for i in range(round_, 30)] + [(round_, None)])
    found = QueryBuilder().register("t", DeltaTable(table.url)).execute("SELECT count(*) AS n FROM t").read_all()
    assert found["n"][0].as_py() == len(table.model) == len(table.rows())


@pytest.mark.parametrize("first_commit", [True, False])
def test_a_commit_that_landed_is_recognised_after_trouble_with_the_index(new_table, monkeypatch, first_commit):
    table = new_table()
    writer = table.open()
    if not first_commit:
        table.apply(writer, [(1, {"n": 1}), (2, {"n": 1})])
    real, failures = KeyIndex.add_run, iter([OSError("no space left on device")])

    def add_run(self, run):
        for failure in failures:
            raise failure
        real(self, run)

    monkeypatch.setattr(KeyIndex, "add_run", add_run)
    records = table.batch([(1, {"n": 2}), (3, {"n": 3})])
    batch = table.encode(writer, records)
    with pytest.raises(Transient, match="no space"):
        writer.commit(batch)
    result = writer.commit(batch)
    assert result is not None
    assert result.version == writer.version
    table.committed = records.ranges[0].end
    table.apply(writer, [(1, {"n": 4}), (3, None)])
    table.assert_equals_model(writer)


def test_a_writer_that_was_closed_still_knows_its_rows(new_table):
    table = new_table()
    writer = table.open()
    table.apply(writer, [(1, {"n": 1})])
    writer.close()
    table.apply(writer, [(1, {"n": 2})])
    table.assert_equals_model(writer)


def test_a_writer_that_slept_past_log_clean_up_looks_before_it_writes(new_table):
    """Put-if-absent says nothing about a version whose entry was cleaned up."""
    table = new_table()
    clock = Clock()
    sleeper = table.open(clock)
    table.apply(sleeper, [(1, {"n": 1})])
    stale = table.encode(sleeper, table.batch([(1, {"n": 99})]))
    table.next_offset, table.model = table.committed, {1: {"_id": 1, "n": 1}}
    awake = table.open(clock)
    for number in range(5):
        table.apply(awake, [(1, {"n": number})])
    DeltaTable(table.url).create_checkpoint()
    for version in range(5):
        table.store.delete(entry_path(version))
    clock.now += MAX_SNAPSHOT_AGE_S + 1
    with pytest.raises(Fenced):
        sleeper.commit(stale)
    table.assert_equals_model(table.open(clock))


class Clock:
    now = 1_700_000_000.0

    def __call__(self):
        return self.now
