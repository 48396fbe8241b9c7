"""DuckDB answers as MongoDB's own aggregation does: filters, groups, arrays, nested fields, dates, missing fields."""

import random

import pytest
from mongo_pipeline import MongoPipeline
from shop_questions import Question, check_answers_alike, fill_shop, lake_of

pytestmark = pytest.mark.integration

QUESTIONS = [
    Question(
        "a filter on several fields, one of them nested",
        "orders",
        [
            {"$match": {"status": {"$in": ["paid", "shipped"]}, "address.country": "NO", "_id": {"$gte": 100}}},
            {"$project": {"_id": 1, "status": 1}},
        ],
        """SELECT _id, status FROM {orders}
           WHERE status IN ('paid', 'shipped') AND address.country = 'NO' AND _id >= 100""",
    ),
    Question(
        "a group with sums that are exact",
        "orders",
        [{"$group": {"_id": "$status", "orders": {"$sum": 1}, "total": {"$sum": "$total"}, "last": {"$max": "$at"}}}],
        """SELECT status AS _id, count(*) AS orders, sum(total) AS total, max("at") AS last
           FROM {orders} GROUP BY ALL""",
    ),
    Question(
        "elements of an array, each a row",
        "orders",
        [
            {"$unwind": "$items"},
            {
                "$group": {
                    "_id": "$items.sku",
                    "sold": {"$sum": "$items.quantity"},
                    "revenue": {"$sum": {"$multiply": ["$items.quantity", "$items.price"]}},
                }
            },
        ],
        """SELECT item.sku AS _id, sum(item.quantity) AS sold, sum(item.quantity * item.price) AS revenue
           FROM (SELECT unnest(items) AS item FROM {orders}) GROUP BY ALL""",
    ),
    Question(
        "an array that holds a value",
        "orders",
        [{"$match": {"tags": "gift"}}, {"$project": {"_id": 1, "tags": 1}}],
        "SELECT _id, tags FROM {orders} WHERE list_contains(tags, 'gift')",
    ),
    Question(
        "days of a time of day that is another day elsewhere",
        "orders",
        [
            {"$group": {"_id": {"$dateToString": {"date": "$at", "format": "%Y-%m-%d"}}, "orders": {"$sum": 1}}},
            {"$match": {"orders": {"$gt": 3}}},
        ],
        """SELECT strftime("at", '%Y-%m-%d') AS _id, count(*) AS orders FROM {orders} GROUP BY 1 HAVING count(*) > 3""",
    ),
    Question(
        "a field that only some documents have",
        "orders",
        [
            {"$match": {"note": {"$ne": None}}},
            {"$group": {"_id": "$note", "orders": {"$sum": 1}}},
        ],
        "SELECT note AS _id, count(*) AS orders FROM {orders} WHERE note IS NOT NULL GROUP BY ALL",
    ),
]


def test_duckdb_answers_as_mongodb_does(pipeline: MongoPipeline, rng: random.Random) -> None:
    fill_shop(pipeline.db, rng)
    pipeline.await_equal("orders")

    with lake_of(pipeline) as lake:
        for question in QUESTIONS:
            check_answers_alike(pipeline, lake, question)
