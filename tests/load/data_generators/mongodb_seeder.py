"""Load the sample shop into MongoDB: `customers` and `orders` (see `shop` for their documents).

Run again with the same seed, it adds only what is missing: the `_id`s are derived from the seed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import typer
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError

if __package__:
    from .shop import Document, Shop
else:  # run as a script: Python put this folder on the path, not its parent
    from shop import Document, Shop  # type: ignore[import-not-found,no-redef]

BATCH_DOCUMENTS = 1_000
SERVER_SELECTION_TIMEOUT_MS = 10_000
DUPLICATE_KEY = 11000


@dataclass(frozen=True)
class Seeded:
    """How many documents a seeding inserted; the others were there already."""

    customers: int
    orders: int


def seed_shop(database: Database[Document], shop: Shop, *, customers: int, orders: int) -> Seeded:
    """Insert that many customers, and orders spread over them, in bulks. A document whose `_id` is taken is left alone.

    Raises pymongo's errors: ConnectionFailure when MongoDB is away, BulkWriteError when it refuses a document.
    """
    if orders and not customers:
        raise ValueError("orders belong to customers: ask for at least one customer")
    people = [shop.customer() for _ in range(customers)]
    new_customers = _insert_missing(database["customers"], people)
    placed = (shop.order(people[number % customers]["_id"]) for number in range(orders))
    return Seeded(new_customers, _insert_missing(database["orders"], placed))


def _insert_missing(collection: Collection[Document], documents: Iterable[Document]) -> int:
    inserted = 0
    remaining = iter(documents)
    while batch := list(islice(remaining, BATCH_DOCUMENTS)):
        try:
            inserted += len(collection.insert_many(batch, ordered=False).inserted_ids)
        except BulkWriteError as error:
            if any(failure["code"] != DUPLICATE_KEY for failure in error.details["writeErrors"]):
                raise
            inserted += error.details["nInserted"]
    return inserted


def main(
    uri: Annotated[str, typer.Option(envvar="MONGODB_URI", help="Where MongoDB listens.", show_envvar=True)],
    database: Annotated[str, typer.Option(help="The database to fill.")] = "shop",
    customers: Annotated[int, typer.Option(min=1, help="How many customers.")] = 200,
    orders: Annotated[int, typer.Option(min=0, help="How many orders, spread over the customers.")] = 1_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same documents.")] = 0,
) -> None:
    """Load the sample shop into MongoDB. Run again, it adds only what is missing."""
    started = time.monotonic()
    with MongoClient[Document](uri, serverSelectionTimeoutMS=SERVER_SELECTION_TIMEOUT_MS) as client:
        seeded = seed_shop(client[database], Shop(seed), customers=customers, orders=orders)
    present = f"{customers - seeded.customers} and {orders - seeded.orders} were there already"
    took = f"in {time.monotonic() - started:.1f} s"
    typer.echo(f"{database}: inserted {seeded.customers} customers and {seeded.orders} orders {took} ({present})")


if __name__ == "__main__":
    typer.run(main)
