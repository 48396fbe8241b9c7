"""The demo shop while its generator changes it: DuckDB's answers are MongoDB's own aggregations, within the lag."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from data_generators.change_generator import ChangeGenerator
from mongo_pipeline import MongoPipeline
from shop_questions import Question, answer_of_lake, answer_of_mongodb, lake_of
from waiting import wait_until

from cdc_shared.analytics.lake import Lake

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

ROUNDS = 4
ROUND_S = 3.0
CHANGES_PER_S = 150.0
MAX_LAG_S = 15.0
QUESTIONS = [
    Question(
        "a filter",
        "orders",
        [
            {"$match": {"status": "paid", "shipping_address.country": {"$in": ["NO", "FR"]}}},
            {"$project": {"_id": 1, "total": 1, "order_number": 1}},
        ],
        """SELECT _id, total, order_number FROM {orders}
           WHERE status = 'paid' AND shipping_address.country IN ('NO', 'FR')""",
    ),
    Question(
        "a group",
        "orders",
        [
            {
                "$group": {
                    "_id": "$status",
                    "orders": {"$sum": 1},
                    "total": {"$sum": "$total"},
                    "latest": {"$max": "$updated_at"},
                }
            }
        ],
        """SELECT status AS _id, count(*) AS orders, sum(total) AS total, max(updated_at) AS latest
           FROM {orders} GROUP BY ALL""",
    ),
    Question(
        "items, each a row",
        "orders",
        [
            {"$unwind": "$items"},
            {"$group": {"_id": "$items.sku", "sold": {"$sum": "$items.quantity"}, "orders": {"$sum": 1}}},
        ],
        """SELECT item.sku AS _id, sum(item.quantity) AS sold, count(*) AS orders
           FROM {orders}, unnest(items) AS line(item) GROUP BY ALL""",
    ),
    Question(
        "customers of orders",
        "orders",
        [
            {"$lookup": {"from": "customers", "localField": "customer_id", "foreignField": "_id", "as": "customer"}},
            {"$unwind": "$customer"},
            {"$group": {"_id": "$customer.email", "spent": {"$sum": "$total"}, "orders": {"$sum": 1}}},
        ],
        """SELECT c.email AS _id, sum(o.total) AS spent, count(*) AS orders
           FROM {orders} o JOIN {customers} c ON c._id = o.customer_id GROUP BY ALL""",
    ),
    Question(
        "months",
        "orders",
        [
            {
                "$group": {
                    "_id": {"$dateToString": {"date": "$created_at", "format": "%Y-%m"}},
                    "orders": {"$sum": 1},
                    "kg": {"$avg": "$weight_kg"},
                }
            }
        ],
        """SELECT strftime(created_at, '%Y-%m') AS _id, count(*) AS orders, avg(weight_kg) AS kg
           FROM {orders} GROUP BY ALL""",
    ),
]


def await_answer(pipeline: MongoPipeline, lake: Lake, question: Question, expected: list[str]) -> None:
    wait_until(
        lambda: answer_of_lake(pipeline, lake, question) == expected,
        MAX_LAG_S,
        f"{question.name} is answered as by MongoDB",
    )


def test_answers_are_those_of_mongodb_within_the_lag(
    pipeline: MongoPipeline, rng: random.Random, measured: Callable[[str, float, str], None]
) -> None:
    generator = ChangeGenerator(
        pipeline.db.client.get_database(pipeline.database), rate=CHANGES_PER_S, seed=rng.randrange(2**32)
    )
    longest_s = 0.0
    with lake_of(pipeline) as lake:
        for turn in range(ROUNDS):
            generator.run(ROUND_S)
            ended = time.monotonic()
            expected = {question.name: answer_of_mongodb(pipeline, question) for question in QUESTIONS}
            if turn == 0:  # the snapshot
                pipeline.await_equal("orders")
                pipeline.await_equal("customers")
                ended = time.monotonic()
            for question in QUESTIONS:
                await_answer(pipeline, lake, question, expected[question.name])
            longest_s = max(longest_s, time.monotonic() - ended)
    assert sum(generator.counts.values()) > ROUNDS * ROUND_S * CHANGES_PER_S / 3
    assert generator.counts["delete"] > 0
    assert generator.counts["update"] > 0
    measured("the shop's answers equal MongoDB's, after its last change, at most", longest_s, "s")
