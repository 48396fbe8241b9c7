"""A stream of random changes to a collection, as a busy application makes them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from topic_pipeline import TopicCollection

PAUSE_S = 0.02


class ChangeLoad:
    """Inserts, updates and deletes of documents with small, mixed fields; every update and delete meets a document."""

    def __init__(self, collection: TopicCollection, rng: random.Random) -> None:
        self._collection = collection
        self._rng = rng
        self._live: list[int] = []
        self._next_id = 0
        self.changes = 0

    def run(self, count: int) -> None:
        """Send that many changes."""
        for _ in range(count):
            self._one_change()
        self._collection.flush()

    @contextmanager
    def running(self, changes_a_second: int = 500) -> Iterator[None]:
        """Send changes from a thread of its own at about that pace until the block ends.

        The collection's model may be read after the block. Raises what the thread raised.
        """
        stop = threading.Event()
        failures: list[BaseException] = []
        thread = threading.Thread(target=self._run_until, args=(stop, changes_a_second, failures), name="change-load")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        if failures:
            raise failures[0]

    def _run_until(self, stop: threading.Event, changes_a_second: int, failures: list[BaseException]) -> None:
        started = time.monotonic()
        sent = 0
        try:
            while not stop.wait(PAUSE_S):
                due = int((time.monotonic() - started) * changes_a_second)
                self.run(due - sent)
                sent = due
        except BaseException as failure:
            failures.append(failure)

    def _one_change(self) -> None:
        self.changes += 1
        choice = self._rng.random()
        if choice < 0.4 or not self._live:
            self._live.append(self._next_id)
            self._collection.insert(self._document(self._next_id))
            self._next_id += 1
            return
        position = self._rng.randrange(len(self._live))
        if choice < 0.85:
            self._collection.update(self._document(self._live[position]))
            return
        self._live[position], self._live[-1] = self._live[-1], self._live[position]
        self._collection.delete(self._live.pop())

    def _document(self, document_id: int) -> dict[str, Any]:
        rng = self._rng
        return {
            "_id": document_id,
            "name": f"item {rng.randrange(10_000)}",
            "price": rng.random() * 100,
            "stock": rng.randrange(1_000),
            "tags": [f"t{rng.randrange(9)}" for _ in range(rng.randrange(4))],
            "size": {"w": rng.randrange(100), "h": rng.choice([None, rng.randrange(100)])},
            **({"note": "é" * rng.randrange(20)} if rng.random() < 0.3 else {}),
        }
