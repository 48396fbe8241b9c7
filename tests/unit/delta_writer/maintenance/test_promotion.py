"""Columns that get a wider type: nothing rescued stays that fits, every document is what it was."""

from functools import partial

import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder
from prometheus_client import CollectorRegistry
from waiting import wait_until

from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.delta.schema_history import read_schema_history
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import TableIdentity
from cdc_shared.documents import types as t
from cdc_shared.metrics.prometheus_metrics import MaintenanceOutcome, MaintenanceTask, WriterMetrics
from cdc_shared.models.collection import Collection
from cdc_shared.models.data_quality import EvolutionSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from delta_writer.consumer.event_handler import read_events
from delta_writer.maintenance import column_rewrite
from delta_writer.maintenance.chore import Maintenance
from delta_writer.maintenance.policy import MB, MaintenancePolicy
from delta_writer.maintenance.promotion import (
    PROMOTIONS,
    WaitingPromotion,
    exact,
    next_promotion,
    waiting_promotions,
    with_promotions,
)
from delta_writer.maintenance.retention import Retention
from delta_writer.maintenance.table_maintenance import TableMaintenance
from delta_writer.maintenance.worker import MaintenanceWorker
from delta_writer.transformers.bson_to_delta import decode_events, encode_batch
from delta_writer.transformers.type_resolver import Promotion, type_at
from delta_writer.writer.history_writer import HistoryWriter
from delta_writer.writer.schema_cache import SchemaCache
from delta_writer.writer.schema_manager import SchemaManager
from delta_writer.writer.sink import Sink
from delta_writer.writer.tables import Table

pytestmark = pytest.mark.unit

LABELS = ("p", "db", "things")
TOPIC = ChangeTopic("p.db.things", "topic-id", 1)
WAIT_S = 30.0
POLICY = MaintenancePolicy(Retention(0.0, 0.0), 128 * MB, cpu_share=1.0, bytes_per_s=1e9, first_vacuum_s=1e9)


class Promoting:
    """Turns of maintenance of a table whose columns are promoted; the reports are kept."""

    def __init__(self, writer):
        self.writer = writer
        self.reports = []
        self.metrics = WriterMetrics(CollectorRegistry())
        self.worker = MaintenanceWorker()
        self.maintenance = TableMaintenance(
            writer,
            LABELS,
            POLICY,
            self.worker,
            self.metrics,
            column_changes=lambda metadata: next_promotion(metadata, writer.snapshot.files.values()),
            report=self.reports.append,
        )

    def ask(self, **fields):
        wanted = []
        for name, to in fields.items():
            pointer = "/" + name.replace("__", "/")
            wanted.append(WaitingPromotion(pointer, type_at(self.writer.schema, pointer).text, to))
        self.writer.set_properties(partial(with_promotions, further=wanted))

    def finish(self):
        def turn():
            self.maintenance.turn()
            return PROMOTIONS not in self.writer.snapshot.metadata.configuration

        wait_until(turn, WAIT_S, "nothing waits to be promoted", poll_s=0.002)

    def runs(self, outcome=MaintenanceOutcome.DONE):
        return self.metrics.maintenance_runs.labels(*LABELS, MaintenanceTask.PROMOTION, outcome)._value.get()

    def close(self):
        self.maintenance.close()
        self.worker.close()


@pytest.fixture
def table(new_table):
    return new_table()


@pytest.fixture
def writer(table):
    writer = table.open()
    yield writer
    writer.close()


@pytest.fixture
def promoting(writer):
    it = Promoting(writer)
    yield it
    it.close()


def rescued(table):
    return [row["_cdc_rescued"] for row in table.rows() if row["_cdc_rescued"] is not None]


def field_type(writer, pointer):
    return type_at(writer.schema, pointer)


def test_a_long_column_that_meets_doubles_becomes_double(table, writer, promoting):
    table.apply(writer, [(i, {"n": i}) for i in range(10)])
    table.apply(writer, [(i, {"n": i + 0.5}) for i in range(5, 15)])
    assert len(rescued(table)) == 10
    promoting.ask(n="double")
    promoting.finish()
    assert field_type(writer, "/n") == t.DOUBLE
    assert rescued(table) == []
    table.assert_equals_model(writer)
    table.apply(writer, [(3, {"n": 3.25}), (40, {"n": 7})])
    assert rescued(table) == []
    table.assert_equals_model(table.open())
    assert promoting.runs() == 1


def test_longs_that_are_no_doubles_make_it_a_number(table, writer, promoting):
    table.apply(writer, [(0, {"n": {"$numberLong": str(2**53 + 1)}}), (1, {"n": 2})])
    table.apply(writer, [(2, {"n": 2.5}), (3, {"n": 0.1})])
    assert field_type(writer, "/n") == t.LONG
    promoting.ask(n="double")
    promoting.finish()
    assert field_type(writer, "/n") == t.Number()
    assert rescued(table) == []
    table.assert_equals_model(writer)


def test_anything_becomes_json(table, writer, promoting):
    table.apply(writer, [(i, {"n": i, "deep": {"x": "a", "y": i}}) for i in range(6)])
    table.apply(
        writer, [(6, {"n": "text", "deep": {"x": 5}}), (7, {"n": [1, {"a": None}], "deep": 8}), (8, {"n": None})]
    )
    promoting.ask(n="json", deep__x="json")
    promoting.finish()
    assert (field_type(writer, "/n"), field_type(writer, "/deep/x")) == (t.JSON, t.JSON)
    assert promoting.runs() == 1
    assert len(rescued(table)) == 1  # the object that is a number
    table.assert_equals_model(writer)
    promoting.ask(deep="json")
    promoting.finish()
    assert rescued(table) == []
    table.assert_equals_model(writer)


def test_one_promotion_after_another(table, writer, promoting):
    table.apply(writer, [(0, {"n": 1}), (1, {"n": 2}), (2, {"n": 3})])
    table.apply(writer, [(3, {"n": 2.5})])
    promoting.ask(n="double")
    promoting.finish()
    table.apply(writer, [(4, {"n": "text"}), (5, {"n": 1})])
    promoting.ask(n="json")
    promoting.finish()
    assert field_type(writer, "/n") == t.JSON
    assert rescued(table) == []
    table.assert_equals_model(writer)
    changes = read_schema_history(table.store)
    assert [change.operation for change in changes] == ["created", "promoted", "promoted"]
    assert [(f.path, f.change) for f in changes[1].fields] == [("/n", "retyped")]


def test_what_waits_is_begun_again_by_the_next_process(table, writer, monkeypatch):
    monkeypatch.setattr(column_rewrite, "MAX_LATE_ROWS", 0)
    table.apply(writer, [(i, {"n": i}) for i in range(5)])
    table.apply(writer, [(9, {"n": 0.5})])
    first = Promoting(writer)
    first.ask(n="double")
    wait_until(lambda: first.maintenance.turn() or first.reports, WAIT_S, "it is announced")
    assert "from long to double" in first.reports[0]
    assert "6 rows" in first.reports[0]
    first.maintenance.turn()
    first.close()
    assert first.reports[-1] is None
    writer.close()
    again = table.open()
    second = Promoting(again)
    second.finish()
    second.close()
    assert field_type(again, "/n") == t.DOUBLE
    table.assert_equals_model(again)


def test_what_two_writers_ask_for_at_once_both_waits(table, writer):
    """Each has seen conflicts of another field, and neither the other's commit."""
    table.apply(writer, [(0, {"m": 1, "n": 1})])
    worker = MaintenanceWorker()
    writers = [table.open(), table.open()]
    for each, pointer in zip(writers, ("/m", "/n"), strict=True):
        sink = Sink("things", each, SchemaManager(each, "things", EvolutionSpec(), SchemaCache()))
        seen = Promotion(pointer, t.LONG, t.DOUBLE)
        chore = Maintenance("p", POLICY, worker, WriterMetrics(CollectorRegistry()), lambda _, seen=seen: [seen])
        chore.turn({TOPIC.name: Table(Collection("db", "things"), sink)}, [])
        chore.close()
    worker.close()
    writer.refresh()
    assert [each.field for each in waiting_promotions(writer.snapshot.metadata)] == ["/m", "/n"]
    for each in writers:
        each.close()


def test_a_promotion_that_no_longer_fits_is_dropped(table, writer, promoting):
    table.apply(writer, [(0, {"n": 1, "m": 1})])
    writer.set_properties(
        {PROMOTIONS: '[{"field":"/n","was":"string","to":"json"},{"field":"/gone/x","was":"long","to":"double"}]'}
    )
    assert waiting_promotions(writer.snapshot.metadata) == []
    version = writer.version
    promoting.maintenance.turn()
    promoting.maintenance.turn()
    assert writer.version == version
    promoting.ask(m="double")
    promoting.finish()
    assert [field.type for field in writer.schema.fields if field.name in ("n", "m")] == [t.LONG, t.DOUBLE]


@pytest.mark.parametrize(
    ("value", "to"),
    [(2**53, "double"), (-(2**53), "double"), (2**53 + 1, "number:18"), (-(2**53) - 1, "number:18"), (None, "double")],
)
def test_double_only_where_every_long_is_one(table, writer, value, to):
    table.apply(writer, [(0, {"s": {"n": 1}})])
    table.apply(writer, [(1, {"s": {"n": None if value is None else {"$numberLong": str(value)}}})])
    table.apply(writer, [(2, {"other": "x"})])
    promotion = exact(WaitingPromotion("/s/n", "long", "double"), writer.schema, writer.snapshot.files.values())
    assert promotion.to == to


def test_columns_without_stats_may_hold_anything(table, writer):
    table.apply(writer, [(0, {f"c{i}": i for i in range(40)})])
    files = writer.snapshot.files.values()
    told = [exact(WaitingPromotion(f"/c{i}", "long", "double"), writer.schema, files).to for i in (0, 39)]
    assert told == ["double", "number:18"]


def test_a_history_is_promoted_too(new_table):
    table = new_table()
    current = table.open()
    table.apply(current, [(0, {"n": 0})])
    location = TableLocation(f"{table.url}__changes", open_store(f"{table.url}__changes", ObjectStoreSettings()), {})
    history = HistoryWriter(location, TableIdentity("p", "db", "things"), TOPIC, table.cache_dir / "history")
    history.follow(current.snapshot)
    values = [1, 2.5, None, "text", 7]
    for value in values:
        decoded = decode_events(read_events(table.batch([(1, {"n": value}), (2, None)])).events, history.schema)
        encoded = encode_batch(decoded, history.schema, history=True)
        table.committed = encoded.ranges[0].end
        history.commit(encoded)
    it = Promoting(history)
    it.ask(n="json")
    it.finish()
    it.close()
    rows = QueryBuilder().register("t", DeltaTable(location.url)).execute("SELECT * FROM t ORDER BY _cdc_offset")
    found = pa.table(rows.read_all()).to_pylist()
    assert [row["n"] for row in found if row["_cdc_op"] != "d"] == [
        '{"$numberInt":"1"}', '{"$numberDouble":"2.5"}', None, '"text"', '{"$numberInt":"7"}',
    ]  # fmt: skip
    assert [row["_cdc_rescued"] for row in found] == [None] * 10
    assert [row["_cdc_op"] for row in found].count("d") == 5
