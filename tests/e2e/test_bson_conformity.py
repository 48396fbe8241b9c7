"""Corner values of every BSON type, through MongoDB, Debezium, Kafka and the writer: docs/architecture/types.md.

What the source does not keep as it was sent (SecantusDB is no MongoDB) is put into the topic as Debezium writes it.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from bson import CodecOptions
from bson.raw_bson import RawBSONDocument
from bson_cases import BsonCase, bson_cases, element, raw_document, seed_document
from bson_cells import assert_cell
from confluent_kafka import Producer
from debezium_events import event_value
from delta_reading import READERS, open_table, read_with_query_builder
from documented_outcomes import column_type, documented_outcomes
from mongo_pipeline import MongoPipeline
from pymongo import ReplaceOne, UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError, OperationFailure
from waiting import wait_until

from cdc_shared.documents import canonical_document, canonical_row, document_key, document_text, from_delta_schema

pytestmark = pytest.mark.e2e

TIMEOUT_S = 90.0
ID_FIELDS = {each for each in documented_outcomes() if each.startswith("binary_")} | {
    "double", "int32", "int64", "bool", "objectId", "decimal", "string", "date", "uuid", "timestamp", "code",
    "code_with_scope", "min_key", "max_key", "object", "clashing_names",
}  # fmt: skip
NO_IDS = {"string/1 MB", "object/names with $ and dots", "double/1E23"}
"""Too large, refused by MongoDB, and what Java writes as 9.999999999999999E22 (docs/architecture/types.md)."""
MIN_IDS = 100
Raw = Database[RawBSONDocument]


def test_every_corner_value_comes_to_its_documented_place(shared_pipeline: MongoPipeline) -> None:
    pipeline, cases = shared_pipeline, bson_cases()
    kept = kept_by_the_source(pipeline, cases)
    collection = raw_database(pipeline)["corners"]
    fields = {case.field for case in kept}
    seed = seed_document([case for case in cases if case.field in fields])
    collection.insert_one(RawBSONDocument(seed))
    pipeline.await_rows("corners", lambda: canonical([seed]), TIMEOUT_S)
    other_seed = seed_document([case for case in cases if case.field not in fields], id="seed beside the source")
    put_events(pipeline, "corners", [other_seed])
    pipeline.await_rows("corners", lambda: canonical([seed, other_seed]), TIMEOUT_S)

    collection.insert_many([RawBSONDocument(case.raw) for case in cases if case in kept])
    put_events(pipeline, "corners", [case.raw for case in cases if case not in kept])
    expected = canonical([seed, other_seed, *(case.raw for case in cases)])
    pipeline.await_rows("corners", lambda: expected, TIMEOUT_S)
    for key, document in pipeline.documents("corners").items():
        assert document == expected[key], f"{key}: read from the source by the bson package"

    check_columns(pipeline)
    for name, read in READERS.items():
        rows = read(pipeline.table_url("corners"), pipeline.stack.object_store).to_pylist()
        assert pipeline.rows("corners", read) == expected, name
        check_outcomes({row["_id"]: row for row in rows}, cases)


def test_ids_of_every_type(shared_pipeline: MongoPipeline) -> None:
    """The source keeps one of ids that it takes for equal (to SecantusDB subtypes of a binary are)."""
    cases = [case for case in bson_cases() if case.field in ID_FIELDS and case.kept_by_secantus]
    documents = [raw_document({"_id": case.value, "case": element(case.id)}) for case in cases if case.id not in NO_IDS]
    collection = raw_database(shared_pipeline)["ids"]
    with suppress(BulkWriteError):
        collection.insert_many([RawBSONDocument(raw) for raw in documents], ordered=False)
    stored = {bytes(each.raw) for each in collection.find()}
    assert stored <= set(documents)
    assert len(stored) > MIN_IDS
    shared_pipeline.await_rows("ids", lambda: canonical(stored), TIMEOUT_S)


def test_fields_that_change_their_type_with_every_change(shared_pipeline: MongoPipeline, rng: random.Random) -> None:
    pipeline, collection = shared_pipeline, raw_database(shared_pipeline)["storm"]
    cases = [case for case in bson_cases() if case.kept_by_secantus]
    versions = {case.id: [case, *_of_other_fields(rng, cases, case)] for case in cases}

    documents = {
        id: [raw_document({"_id": element(id), "v": version.value}) for version in each]
        for id, each in versions.items()
    }
    firsts, seconds, thirds = zip(*documents.values(), strict=True)
    collection.insert_many([RawBSONDocument(first) for first in firsts])
    collection.bulk_write([ReplaceOne({"_id": id}, RawBSONDocument(each[1])) for id, each in documents.items()])
    sets = {id: raw_document({"v": third.value}) for id, (_, _, third) in versions.items()}
    collection.bulk_write([UpdateOne({"_id": id}, {"$set": RawBSONDocument(each)}) for id, each in sets.items()])

    pipeline.await_rows("storm", lambda: canonical(thirds), TIMEOUT_S)
    history = wait_until(lambda: _history(pipeline, "storm", 3 * len(cases)), TIMEOUT_S, "the history has every change")
    assert Counter(op for op, _, _ in history) == {"c": len(cases), "u": 2 * len(cases)}
    changes = {op: {(key, document) for each, key, document in history if each == op} for op in "cu"}
    assert changes["c"] == set(canonical(firsts).items())
    assert changes["u"] == set(canonical(seconds).items()) | set(canonical(thirds).items())


def canonical(documents: Iterable[bytes]) -> dict[str, bytes]:
    """Key → the canonical form, of documents as bytes."""
    return {document_key(raw): canonical_document(document_text(raw)) for raw in documents}


def _of_other_fields(rng: random.Random, cases: Sequence[BsonCase], first: BsonCase) -> list[BsonCase]:
    """A second and a third case, each of another field than the one before, and another value: else nothing changes."""

    def another(than: BsonCase) -> BsonCase:
        return rng.choice([case for case in cases if case.field != than.field and case.value != than.value])

    second = another(first)
    return [second, another(second)]


def raw_database(pipeline: MongoPipeline, name: str | None = None) -> Raw:
    """The pipeline's database, or another one of the source, as bytes."""
    options = CodecOptions(document_class=RawBSONDocument)
    return pipeline.db.client.get_database(name or pipeline.database, codec_options=options)


def kept_by_the_source(pipeline: MongoPipeline, cases: Sequence[BsonCase]) -> set[BsonCase]:
    """The cases whose documents the source gives back byte for byte. Raises AssertionError for one that should be."""
    trial = raw_database(pipeline, f"{pipeline.database}-kept")
    try:
        for case in cases:
            with suppress(OperationFailure):  # refused
                trial["cases"].insert_one(RawBSONDocument(case.raw))
        stored = {bytes(each.raw) for each in trial["cases"].find()}
    finally:
        trial.client.drop_database(trial.name)
    kept = {case for case in cases if case.raw in stored}
    assert [case.id for case in cases if case.kept_by_secantus and case not in kept] == []
    return kept


def put_events(pipeline: MongoPipeline, collection: str, documents: Iterable[bytes]) -> None:
    """Put the insert of each document into the collection's topic, as Debezium writes it."""
    envelope = json.loads(
        event_value("c", {}, pipeline=pipeline.name, database=pipeline.database, collection=collection, ts_ms=1)
    )
    producer = Producer({"bootstrap.servers": pipeline.stack.kafka})
    for raw in documents:
        value = json.dumps(envelope | {"after": document_text(raw)})
        producer.produce(pipeline.topic(collection), value.encode(), json.dumps({"id": document_key(raw)}).encode())
    assert producer.flush(TIMEOUT_S) == 0


def check_columns(pipeline: MongoPipeline) -> None:
    """The columns have the documented types, and there is no other column."""
    table = open_table(pipeline.table_url("corners"), pipeline.stack.object_store)
    assert table is not None
    columns = {each["name"]: each for each in json.loads(table.schema().to_json())["fields"]}
    found = {
        name: (column_type(each["type"]), each["metadata"]["cdc.type"])
        for name, each in columns.items()
        if not name.startswith("_cdc_") and name != "_id"
    }
    documented = [each for each in documented_outcomes().values() if each.column is not None]
    assert found == {each.field: (each.column, each.cdc_type) for each in documented}


def check_outcomes(rows: Mapping[str, Mapping[str, Any]], cases: Sequence[BsonCase]) -> None:
    """What is documented to be rescued is, and all else is in its column, as the type's users expect to find it."""
    outcomes = documented_outcomes()
    for case in cases:
        row, outcome = rows[case.id], outcomes[case.field]
        assert (row["_cdc_rescued"] is not None) == (case.name in outcome.rescued), case.id
        assert_cell(case, row.get(case.field), row["_cdc_rescued"], outcome.cdc_type)


def _history(pipeline: MongoPipeline, collection: str, changes: int) -> list[tuple[str, str, bytes]] | None:
    """Op, key and document of every change in the history; None while it has not that many."""
    url, store = f"{pipeline.table_url(collection)}__changes", pipeline.stack.object_store
    table = open_table(url, store)
    if table is None:
        return None
    schema = from_delta_schema(table.schema().to_json())
    rows = read_with_query_builder(url, store).to_pylist()
    found = [(row["_cdc_op"], row["_cdc_key"], canonical_row(row, schema, row["_cdc_rescued"])) for row in rows]
    return found if len(found) >= changes else None
