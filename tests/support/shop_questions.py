"""A small shop, and questions about it that MongoDB and DuckDB must answer alike."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import Decimal128, ObjectId
from mongo_pipeline import MongoPipeline
from pymongo.database import Database

from cdc_shared.analytics.lake import Lake

CUSTOMERS = 40
ORDERS = 600
STATUSES = ("new", "paid", "shipped", "cancelled")
CITIES = ("Oslo", "Kyiv", "Lima", "São Paulo", "")
FIRST_DAY = datetime(2026, 1, 30, 21, tzinfo=UTC)


@dataclass(frozen=True)
class Question:
    """`stages` for MongoDB's aggregation of `collection`; `sql` says {orders} and {customers} of the tables.

    Both give the same columns, in the order of the keys of an answer's first document; the order of rows is nothing.
    """

    name: str
    collection: str
    stages: Sequence[dict[str, Any]]
    sql: str


def fill_shop(db: Database[dict[str, Any]], rng: random.Random) -> None:
    """Make customers and orders, then change some and delete some, so that tables have deletion vectors."""
    customers = [
        {"_id": ObjectId(), "name": f"c{number}", "city": rng.choice(CITIES), "vip": rng.random() < 0.3}
        for number in range(CUSTOMERS)
    ]
    db["customers"].insert_many(customers)
    db["orders"].insert_many([_order(number, rng, customers) for number in range(ORDERS)])
    for number in rng.sample(range(ORDERS), ORDERS // 5):
        db["orders"].update_one({"_id": number}, {"$set": {"status": rng.choice(STATUSES)}})
    db["orders"].delete_many({"_id": {"$in": rng.sample(range(ORDERS), ORDERS // 10)}})


def _order(number: int, rng: random.Random, customers: list[dict[str, Any]]) -> dict[str, Any]:
    order: dict[str, Any] = {
        "_id": number,
        "customer": rng.choice(customers)["_id"],
        "status": rng.choice(STATUSES),
        "at": FIRST_DAY + timedelta(minutes=rng.randrange(60 * 24 * 60)),
        "total": Decimal128(f"{rng.randrange(100_000) / 100:.2f}"),
        "address": {"country": rng.choice(("NO", "UA", "PE")), "zip": f"{rng.randrange(100):05}"},
        "items": [
            {"sku": f"s{rng.randrange(12)}", "quantity": rng.randrange(1, 5), "price": rng.randrange(400) / 4}
            for _ in range(rng.randrange(4))
        ],
        "tags": rng.sample(("gift", "express", "b2b"), rng.randrange(3)),
    }
    if rng.random() < 0.3:
        order["note"] = rng.choice(("", "ring twice", "naïve ☂"))
    return order


def lake_of(pipeline: MongoPipeline) -> Lake:
    """DuckDB on the pipeline's tables."""
    root = pipeline.table_url("orders").rsplit("/", 3)[0]
    return Lake(pipeline.stack.object_store, root)


def in_sql(pipeline: MongoPipeline, sql: str) -> str:
    """The question with the tables' names."""
    return sql.format(**{name: f'"{pipeline.name}"."{pipeline.database}".{name}' for name in ("orders", "customers")})


def check_answers_alike(pipeline: MongoPipeline, lake: Lake, question: Question) -> None:
    """Ask both; fail unless they answer the same rows."""
    assert answer_of_lake(pipeline, lake, question) == answer_of_mongodb(pipeline, question), question.name


def answer_of_mongodb(pipeline: MongoPipeline, question: Question) -> list[str]:
    """The rows of its aggregation, in the form that both are compared in."""
    plain = pipeline.db.client.get_database(pipeline.database)
    documents = list(plain[question.collection].aggregate(list(question.stages)))
    names = list(documents[0])
    return sorted(repr([(name, _value(each.get(name))) for name in sorted(names)]) for each in documents)


def answer_of_lake(pipeline: MongoPipeline, lake: Lake, question: Question) -> list[str]:
    """The rows of DuckDB's answer, in the same form."""
    rows = lake.query(in_sql(pipeline, question.sql)).to_pylist()
    return sorted(repr([(name, _value(row[name])) for name in sorted(row)]) for row in rows)


def _value(value: Any) -> Any:
    """The same value alike, whichever of the two gave it: ids as text, numbers as exact text, times in UTC."""
    if isinstance(value, list):
        return [_value(each) for each in value]
    if isinstance(value, dict):
        return {name: _value(each) for name, each in value.items()}
    if isinstance(value, ObjectId):
        return str(value)
    if isinstance(value, Decimal128):
        value = value.to_decimal()
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return f"{value:.6f}"
