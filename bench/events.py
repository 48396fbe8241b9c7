"""Debezium change events of a 1.1 KB order document, made at about 100,000 a second so that a benchmark need not wait.

The bytes are those of Debezium's MongoDB connector with Kafka Connect's JsonConverter (schemas off): the key in relaxed
Extended JSON, `after` in the legacy strict dialect with a blank after colons. `tests/unit/bench` holds them against
golden payloads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CHUNK_EVENTS = 8_192
"""Random values are drawn for this many events at once."""
FIRST_EVENT_MS = 1_700_000_000_000
FIRST_CREATED_MS = 1_690_000_000_000
DEBEZIUM_VERSION = "3.6.1.Final"

CITIES = ("Oslo", "Paris", "Berlin", "New York", "São Paulo", "Tokyo", "Lagos", "Lima")
STATUSES = ("new", "paid", "shipped", "delivered", "cancelled")
TAGS = ("red", "blue", "green", "xl", "sale", "promo")


class Event(NamedTuple):
    """A Kafka message: `value` is None for the tombstone that follows a delete."""

    key: bytes
    value: bytes | None


class Mix(NamedTuple):
    """The shares of updates, inserts and deletes among changes; they add up to 1."""

    update: float = 0.6
    insert: float = 0.2
    delete: float = 0.2


DEFAULT_MIX = Mix()


class EventFactory:
    """A collection's life as events: it knows which documents exist, so that every update and delete meets one.

    The same seed and calls give the same bytes. `live_rows` says how many documents exist after what was made so far.
    """

    def __init__(
        self, seed: int, *, pipeline: str = "bench", database: str = "bench", collection: str = "orders"
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._names = (pipeline, database, collection)
        self._live: list[int] = []
        self._next_document = 0
        self._next_event = 0

    @property
    def live_rows(self) -> int:
        """How many documents exist now."""
        return len(self._live)

    def inserts(self, count: int, *, op: str = "c") -> Iterator[Event]:
        """Yield that many inserts of new documents; with `op="r"`, as a snapshot's reads."""
        for size in _chunks(count):
            documents = list(range(self._next_document, self._next_document + size))
            self._next_document += size
            self._live += documents
            yield from self._render([op] * size, documents)

    def changes(self, count: int, mix: Mix = DEFAULT_MIX) -> Iterator[Event]:
        """Yield that many changes to random live documents. Each delete brings its tombstone as one event more.

        Raises ValueError when the mix has deletes or updates and no document is live.
        """
        for size in _chunks(count):
            ops = [("u", "c", "d")[choice] for choice in self._rng.choice(3, size, p=mix).tolist()]
            yield from self._render(ops, self._documents_for(ops))

    def _documents_for(self, ops: list[str]) -> list[int]:
        documents = []
        for op, draw in zip(ops, self._rng.random(len(ops)).tolist(), strict=True):
            if op == "c":
                document = self._next_document
                self._next_document += 1
                self._live.append(document)
            elif not self._live:
                raise ValueError("there is no live document to update or delete: make inserts first")
            else:
                position = int(draw * len(self._live))
                document = self._live[position]
                if op == "d":
                    self._live[position] = self._live[-1]
                    self._live.pop()
            documents.append(document)
        return documents

    def _render(self, ops: list[str], documents: list[int]) -> Iterator[Event]:
        pipeline, database, collection = self._names
        source = f'"source":{{"version":"{DEBEZIUM_VERSION}","connector":"mongodb","name":"{pipeline}","ts_ms":'
        for op, document, body in zip(ops, documents, _bodies(self._rng, documents), strict=True):
            ms = FIRST_EVENT_MS + self._next_event
            oid = object_id(document)
            key = f'{{"id":"{{\\"$oid\\": \\"{oid}\\"}}"}}'.encode()
            after = "null" if op == "d" else f'"{{\\"_id\\": {{\\"$oid\\": \\"{oid}\\"}},{body}}}"'
            snapshot, order, wall = ("true", -1, "null") if op == "r" else ("false", self._next_event % 50 + 1, ms)
            value = (
                f'{{"before":null,"after":{after},"updateDescription":null,{source}{ms},"snapshot":"{snapshot}",'
                f'"db":"{database}","sequence":null,"ts_us":{ms}000,"ts_ns":{ms}000000,"collection":"{collection}",'
                f'"ord":{order},"lsid":null,"txnNumber":null,"wallTime":{wall}}},"op":"{op}","ts_ms":{ms + 3},'
                f'"transaction":null}}'
            )
            self._next_event += 1
            yield Event(key, value.encode())
            if op == "d":
                yield Event(key, None)


def _chunks(count: int) -> Iterator[int]:
    while count > 0:
        yield min(count, CHUNK_EVENTS)
        count -= CHUNK_EVENTS


def object_id(document: int) -> str:
    """The id of the n-th document: 20 a second from one machine, as in a busy collection."""
    return f"{FIRST_CREATED_MS // 1000 + document // 20:08x}1a2b3c4d5e{document % 0xFFFFFF:06x}"


def _bodies(rng: np.random.Generator, documents: list[int]) -> Iterator[str]:
    """Yield each document's fields after `_id`, already escaped as part of a JSON string."""
    size = len(documents)

    def whole(high: int) -> list[int]:
        drawn: list[int] = rng.integers(0, high, size).tolist()
        return drawn

    def real(high: float) -> list[float]:
        drawn: list[float] = (rng.random(size) * high).tolist()
        return drawn

    columns = zip(
        documents,
        whole(1_000_000),
        whole(len(STATUSES) * len(CITIES)),
        whole(99),
        whole(500_000),
        real(100.0),
        whole(10**12),
        whole(10**9),
        whole(1_000),
        whole(99_999),
        real(90.0),
        real(180.0),
        whole(len(TAGS) ** 3 * 4),
        whole(10**9),
        strict=True,
    )
    for document, who, choice, qty, total, score, views, updated, street, zip_code, lat, lon, tags, item in columns:
        note = "null" if who % 10 < 3 else f'\\"lorem ipsum dolor sit amet {item % 1_000_000}\\"'
        yield (
            f'\\"customer\\": \\"Customer {who:06d}\\",\\"email\\": \\"user{views % 1_000_000}@example.com\\",'
            f'\\"status\\": \\"{STATUSES[choice % 5]}\\",\\"qty\\": {qty + 1},'
            f'\\"total\\": {{\\"$numberDecimal\\": \\"{total // 100}.{total % 100:02d}\\"}},'
            f'\\"score\\": {score},\\"views\\": {{\\"$numberLong\\": \\"{views}\\"}},'
            f'\\"created\\": {{\\"$date\\": {FIRST_CREATED_MS + document * 50}}},'
            f'\\"updated\\": {{\\"$date\\": {FIRST_CREATED_MS + updated}}},'
            f'\\"active\\": {"true" if zip_code & 1 else "false"},'
            f'\\"address\\": {{\\"street\\": \\"{street} Main St \\\\\\"A\\\\\\"\\",'
            f'\\"city\\": \\"{CITIES[choice // 5]}\\",'
            f'\\"zip\\": \\"{zip_code:05d}\\",\\"geo\\": {{\\"lat\\": {lat},\\"lon\\": {lon}}}}},'
            f'\\"tags\\": [{_tags(tags)}],\\"items\\": [{_items(item)}],\\"note\\": {note}'
        )


def _tags(draw: int) -> str:
    picked = (TAGS[draw // 4 // len(TAGS) ** place % len(TAGS)] for place in range(draw % 4))
    return ",".join(f'\\"{tag}\\"' for tag in picked)


def _items(draw: int) -> str:
    """One or two items from one number below 10**9."""
    return ",".join(
        f'{{\\"sku\\": \\"SKU-{part % 99_999:05d}\\",\\"n\\": {part % 4 + 1},'
        f'\\"price\\": {{\\"$numberDecimal\\": \\"{part // 100_000 % 100}.{part % 100:02d}\\"}}}}'
        for part in (draw, draw // 7)[: draw % 2 + 1]
    )
