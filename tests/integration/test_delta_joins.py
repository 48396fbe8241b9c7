"""Tables are joined as MongoDB's $lookup joins collections."""

import random

import pytest
from bson import ObjectId
from mongo_pipeline import MongoPipeline
from shop_questions import Question, check_answers_alike, fill_shop, lake_of

pytestmark = pytest.mark.integration

LOOKUP = {"$lookup": {"from": "customers", "localField": "customer", "foreignField": "_id", "as": "who"}}

QUESTIONS = [
    Question(
        "orders with a field of their customers",
        "orders",
        [LOOKUP, {"$unwind": "$who"}, {"$project": {"_id": 1, "name": "$who.name"}}],
        "SELECT o._id, c.name FROM {orders} o JOIN {customers} c ON c._id = o.customer",
    ),
    Question(
        "groups by a field of the other side",
        "orders",
        [
            LOOKUP,
            {"$unwind": "$who"},
            {"$match": {"who.vip": True}},
            {"$group": {"_id": "$who.city", "orders": {"$sum": 1}, "total": {"$sum": "$total"}}},
        ],
        """SELECT c.city AS _id, count(*) AS orders, sum(o.total) AS total
           FROM {orders} o JOIN {customers} c ON c._id = o.customer WHERE c.vip GROUP BY ALL""",
    ),
    Question(
        "customers with the number of their orders, those without any too",
        "customers",
        [
            {"$lookup": {"from": "orders", "localField": "_id", "foreignField": "customer", "as": "orders"}},
            {"$project": {"_id": 1, "orders": {"$size": "$orders"}}},
        ],
        """SELECT c._id, count(o._id) AS orders
           FROM {customers} c LEFT JOIN {orders} o ON o.customer = c._id GROUP BY ALL""",
    ),
]


def test_tables_are_joined_as_collections_are(pipeline: MongoPipeline, rng: random.Random) -> None:
    fill_shop(pipeline.db, rng)
    pipeline.db["customers"].insert_one({"_id": ObjectId(), "name": "without orders", "city": "Oslo", "vip": True})
    for collection in ("orders", "customers"):
        pipeline.await_equal(collection)

    with lake_of(pipeline) as lake:
        for question in QUESTIONS:
            check_answers_alike(pipeline, lake, question)
