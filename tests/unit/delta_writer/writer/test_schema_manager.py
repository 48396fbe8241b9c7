"""What batches do to a table's schema: fields come, at any depth; each change has a version, a record and its event."""

import json
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import obstore
import pytest
from deltalake import DeltaTable, Field

from cdc_shared.delta.foreign_commits import ForeignCommit
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import OffsetRange
from cdc_shared.delta.schema_diff import EventPosition
from cdc_shared.delta.schema_history import HISTORY_DIR, SCHEMA_VERSION, read_schema_history
from cdc_shared.documents import types as t
from cdc_shared.models.collection import Collection
from cdc_shared.models.data_quality import EvolutionSpec
from delta_writer.consumer.event_handler import read_events
from delta_writer.transformers.bson_to_delta import decode_events, encode_batch
from delta_writer.transformers.change_batch import EncodedBatch
from delta_writer.transformers.type_resolver import Promotion
from delta_writer.writer.delta_writer import SchemaMoved
from delta_writer.writer.schema_cache import TTL_S, SchemaCache
from delta_writer.writer.schema_manager import FieldConflict, SchemaManager
from delta_writer.writer.schema_watch import SchemaWatch
from delta_writer.writer.sink import Sink
from delta_writer.writer.tables import Table

pytestmark = pytest.mark.unit

MODES = ["deletion_vectors", "copy_on_write"]
TOPIC = "p.db.things"
Changes = list[tuple[int, dict[str, Any] | None]]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class ManagedTable:
    """A table whose batches go through a schema manager, as the pipeline does it."""

    def __init__(self, table: Any, **evolution: Any) -> None:
        self.table = table
        self.writer = table.open()
        self.clock = Clock()
        self.cache = SchemaCache(self.clock)
        self.spec = EvolutionSpec.model_validate(evolution)
        self.manager = SchemaManager(self.writer, "things", self.spec, self.cache)

    def apply(self, changes: Changes) -> None:
        batch = self.table.batch(changes)
        source = decode_events(read_events(batch).events, self.manager.known(), policies=self.manager.policies)
        fitted = self.manager.fit(source)
        self.writer.commit(encode_batch(fitted, self.writer.schema))
        self.manager.committed(source.source_schema, fitted.decoded.stats.conflicts)
        self.table.committed = batch.ranges[0].end

    @property
    def version(self) -> int:
        """The schema's version."""
        return int(self.writer.snapshot.metadata.configuration[SCHEMA_VERSION])

    def history(self) -> list[tuple[int, str, list[tuple[str, str, str, int | None]]]]:
        return [
            (
                change.version,
                change.operation,
                [(f.change, f.path, f.type, None if f.event is None else f.event.offset) for f in change.fields],
            )
            for change in read_schema_history(self.table.store)
        ]


@pytest.fixture(params=MODES)
def managed(request: pytest.FixtureRequest, new_table: Any) -> ManagedTable:
    return ManagedTable(new_table(request.param))


def test_fields_come_at_every_depth_each_with_the_event_that_showed_it(managed):
    managed.apply([(1, {"a": 1, "later": None}), (2, {"a": 2})])
    managed.apply([(1, {"a": 3}), (3, {"a": 3})])  # nothing new
    managed.apply([(1, {"a": 4}), (2, {"a": 1, "b": {"c": "x"}}), (3, {"a": 1, "b": {"c": "y", "d": [{"e": 1}]}})])
    managed.apply([(4, {"later": 2.5}), (5, None), (6, {"b": {"d": [{}, {"f": True}]}})])
    assert managed.history() == [
        (1, "created", [("added", "/_id", "long", 0), ("added", "/a", "long", 0)]),
        (
            2,
            "widened",
            [
                ("added", "/b", "struct", 5),
                ("added", "/b/c", "string", 5),
                ("added", "/b/d", "array<struct>", 6),
                ("added", "/b/d/*/e", "long", 6),
            ],
        ),
        (3, "widened", [("added", "/b/d/*/f", "boolean", 9), ("added", "/later", "double", 7)]),
    ]
    assert managed.version == 3
    assert read_schema_history(managed.table.store)[2].fields[0].event == EventPosition(TOPIC, 0, 9)
    managed.table.assert_equals_model(managed.writer)


def test_the_record_names_the_commit_that_put_the_schema_in_force(managed):
    managed.apply([(1, {"a": 1})])
    managed.apply([(1, {"a": 1, "b": 1})])
    log = DeltaLog(managed.table.store)
    for change in read_schema_history(managed.table.store):
        schemas = {
            action.meta_data.configuration[SCHEMA_VERSION]: action.meta_data.schema_string
            for version in range(log.load().version + 1)
            for action in log.read_entry(version) or []
            if action.meta_data is not None
        }
        assert schemas[str(change.version)] == change.schema
    committed = {
        (action.commit_info or {}).get("txnId")
        for version in range(log.load().version + 1)
        for action in log.read_entry(version) or []
    }
    assert {change.commit_id for change in read_schema_history(managed.table.store)} <= committed


def test_fields_that_vanish_stay_and_a_type_never_changes(managed):
    managed.apply([(1, {"a": 1, "s": {"x": 1}})])
    managed.apply([(2, {"a": "text", "s": "flat"}), (3, {}), (4, {"a": 2.5, "s": {"x": [1]}})])
    assert managed.version == 1
    assert managed.writer.schema.by_name["a"].type == t.LONG
    managed.table.assert_equals_model(managed.writer)


def test_a_batch_that_lost_to_another_is_recorded_on_what_won(new_table):
    """Attacks the chain: the loser has put a record of the same version; the winner's is in the history."""
    table = new_table()
    first, second = ManagedTable(table), ManagedTable(table)
    first.apply([(1, {"a": 1})])
    records = table.batch([(2, {"b": 1})])
    records.partitions, records.offsets, records.ranges = [1], [0], {1: OffsetRange(0, 1)}

    def encoded() -> EncodedBatch:
        source = decode_events(read_events(records).events, second.manager.known())
        return encode_batch(second.manager.fit(source), second.writer.schema)

    with pytest.raises(SchemaMoved):
        second.writer.commit(encoded())
    second.writer.commit(encoded())
    assert [(version, [change[1] for change in fields]) for version, _, fields in second.history()] == [
        (1, ["/_id", "/a"]),
        (2, ["/b"]),
    ]
    names = sorted(each["path"] for page in obstore.list(table.store, HISTORY_DIR) for each in page)
    assert [name.partition("-")[0] for name in names] == [f"{HISTORY_DIR}/000000000{n}" for n in (1, 1, 2)]
    table.assert_equals_model(second.writer)


def test_a_put_that_timed_out_but_succeeded_has_one_record(new_table, monkeypatch):
    managed = ManagedTable(new_table())
    managed.apply([(1, {"a": 1})])
    real = DeltaLog.append

    def late(self: DeltaLog, version: int, actions: Any) -> None:
        real(self, version, actions)
        monkeypatch.setattr(DeltaLog, "append", real)
        raise OSError("timed out")

    monkeypatch.setattr(DeltaLog, "append", late)
    source = managed.manager.fit(
        decode_events(read_events(managed.table.batch([(1, {"b": 1})])).events, managed.manager.known())
    )
    encoded = encode_batch(source, managed.writer.schema)
    with pytest.raises(Exception, match="timed out"):
        managed.writer.commit(encoded)
    managed.writer.commit(encoded)
    assert [version for version, _, _ in managed.history()] == [1, 2]


def test_the_rules_version_is_in_the_record(new_table):
    managed = ManagedTable(new_table())
    source = decode_events(read_events(managed.table.batch([(1, {"a": 1})])).events, managed.manager.known())
    managed.writer.commit(encode_batch(managed.manager.fit(replace(source, rules_version=4)), managed.writer.schema))
    assert [change.rules_version for change in read_schema_history(managed.table.store)] == [4]


# -- the documents' schema ---------------------------------------------------------------------------------------------


def test_what_documents_have_shown_outlives_a_table_that_is_opened_again(new_table):
    managed = ManagedTable(new_table())
    managed.apply([(1, {"a": 1, "nothing": None})])
    again = SchemaManager(managed.table.open(), "things", managed.spec, managed.cache)
    assert again.known().by_name["nothing"].type == t.NULL
    managed.clock.now += TTL_S
    assert "nothing" not in again.known().by_name
    assert again.known() == managed.writer.schema


def test_rules_say_what_a_tables_schema_tells_of_the_documents(new_table):
    table = new_table()
    writer = table.open()
    source = t.DocumentSchema((t.Field("before rules", t.STRING),))
    rules, others = Mock(source_schema=lambda _: source), Mock(source_schema=lambda _: source)
    manager = SchemaManager(writer, "things", EvolutionSpec(), SchemaCache(Clock()))
    assert manager.known(rules) == source
    wider = t.DocumentSchema((*source.fields, t.Field("dropped by a rule", t.LONG)))
    manager.committed(wider, {}, rules)
    assert manager.known(rules) == wider
    assert manager.known(others) == source, "of documents that come by other rules nothing is known yet"


# -- others ------------------------------------------------------------------------------------------------------------


def test_a_quiet_table_that_was_altered_by_hand_is_found_within_five_minutes(managed):
    managed.apply([(1, {"a": 1})])
    collection = Collection("db", "things")
    tables = {TOPIC: Table(collection, Sink("things", managed.writer, managed.manager))}
    watch = SchemaWatch()
    DeltaTable(managed.table.url).alter.add_columns([Field("mine", "string")])
    managed.clock.now += TTL_S - 1
    watch.turn(tables, [(TOPIC, 0)])
    managed.clock.now += 1
    with pytest.raises(ForeignCommit, match=r"column mine \(string\) was added"):
        watch.turn(tables, [(TOPIC, 0)])


def test_looking_at_a_quiet_table_costs_one_request_every_five_minutes(managed, monkeypatch):
    managed.apply([(1, {"a": 1, "nothing": None})])
    reads: list[int] = []
    real = DeltaLog.read_entry

    def read_entry(self: DeltaLog, version: int) -> Any:
        reads.append(version)
        return real(self, version)

    monkeypatch.setattr(DeltaLog, "read_entry", read_entry)
    for _ in range(11):
        managed.clock.now += TTL_S / 5
        managed.manager.look_again()
    assert reads == [managed.writer.version + 1] * 2
    managed.apply([(2, {"a": 1})])
    assert not managed.cache.must_look(managed.table.url)


def test_a_table_that_does_not_exist_yet_may_be_looked_at(new_table):
    managed = ManagedTable(new_table())
    managed.manager.look_again()
    managed.apply([(1, {"a": 1})])
    managed.table.assert_equals_model(managed.writer)


# -- conflicts ---------------------------------------------------------------------------------------------------------


def failing(*fields: str) -> dict[str, Any]:
    return {"fields": [{"path": path, "conflict_resolution_mode": "fail"} for path in fields]}


def test_a_field_that_must_not_conflict_ends_the_pipeline_and_names_the_event(new_table):
    managed = ManagedTable(new_table(), **failing("/price"))
    managed.apply([(1, {"price": 1, "n": 1})])
    before = managed.writer.version
    with pytest.raises(FieldConflict) as refused:
        managed.apply([(2, {"price": 2, "n": "goes"}), (3, {"price": "secret", "n": 1}), (4, {"price": "another"})])
    message = str(refused.value)
    for part in ("field /price", f"event {TOPIC}:0:2", "is string", "long", managed.table.url, "rescue", "publish"):
        assert part in message
    assert "secret" not in message
    assert managed.writer.version == before


def test_a_conflict_of_another_field_or_collection_goes_on(new_table):
    spec = failing("/price")
    spec["fields"][0]["collections"] = ["others"]
    managed = ManagedTable(new_table(), **spec)
    managed.apply([(1, {"price": 1})])
    managed.apply([(2, {"price": "text"})])
    managed.table.assert_equals_model(managed.writer)


@pytest.mark.parametrize("path", ["/s/x", "/l/*/x", "/l"])
def test_nested_fields_may_refuse_conflicts_too(new_table, path):
    managed = ManagedTable(new_table(), **failing(path))
    managed.apply([(1, {"s": {"x": 1, "y": 1}, "l": [{"x": 1, "y": 1}]})])
    managed.apply([(1, {"s": {"x": 1, "y": "other"}, "l": [{"x": 2}]})])
    with pytest.raises(FieldConflict, match=f"field {path.partition('/*')[0]} .*{TOPIC}:0:2"):
        managed.apply([(2, {"s": {"x": "1"}, "l": [{"x": "1"}]})])


def test_conflicts_of_committed_batches_lead_to_a_promotion(new_table):
    managed = ManagedTable(new_table(), promotion={"after_conflicts": 5})
    managed.apply([(1, {"n": 1})])
    managed.apply([(key, {"n": 0.5}) for key in range(2, 6)])
    assert managed.manager.promotions() == []
    managed.apply([(9, {"n": 0.5})])
    assert managed.manager.promotions() == [Promotion("/n", t.LONG, t.DOUBLE)]


def test_a_policy_chooses_the_type_of_a_new_field(new_table):
    modes = [{"path": "/any", "conflict_resolution_mode": "json"}]
    managed = ManagedTable(new_table(), fields=modes)
    managed.apply([(1, {"any": 1, "n": 1})])
    managed.apply([(2, {"any": {"deep": [1, "x"]}})])
    assert managed.writer.schema.by_name["any"].type == t.JSON
    managed.table.assert_equals_model(managed.writer)
    assert all(row["_cdc_rescued"] is None for row in managed.table.rows())
    assert json.loads(managed.table.rows()[0]["any"]) is not None
