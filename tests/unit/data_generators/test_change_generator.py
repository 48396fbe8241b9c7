"""The endless change generator: it stays within its bound, keeps its pace and survives an outage."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any, cast

import pytest
from bson import ObjectId
from data_generators.change_generator import ChangeGenerator
from data_generators.shop import Document
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.database import Database
from pymongo.errors import AutoReconnect

pytestmark = pytest.mark.unit


class FakeCollection:
    """What the generator uses of a collection, in memory: `_id`s and the operations that were asked for."""

    def __init__(self) -> None:
        self.documents: dict[ObjectId, Document] = {}
        self.largest = 0
        self.outages = 0
        self.writes: list[object] = []

    def find_one(self, *_: object) -> Document | None:
        return next(iter(self.documents.values()), None)

    def find(self, *_: object) -> Iterable[Document]:
        return list(self.documents.values())

    def insert_many(self, documents: Sequence[Document], ordered: bool) -> Any:
        self.documents.update({document["_id"]: document for document in documents})
        return type("Result", (), {"inserted_ids": [document["_id"] for document in documents]})

    def bulk_write(self, writes: Sequence[object]) -> None:
        if self.outages:
            self.outages -= 1
            raise AutoReconnect("away")
        self.writes += writes
        for write in writes:
            match write:
                case InsertOne():
                    self.documents[write._doc["_id"]] = dict(write._doc)
                case DeleteOne():
                    del self.documents[write._filter["_id"]]
                case UpdateOne() | ReplaceOne():
                    assert write._filter["_id"] in self.documents
            self.largest = max(self.largest, len(self.documents))


class FakeTime:
    """A clock and a stop event whose `wait` only moves that clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stop = threading.Event()
        self.stop.wait = self._wait  # type: ignore[method-assign]

    def _wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        return self.stop.is_set()


def _generator(rate: float, max_orders: int) -> tuple[ChangeGenerator, dict[str, FakeCollection]]:
    collections = {"orders": FakeCollection(), "customers": FakeCollection()}
    time = FakeTime()
    database = cast(Database[Document], collections)
    generator = ChangeGenerator(
        database, rate=rate, max_orders=max_orders, seed=17, stop=time.stop, clock=lambda: time.now
    )
    return generator, collections


def test_orders_stay_within_the_bound_however_long_it_runs() -> None:
    generator, collections = _generator(rate=100, max_orders=60)
    generator.run(seconds=200)
    assert collections["orders"].largest == 60
    assert sum(generator.counts.values()) == pytest.approx(20_000, rel=0.01)
    kinds = {type(write).__name__ for write in collections["orders"].writes}
    assert kinds == {"InsertOne", "UpdateOne", "ReplaceOne", "DeleteOne"}


@pytest.mark.parametrize("rate", [0.5, 5, 250])
def test_it_keeps_its_pace_and_ends_on_time(rate: float) -> None:
    generator, _ = _generator(rate=rate, max_orders=1_000)
    generator.run(seconds=60)
    assert sum(generator.counts.values()) == pytest.approx(rate * 60, abs=max(2.0, rate))


def test_an_outage_is_waited_for_and_the_orders_are_read_again() -> None:
    generator, collections = _generator(rate=50, max_orders=100)
    generator.run(seconds=10)
    before = sum(generator.counts.values())
    collections["orders"].outages = 4
    for gone in list(collections["orders"].documents)[:10]:
        del collections["orders"].documents[gone]  # an update or delete of one of these would fail in the fake
    generator.run(seconds=10)
    assert collections["orders"].outages == 0
    assert sum(generator.counts.values()) > before


def test_a_stop_ends_an_endless_run_even_during_an_outage() -> None:
    generator, collections = _generator(rate=50, max_orders=100)
    collections["orders"].outages = 1_000_000
    waited = generator.stop.wait

    def stop_in_the_third_back_off(timeout: float | None = None) -> bool:
        if collections["orders"].outages < 1_000_000 - 2:
            generator.stop.set()
        return waited(timeout)

    generator.stop.wait = stop_in_the_third_back_off  # type: ignore[method-assign]
    generator.run()
    assert not generator.counts


@pytest.mark.parametrize(("rate", "max_orders"), [(0, 10), (-1, 10), (5, 0)])
def test_senseless_settings_are_refused(rate: float, max_orders: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        _generator(rate, max_orders)
