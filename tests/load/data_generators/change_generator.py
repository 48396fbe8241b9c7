"""Keep the sample shop changing: a paced, endless and bounded stream of inserts, updates, replaces and deletes.

It may run for weeks beside a stack: `orders` is held within `max_orders`, and a MongoDB that goes away is waited for.
"""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from bson import Int64, ObjectId
from pymongo import DeleteOne, InsertOne, MongoClient, ReplaceOne, UpdateOne
from pymongo.database import Database
from pymongo.errors import ConnectionFailure
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_when_event_set, wait_random_exponential
from tenacity.nap import sleep_using_event

if __package__:
    from .mongodb_seeder import seed_shop
    from .shop import MAX_ITEMS_PER_ORDER, ORDER_STATUSES, Document, Shop
else:  # run as a script: Python put this folder on the path, not its parent
    from mongodb_seeder import seed_shop  # type: ignore[import-not-found,no-redef]
    from shop import MAX_ITEMS_PER_ORDER, ORDER_STATUSES, Document, Shop  # type: ignore[import-not-found,no-redef]

log = logging.getLogger("change-generator")

Write = InsertOne[Document] | UpdateOne | ReplaceOne[Document] | DeleteOne

TICK_S = 0.1
"""Above 1 / TICK_S changes a second, what is due in a tick goes out as one bulk."""
MAX_BULK_WRITES = 1_000
MAX_CATCH_UP_S = 1.0
"""After a slow write or an outage, no more than this much of the lost time is made up for."""
REPORT_INTERVAL_S = 60.0
MAX_BACKOFF_S = 30.0
SERVER_SELECTION_TIMEOUT_MS = 5_000
FIRST_CUSTOMERS = 100
FIRST_ORDERS = 200

OPERATIONS = ("insert", "status", "add_item", "readdress", "replace", "customer", "delete")
OPERATION_WEIGHTS = (20, 30, 12, 8, 5, 10, 15)


class ChangeGenerator:
    """Writes changes to `customers` and `orders` of one database until it is stopped.

    `counts` says how many of each kind ("insert", "update", "delete") MongoDB has acknowledged. `stop` may be set
    from any thread or signal handler: the bulk in hand is finished, then `run` returns.
    """

    def __init__(
        self,
        database: Database[Document],
        *,
        rate: float = 5.0,
        max_orders: int = 2_000,
        seed: int | None = None,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if rate <= 0 or max_orders < 1:
            raise ValueError(f"rate and max_orders must be positive, got {rate} and {max_orders}")
        self.counts: Counter[str] = Counter()
        self.stop = stop or threading.Event()
        self._orders, self._customers = database["orders"], database["customers"]
        self._database = database
        self._rate = rate
        self._max_orders = max_orders
        self._random = random.Random(seed)
        self._shop = Shop(self._random.randrange(2**32), now=lambda: datetime.now(UTC), new_id=ObjectId)
        self._clock = clock
        self._order_ids: list[ObjectId] = []
        self._customer_ids: list[ObjectId] = []

    def run(self, seconds: float | None = None) -> None:
        """Write changes at the rate for that long, or until stopped. An outage is not caught up on."""
        deadline = None if seconds is None else self._clock() + seconds
        reported = self._clock()
        for due in self._paced(deadline):
            for attempt in self._until_reachable():
                with attempt:
                    if not self._order_ids or not self._customer_ids:
                        self._load_ids()
                    self._write(min(due, MAX_BULK_WRITES))
            if self._clock() - reported >= REPORT_INTERVAL_S:
                reported = self._clock()
                log.info("%s", self.summary())

    def summary(self) -> str:
        """One line on what has been written so far."""
        written = ", ".join(f"{self.counts[kind]} {kind}s" for kind in ("insert", "update", "delete"))
        return f"{written} written; {len(self._order_ids)} orders of at most {self._max_orders}"

    def _paced(self, deadline: float | None) -> Iterator[int]:
        """Yield how many changes are due, each time some are."""
        interval_s = max(TICK_S, 1 / self._rate)
        owed, last = 0.0, self._clock()
        while not self.stop.wait(interval_s if deadline is None else max(0.0, min(interval_s, deadline - last))):
            now = self._clock()
            if deadline is not None and now >= deadline:
                return
            owed += min(now - last, interval_s + MAX_CATCH_UP_S) * self._rate
            last = now
            if owed >= 1:
                yield int(owed)
                owed %= 1

    def _until_reachable(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(ConnectionFailure),
            wait=wait_random_exponential(multiplier=0.5, max=MAX_BACKOFF_S),
            stop=stop_when_event_set(self.stop),
            sleep=sleep_using_event(self.stop),
            before_sleep=_log_outage,
            retry_error_callback=lambda _: None,
        )

    def _load_ids(self) -> None:
        """Learn which documents there are; a database without any gets its first ones."""
        if self._customers.find_one({}, {"_id": 1}) is None:
            seed_shop(self._database, self._shop, customers=FIRST_CUSTOMERS, orders=min(FIRST_ORDERS, self._max_orders))
        self._customer_ids = [document["_id"] for document in self._customers.find({}, {"_id": 1})]
        self._order_ids = [document["_id"] for document in self._orders.find({}, {"_id": 1})]
        self._random.shuffle(self._order_ids)

    def _write(self, changes: int) -> None:
        order_writes: list[Write] = []
        customer_writes: list[Write] = []
        kinds: Counter[str] = Counter()
        for _ in range(changes):
            operation = self._choose()
            kinds[operation if operation in {"insert", "delete"} else "update"] += 1
            writes = customer_writes if operation == "customer" else order_writes
            writes.append(getattr(self, f"_{operation}")())
        try:
            if order_writes:
                self._orders.bulk_write(order_writes)
            if customer_writes:
                self._customers.bulk_write(customer_writes)
        except ConnectionFailure:
            self._order_ids = []  # part of it may have been written: ask again which orders there are
            raise
        self.counts.update(kinds)

    def _choose(self) -> str:
        operation = self._random.choices(OPERATIONS, OPERATION_WEIGHTS)[0]
        if operation == "insert" and len(self._order_ids) >= self._max_orders:
            return "delete"
        if operation != "customer" and not self._order_ids:
            return "insert"
        return operation

    def _any_order(self) -> Document:
        return {"_id": self._random.choice(self._order_ids)}

    def _insert(self) -> Write:
        order = self._shop.order(self._random.choice(self._customer_ids)) | {"created_at": _now(), "updated_at": _now()}
        self._order_ids.append(order["_id"])
        return InsertOne(order)

    def _status(self) -> Write:
        status = self._random.choice(ORDER_STATUSES[1:])
        return self._update({"$set": {"status": status, "paid": status != "cancelled", "updated_at": _now()}})

    def _readdress(self) -> Write:
        return self._update({"$set": {"shipping_address.city": self._shop.city(), "updated_at": _now()}})

    def _add_item(self) -> Write:
        item, price = self._shop.item()
        has_room = {f"items.{MAX_ITEMS_PER_ORDER - 1}": {"$exists": False}}
        change = {"$push": {"items": item}, "$inc": {"total": price}, "$set": {"updated_at": _now()}}
        return UpdateOne(self._any_order() | has_room, change)

    def _replace(self) -> Write:
        key = self._any_order()
        return ReplaceOne(key, self._shop.order(self._random.choice(self._customer_ids)) | key)

    def _customer(self) -> Write:
        change = {"$inc": {"loyalty_points": Int64(self._random.randrange(1, 50))}, "$set": {"updated_at": _now()}}
        return UpdateOne({"_id": self._random.choice(self._customer_ids)}, change)

    def _delete(self) -> Write:
        position = self._random.randrange(len(self._order_ids))
        self._order_ids[position], self._order_ids[-1] = self._order_ids[-1], self._order_ids[position]
        return DeleteOne({"_id": self._order_ids.pop()})

    def _update(self, change: dict[str, Any]) -> Write:
        return UpdateOne(self._any_order(), change)


def _now() -> datetime:
    return datetime.now(UTC)


def _log_outage(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("MongoDB is away, trying again in %.1f s: %s", state.upcoming_sleep, str(error).partition(",")[0])


def main(
    uri: Annotated[str, typer.Option(envvar="MONGODB_URI", help="Where MongoDB listens.", show_envvar=True)],
    database: Annotated[str, typer.Option(help="The database to change.")] = "shop",
    rate: Annotated[float, typer.Option(min=0.01, help="Changes a second.")] = 5.0,
    seconds: Annotated[float | None, typer.Option(help="How long; without it, until SIGTERM or Ctrl-C.")] = None,
    max_orders: Annotated[int, typer.Option(min=1, help="Never keep more orders than this.")] = 2_000,
    seed: Annotated[int | None, typer.Option(help="Makes the choice of changes repeatable.")] = None,
) -> None:
    """Keep the sample shop changing with inserts, updates, replaces and deletes. Waits for a MongoDB that is away."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with MongoClient[Document](uri, serverSelectionTimeoutMS=SERVER_SELECTION_TIMEOUT_MS) as client:
        generator = ChangeGenerator(client[database], rate=rate, max_orders=max_orders, seed=seed, stop=stop)
        log.info("changing %s at %g changes a second", database, rate)
        generator.run(seconds)
        log.info("stopped: %s", generator.summary())


if __name__ == "__main__":
    typer.run(main)
