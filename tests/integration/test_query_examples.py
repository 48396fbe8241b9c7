"""Every SQL in docs/api/query-examples.md is run on a shop like the sample's, and none comes back empty."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from data_generators.mongodb_seeder import seed_shop
from data_generators.shop import Shop
from mongo_pipeline import MongoPipeline
from shop_questions import lake_of

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "api" / "query-examples.md"
CUSTOMERS = 30
ORDERS = 200


def examples() -> list[str]:
    return re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def fill(pipeline: MongoPipeline, rng: random.Random) -> None:
    """A shop with what the page speaks of: changes, deletes, a customer without orders, a value that does not fit."""
    db = pipeline.db
    seed_shop(db, Shop(rng.randrange(2**32)), customers=CUSTOMERS, orders=ORDERS)
    pipeline.await_equal("orders")
    ids = [each["_id"] for each in db["orders"].find({}, {"_id": 1})]
    for _id in ids[:20]:
        db["orders"].update_one({"_id": _id}, {"$set": {"status": "delivered"}})
    db["orders"].update_one({"_id": ids[30]}, {"$set": {"weight_kg": "heavy"}})
    db["orders"].delete_many({"_id": {"$in": ids[40:45]}})
    db["customers"].insert_one(Shop(1).customer())
    for collection in ("orders", "customers"):
        pipeline.await_equal(collection)


def test_every_example_answers(new_pipeline: Callable[..., MongoPipeline], rng: random.Random) -> None:
    pipeline = new_pipeline(history=True)
    fill(pipeline, rng)
    here = f'"{pipeline.name}"."{pipeline.database}".'
    statements = examples()
    assert len(statements) >= 12
    with lake_of(pipeline) as lake:
        for sql in statements:
            assert "shop.shop." in sql
            answer = lake.query(sql.replace("shop.shop.", here))
            assert answer.num_rows > 0, sql
