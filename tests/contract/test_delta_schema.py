"""What readers rely on in a table: its columns and their Delta types, its properties, and its protocol.

One suite for both sink modes, on a local directory and on the stack's object store, on tables that the real writer has
made; DuckDB must see the types that the log names.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from debezium_events import event_key, event_value
from deltalake import DeltaTable

from cdc_shared.analytics.duckdb_client import connect, delta_scan_sql
from cdc_shared.delta.offsets import ChangeTopic, OffsetRange
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import TableIdentity
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import delete_everything, open_store
from delta_writer.consumer.event_handler import read_events
from delta_writer.transformers.bson_to_delta import decode_events, encode_batch
from delta_writer.writer.batch_processor import RecordBatch
from delta_writer.writer.copy_on_write_writer import CopyOnWriteWriter
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.delta_writer import DeltaWriter

pytestmark = pytest.mark.contract

MODES: tuple[type[DeltaWriter], ...] = (DeletionVectorWriter, CopyOnWriteWriter)
TOPIC = ChangeTopic("shop.shop.things", "topic-id", partitions=1)
IDENTITY = TableIdentity("shop", "shop", "things")
NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)

OWN_COLUMNS = {
    "_cdc_key": "string",
    "_cdc_source_ts": "timestamp",
    "_cdc_partition": "integer",
    "_cdc_offset": "long",
    "_cdc_rules_version": "integer",
    "_cdc_rescued": "string",
}
REGEX_TYPE = {"pattern": "string", "options": "string"}
DOCUMENT_COLUMNS: dict[str, tuple[Any, Any, str]] = {
    # name: (a value, the column's Delta type, the column's DuckDB type)
    "_id": (ObjectId("65a1f0c80000000000000001"), "string", "VARCHAR"),
    "text": ("héllo", "string", "VARCHAR"),
    "int32": (42, "long", "BIGINT"),
    "int64": (Int64(9007199254740993), "long", "BIGINT"),
    "double": (3.25, "double", "DOUBLE"),
    "bool": (True, "boolean", "BOOLEAN"),
    "decimal": (Decimal128("12.50"), "decimal(38,10)", "DECIMAL(38,10)"),
    "date": (NOON, "timestamp", "TIMESTAMP WITH TIME ZONE"),
    "uuid": (Binary(uuid.UUID(int=1).bytes, 4), "string", "VARCHAR"),
    "binary": (Binary(b"\x00\xff"), "binary", "BLOB"),
    "regex": (Regex("^a", "i"), REGEX_TYPE, 'STRUCT(pattern VARCHAR, "options" VARCHAR)'),
    "timestamp": (Timestamp(1700000000, 7), {"t": "long", "i": "long"}, "STRUCT(t BIGINT, i BIGINT)"),
    "object": ({"a": 1, "b": {"c": "x"}}, {"a": "long", "b": {"c": "string"}}, "STRUCT(a BIGINT, b STRUCT(c VARCHAR))"),
    "array": (["red", "blue"], ["string"], "VARCHAR[]"),
    "objects": ([{"sku": "a", "n": 1}], [{"sku": "string", "n": "long"}], "STRUCT(sku VARCHAR, n BIGINT)[]"),
    "mixed": ([1, "two"], "string", "VARCHAR"),
    "code": (Code("f()"), "string", "VARCHAR"),
    "min": (MinKey(), "string", "VARCHAR"),
    "max": (MaxKey(), "string", "VARCHAR"),
}
"""docs/architecture/types.md, as values."""


@dataclass(frozen=True)
class Place:
    """Where a table is made, and how readers get there."""

    root: str
    store: ObjectStoreSettings


@pytest.fixture(
    scope="module",
    params=[
        "local",
        pytest.param("object store", marks=pytest.mark.integration),
    ],
)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if request.param == "local":
        yield Place(str(tmp_path_factory.mktemp("tables")), ObjectStoreSettings())
        return
    place = Place(f"{request.getfixturevalue('tests_root')}/contract", request.getfixturevalue("stack").object_store)
    yield place
    delete_everything(place.root, place.store)


@pytest.fixture(scope="module", params=MODES, ids=lambda mode: mode.mode)
def table(request: pytest.FixtureRequest, place: Place, tmp_path_factory: pytest.TempPathFactory) -> DeltaTable:
    """A table that holds one document with every BSON type."""
    url = f"{place.root}/{request.param.mode}"
    location = TableLocation(url, open_store(url, place.store), place.store.storage_options())
    writer = request.param(location, IDENTITY, TOPIC, tmp_path_factory.mktemp("cache"))
    decoded = decode_events(read_events(_records()).events, writer.schema)
    assert not decoded.rejected
    writer.commit(encode_batch(decoded, writer.schema))
    writer.close()
    return DeltaTable(url, storage_options=place.store.storage_options())


def _records() -> RecordBatch:
    document = {name: value for name, (value, _, _) in DOCUMENT_COLUMNS.items()}
    value = event_value("c", document, pipeline="shop", database="shop", collection="things", ts_ms=1_709_208_000_000)
    batch = RecordBatch(TOPIC.name, opened_at=0.0, ranges={0: OffsetRange(0, 1)})
    batch.keys.append(event_key(document["_id"]))
    batch.values.append(value)
    batch.partitions.append(0)
    batch.offsets.append(0)
    return batch


def _plain(delta_type: Any) -> Any:
    """A Delta type as nested Python: a struct is a dict, an array a list."""
    if isinstance(delta_type, str):
        return delta_type
    if delta_type["type"] == "array":
        return [_plain(delta_type["elementType"])]
    return {field["name"]: _plain(field["type"]) for field in delta_type["fields"]}


def test_the_platforms_columns_come_first_and_have_their_types(table: DeltaTable) -> None:
    fields = json.loads(table.schema().to_json())["fields"]
    own = fields[: len(OWN_COLUMNS)]
    assert {field["name"]: field["type"] for field in own} == OWN_COLUMNS
    # NOT NULL would be the further feature `invariants`: Spark refuses a table that has it without listing it.
    assert [field["name"] for field in fields if not field["nullable"]] == []


def test_each_bson_type_has_its_documented_delta_type(table: DeltaTable) -> None:
    columns = _plain(json.loads(table.schema().to_json()))
    found = {name: type_ for name, type_ in columns.items() if name not in OWN_COLUMNS}
    assert found == {name: delta_type for name, (_, delta_type, _) in DOCUMENT_COLUMNS.items()}


def test_nothing_was_rescued_and_duckdb_sees_the_same_types(table: DeltaTable, place: Place) -> None:
    database: duckdb.DuckDBPyConnection = connect(place.store)
    scan = delta_scan_sql(table.table_uri.removeprefix("file://").rstrip("/"))
    described = {row[0]: row[1] for row in database.execute(f"DESCRIBE SELECT * FROM {scan}").fetchall()}
    assert {name: described[name] for name in DOCUMENT_COLUMNS} == {
        name: duckdb_type for name, (_, _, duckdb_type) in DOCUMENT_COLUMNS.items()
    }
    assert database.execute(f"SELECT count(*), count(_cdc_rescued) FROM {scan}").fetchone() == (1, 0)


def test_the_table_says_whose_it_is(table: DeltaTable) -> None:
    configuration = table.metadata().configuration
    assert configuration["cdc.pipeline"] == IDENTITY.pipeline
    assert configuration["cdc.database"] == IDENTITY.database
    assert configuration["cdc.collection"] == IDENTITY.collection
    assert configuration["cdc.sinkMode"] in {mode.mode for mode in MODES}
    assert configuration["cdc.schemaVersion"] == "1"


def test_the_protocol_asks_of_readers_no_more_than_the_mode_needs(table: DeltaTable) -> None:
    protocol = table.protocol()
    if table.metadata().configuration["cdc.sinkMode"] == CopyOnWriteWriter.mode:
        assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
        assert not protocol.reader_features
    else:
        assert (protocol.min_reader_version, protocol.min_writer_version) == (3, 7)
        assert protocol.reader_features == protocol.writer_features == ["deletionVectors"]
        assert table.metadata().configuration["delta.enableDeletionVectors"] == "true"


def test_the_commit_holds_the_offsets(table: DeltaTable) -> None:
    assert table.transaction_version("cdc:topic-id:0") == 1
