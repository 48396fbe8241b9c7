"""Every BSON type comes through MongoDB, Debezium, Kafka and the writer unaltered."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import pytest
from bson import ObjectId
from bson_documents import UNIFORM_DELTA_TYPES, delta_type, golden_document, uniform_document
from delta_reading import open_table, read_with_duckdb
from mongo_pipeline import MongoPipeline

from cdc_shared.documents import canonical_document, key_text

pytestmark = pytest.mark.e2e

UNIFORM_DOCUMENTS = 100
TIMEOUT_S = 60.0


def test_the_golden_document_arrives_unaltered(shared_pipeline: MongoPipeline) -> None:
    pipeline = shared_pipeline
    documents = [{"_id": ObjectId(), "i": i, **golden_document()} for i in range(3)]
    pipeline.db["rich"].insert_many(documents)
    pipeline.await_equal("rich", TIMEOUT_S)
    sent = {key_text(each["_id"]): canonical_document(each) for each in documents}
    assert pipeline.rows("rich") == sent, "what was sent, not only what MongoDB gives back"

    pipeline.db["rich"].replace_one({"_id": documents[0]["_id"]}, {"replaced": True})
    pipeline.db["rich"].update_one({"_id": documents[1]["_id"]}, {"$set": {"nested.a.b": None}, "$unset": {"dec": 1}})
    pipeline.await_equal("rich", TIMEOUT_S)


def test_a_uniform_collection_has_typed_columns_and_nothing_rescued(shared_pipeline: MongoPipeline) -> None:
    pipeline = shared_pipeline
    documents = [uniform_document(n) for n in range(UNIFORM_DOCUMENTS)]
    pipeline.db["uniform"].insert_many(documents)
    pipeline.await_equal("uniform", TIMEOUT_S)
    sent = {key_text(each["_id"]): canonical_document(each) for each in documents}
    assert pipeline.rows("uniform") == sent

    table = open_table(pipeline.table_url("uniform"), pipeline.stack.object_store)
    assert table is not None
    columns = delta_type(json.loads(table.schema().to_json()))
    assert {name: each for name, each in columns.items() if not name.startswith("_cdc_")} == UNIFORM_DELTA_TYPES

    rows = read_with_duckdb(pipeline.table_url("uniform"), pipeline.stack.object_store).to_pylist()
    assert [row["_cdc_rescued"] for row in rows] == [None] * UNIFORM_DOCUMENTS
    assert pipeline.writer.metric("cdc_rescued_values_total", pipeline=pipeline.name, collection="uniform") == 0
    _check_typed_values(documents[7], next(row for row in rows if row["_id"] == f"{7:024x}"))


def _check_typed_values(document: dict[str, Any], row: dict[str, Any]) -> None:
    """The columns hold what SQL users expect, each in its type."""
    assert row["str"] == document["str"]
    assert (row["int32"], row["int64"]) == (-43, 2**53 + 7)
    assert row["dbl"] == 1.0
    assert not math.isnan(row["dbl"])
    assert row["dec"] == Decimal("712345678901234567.0123456789")
    assert row["bool"] is False
    assert row["date"] == document["date"]
    assert row["oid"] == str(document["oid"])
    assert row["uuid"] == str(document["uuid"].as_uuid())
    assert row["bin"] == bytes(document["bin"])
    assert row["re"]["pattern"] == "^a7.*$"
    assert row["ts"] == {"t": 1_700_000_007, "i": 7}
    assert row["obj"] == {"n": 7, "deep": {"when": document["date"], "tags": ["x"]}}
    assert row["longs"] == [7, -7]
    assert row["objs"] == [{"sku": "s7", "price": Decimal("7.50")}]
    assert json.loads(row["mixed"]) == [{"$numberInt": "7"}, "7", None, [{"$numberDouble": "3.5"}]]
