"""The main job: what is written into MongoDB is in the Delta table seconds later, exactly."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from bson import Binary, ObjectId
from mongo_pipeline import MongoPipeline
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne

from cdc_shared.documents import canonical_document, key_text

pytestmark = pytest.mark.e2e

DOCUMENTS = 1_000
ARRIVAL_LIMIT_S = 60.0

IDS: tuple[Any, ...] = (
    7,
    2**53 + 1,
    'text with "quotes", ü and \u2028',
    ObjectId("65a1f0c80000000000000001"),
    {"a": 1, "b": "x"},
    Binary.from_uuid(UUID(int=9)),
    datetime(2024, 1, 1, tzinfo=UTC),
    1.5,
    True,
)


def test_a_thousand_documents_arrive_within_a_minute(
    pipeline: MongoPipeline, measured: Callable[[str, float, str], None]
) -> None:
    started = time.monotonic()
    pipeline.db["orders"].insert_many({"_id": n, "name": f"order {n}", "total": n / 8} for n in range(DOCUMENTS))
    pipeline.await_equal("orders", ARRIVAL_LIMIT_S)
    measured("1,000 documents inserted in MongoDB, new collection, all in the table", time.monotonic() - started, "s")
    assert len(pipeline.rows("orders")) == DOCUMENTS

    started = time.monotonic()
    pipeline.db["orders"].insert_many({"_id": n, "name": f"order {n}"} for n in range(DOCUMENTS, 2 * DOCUMENTS))
    pipeline.await_equal("orders", ARRIVAL_LIMIT_S)
    measured("1,000 more in the same collection", time.monotonic() - started, "s")


def test_what_was_there_before_the_connector_arrives_with_what_came_after(
    new_pipeline: Callable[..., MongoPipeline],
) -> None:
    pipeline = new_pipeline(start=False)
    pipeline.db["orders"].insert_many({"_id": n, "v": "before"} for n in range(300))
    pipeline.start()
    pipeline.db["orders"].insert_many({"_id": n, "v": "after"} for n in range(300, 400))
    pipeline.db["orders"].delete_many({"_id": {"$lt": 50}})
    pipeline.await_equal("orders", ARRIVAL_LIMIT_S)


def test_every_kind_of_write_arrives(pipeline: MongoPipeline) -> None:
    orders = pipeline.db["orders"]
    orders.insert_many({"_id": n, "v": 0, "gone": "soon", "list": [1, 2]} for n in range(100))
    pipeline.await_equal("orders", ARRIVAL_LIMIT_S)

    orders.update_many({"_id": {"$lt": 20}}, {"$set": {"v": 1, "new": {"deep": True}}, "$unset": {"gone": 1}})
    orders.update_many({"_id": {"$gte": 90}}, {"$push": {"list": 3}})
    orders.delete_many({"_id": {"$gte": 20, "$lt": 40}})
    orders.replace_one({"_id": 50}, {"replaced": "whole"})
    orders.update_one({"_id": 1_000}, {"$set": {"v": "upserted"}}, upsert=True)
    orders.replace_one({"_id": 1_001}, {"v": "upserted whole"}, upsert=True)
    orders.bulk_write(
        [
            InsertOne({"_id": 2_000, "v": 1}),
            UpdateOne({"_id": 2_000}, {"$inc": {"v": 1}}),
            ReplaceOne({"_id": 2_000}, {"v": "last"}),
            InsertOne({"_id": 2_001}),
            DeleteOne({"_id": 2_001}),
            DeleteOne({"_id": 60}),
            InsertOne({"_id": 60, "again": True}),
        ]
    )
    pipeline.await_equal("orders", ARRIVAL_LIMIT_S)
    assert "2001" not in pipeline.rows("orders")

    orders.delete_many({})
    pipeline.await_equal("orders", ARRIVAL_LIMIT_S)


def test_ids_of_every_type(pipeline: MongoPipeline) -> None:
    documents = [{"_id": each, "v": 1} for each in IDS]
    pipeline.db["ids"].insert_many(documents)
    pipeline.await_equal("ids", ARRIVAL_LIMIT_S)
    assert pipeline.rows("ids") == {key_text(each["_id"]): canonical_document(each) for each in documents}
    for each in IDS[::2]:
        pipeline.db["ids"].delete_one({"_id": each})
    for each in IDS[1::2]:
        pipeline.db["ids"].update_one({"_id": each}, {"$set": {"v": 2}})
    pipeline.await_equal("ids", ARRIVAL_LIMIT_S)


def test_collections_with_names_that_topics_and_paths_cannot_hold(pipeline: MongoPipeline) -> None:
    for name in ("a.b", "Größe & Maß", "with space"):
        pipeline.db[name].insert_many({"_id": n, "from": name} for n in range(5))
    for name in ("a.b", "Größe & Maß", "with space"):
        pipeline.await_equal(name, ARRIVAL_LIMIT_S)
