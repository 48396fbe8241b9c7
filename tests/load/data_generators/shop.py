"""The documents of a small shop: customers, and orders with nested items.

Every field has one BSON type in every document (prices are Decimal128 with two decimals, counters Int64, instants
dates), so a replica of these collections has a typed column for each and rescues nothing. A shop is reproducible: the
same seed, instant and sequence of calls give the same documents, `_id` included.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from bson import Decimal128, Int64, ObjectId
from faker import Faker
from mimesis import Food, Generic, Hardware
from mimesis.locales import Locale

Document = dict[str, Any]

OPENED_AT = datetime(2025, 1, 1, tzinfo=UTC)
"""The shop's default instant of "now", fixed so that a seed alone decides what is generated."""

ORDER_STATUSES = ("new", "paid", "shipped", "delivered", "cancelled")
STATUS_WEIGHTS = (15, 20, 20, 40, 5)
ORDER_TAGS = ("gift", "express", "first-order", "b2b", "promo", "fragile")
CUSTOMER_SEGMENTS = ("newsletter", "vip", "wholesale", "student", "early-adopter")
CITIES = (
    ("Oslo", "NO", 59.91, 10.75),
    ("Paris", "FR", 48.86, 2.35),
    ("Berlin", "DE", 52.52, 13.40),
    ("São Paulo", "BR", -23.55, -46.63),
    ("Tokyo", "JP", 35.68, 139.69),
    ("Lagos", "NG", 6.52, 3.38),
    ("Lima", "PE", -12.05, -77.04),
    ("Montréal", "CA", 45.50, -73.57),
)
CATALOGUE_SIZE = 120
PACKAGING_KG = 0.25
MAX_ITEMS_PER_ORDER = 10
ORDERS_SPREAD = timedelta(days=180)
"""Generated orders are dated evenly at random over this long before "now"."""


@dataclass(frozen=True)
class Product:
    """One entry of the catalogue."""

    sku: str
    name: str
    price: Decimal
    weight_kg: float


class Shop:
    """Makes customers, orders and order items from one seed.

    `now` tells the instant that documents are dated by (UTC; MongoDB keeps milliseconds). `new_id` makes the `_id`s; by
    default they are derived from the seed and repeat from run to run: pass `ObjectId` where runs share a collection.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        now: Callable[[], datetime] = lambda: OPENED_AT,
        new_id: Callable[[], ObjectId] | None = None,
    ) -> None:
        self._random = random.Random(seed)
        self._now = now
        self._new_id = new_id or self._seeded_id
        self._ids_made = 0
        self._process = self._random.randbytes(5)  # as in any ObjectId: time, process, counter
        self._order_number = int(now().timestamp())
        self._faker = Faker()
        self._faker.seed_instance(seed)
        self._catalogue = _catalogue(seed, self._random)

    def customer(self) -> Document:
        """A customer who has just signed up, or did so in the spread before now."""
        signed_up = self._instant()
        first, last = self._faker.first_name(), self._faker.last_name()
        return {
            "_id": self._new_id(),
            "name": f"{first} {last}",
            "email": f"{first}.{last}.{self._random.randrange(10_000)}@example.com".lower().replace(" ", ""),
            "phone": self._faker.numerify("+## ### ### ###"),
            "birth_date": _midnight(self._now() - timedelta(days=self._random.randrange(18 * 365, 90 * 365))),
            "address": self._address(),
            "segments": self._random.sample(CUSTOMER_SEGMENTS, self._random.randrange(3)),
            "marketing_opt_in": self._random.random() < 0.4,
            "loyalty_points": Int64(self._random.randrange(5_000)),
            "created_at": signed_up,
            "updated_at": signed_up,
        }

    def order(self, customer_id: ObjectId) -> Document:
        """An order of that customer with one to five items; `total` is the sum of its items."""
        ordered_at = self._instant()
        items, prices, weights = zip(*(self._item() for _ in range(self._random.randint(1, 5))), strict=True)
        status = self._random.choices(ORDER_STATUSES, STATUS_WEIGHTS)[0]
        self._order_number += 1
        return {
            "_id": self._new_id(),
            "order_number": Int64(self._order_number),
            "customer_id": customer_id,
            "status": status,
            "paid": status not in {"new", "cancelled"},
            "items": list(items),
            "total": Decimal128(sum(prices, Decimal("0.00"))),
            "currency": "EUR",
            "weight_kg": round(sum(weights) + PACKAGING_KG, 3),
            "shipping_address": self._address(),
            "tags": self._random.sample(ORDER_TAGS, self._random.randrange(4)),
            "note": self._faker.sentence(nb_words=6) if self._random.random() < 0.3 else None,
            "created_at": ordered_at,
            "updated_at": ordered_at,
        }

    def item(self) -> tuple[Document, Decimal128]:
        """One more item for an order, and what it adds to the order's total."""
        item, price, _ = self._item()
        return item, Decimal128(price)

    def city(self) -> str:
        """The name of a city that the shop ships to."""
        return self._random.choice(CITIES)[0]

    def _item(self) -> tuple[Document, Decimal, float]:
        product = self._random.choice(self._catalogue)
        quantity = self._random.randint(1, 4)
        item = {
            "sku": product.sku,
            "name": product.name,
            "quantity": quantity,
            "unit_price": Decimal128(product.price),
            "gift": self._random.random() < 0.1,
        }
        return item, product.price * quantity, product.weight_kg * quantity

    def _address(self) -> Document:
        city, country, latitude, longitude = self._random.choice(CITIES)
        return {
            "street": self._faker.street_address(),
            "city": city,
            "zip": f"{self._random.randrange(100_000):05d}",
            "country": country,
            "location": {
                "lat": round(latitude + self._random.uniform(-0.1, 0.1), 6),
                "lon": round(longitude + self._random.uniform(-0.1, 0.1), 6),
            },
        }

    def _instant(self) -> datetime:
        """A moment in the spread before now, at the millisecond that MongoDB keeps."""
        moment = self._now() - self._random.random() * ORDERS_SPREAD
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def _seeded_id(self) -> ObjectId:
        self._ids_made += 1
        seconds = int(OPENED_AT.timestamp()) + self._ids_made // 1000
        return ObjectId(seconds.to_bytes(4) + self._process + self._ids_made.to_bytes(8)[-3:])


def _catalogue(seed: int, rng: random.Random) -> list[Product]:
    generic = Generic(Locale.EN, seed=seed)
    food: Food = generic.food
    hardware: Hardware = generic.hardware
    makers = (food.fruit, food.vegetable, food.spices, food.drink, hardware.phone_model, hardware.cpu)
    return [
        Product(
            sku=f"SKU-{number:05d}",
            name=makers[number % len(makers)](),
            price=Decimal(rng.randint(99, 49_999)).scaleb(-2),
            weight_kg=round(rng.uniform(0.05, 4.0), 3),
        )
        for number in range(CATALOGUE_SIZE)
    ]


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
