"""The sample shop: reproducible, one type a field, and sums that add up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import bson
import pytest
from data_generators.shop import MAX_ITEMS_PER_ORDER, Document, Shop

pytestmark = pytest.mark.unit


def _documents(seed: int, orders: int = 300) -> list[Document]:
    shop = Shop(seed)
    customer = shop.customer()
    return [customer, *(shop.order(customer["_id"]) for _ in range(orders))]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, type]]:
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _leaves(child, f"{path}.{name}")
    elif isinstance(value, list):
        yield path, list
        for child in value:
            yield from _leaves(child, f"{path}[]")
    elif value is not None:
        yield path, type(value)


def test_one_seed_gives_the_same_bytes_and_another_seed_other_ones() -> None:
    assert [bson.encode(d) for d in _documents(7)] == [bson.encode(d) for d in _documents(7)]
    assert bson.encode(_documents(7)[1]) != bson.encode(_documents(8)[1])


def test_every_field_has_one_type_so_that_a_replica_rescues_nothing() -> None:
    for make in ("customer", "order"):
        shop = Shop(3)
        owner = shop.customer()["_id"]
        types: dict[str, set[type]] = defaultdict(set)
        for _ in range(300):
            for path, kind in _leaves(shop.customer() if make == "customer" else shop.order(owner)):
                types[path].add(kind)
        assert {path: kinds for path, kinds in types.items() if len(kinds) > 1} == {}


def test_the_total_is_the_sum_of_the_items_to_the_cent() -> None:
    for order in _documents(11)[1:]:
        total = sum(item["unit_price"].to_decimal() * item["quantity"] for item in order["items"])
        assert order["total"].to_decimal() == total
        assert order["total"].to_decimal().as_tuple().exponent == -2
        assert 1 <= len(order["items"]) <= MAX_ITEMS_PER_ORDER


def test_ids_and_order_numbers_never_repeat() -> None:
    orders = _documents(5, orders=2_000)[1:]
    assert len({order["_id"] for order in orders}) == len(orders)
    assert all(after["order_number"] == before["order_number"] + 1 for before, after in pairwise(orders))


def test_documents_survive_bson_unchanged() -> None:
    for document in _documents(2, orders=50):
        restored: Document = bson.decode(bson.encode(document), bson.CodecOptions(tz_aware=True))
        assert restored == document
