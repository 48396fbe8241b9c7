"""`HotKeyChanges` sent to a collection's topic, and the collection's table held against them."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hot_key_changes import HotKeyChanges, Sent
from pinned_table import PinnedTable, read_pinned
from topic_pipeline import TopicCollection
from trial_pipeline import difference
from waiting import wait_until

from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.kafka.topics import topic_id

JOIN_TIMEOUT_S = 30.0


class HotKeyLoad:
    """Sends random changes of `keys` documents to one collection's topic. It must be the topic's only producer."""

    def __init__(self, collection: TopicCollection, rng: random.Random, *, keys: int = 40) -> None:
        pipeline = collection.pipeline
        self._collection = collection
        self._rng = random.Random(rng.random())  # of its own: it may run in a thread
        self.changes = HotKeyChanges(
            self._produce,
            rng,
            pipeline=pipeline.name,
            database=pipeline.database,
            collection=collection.name,
            partitions=pipeline.spec.topic_partitions,
            keys=keys,
        )

    @property
    def topic(self) -> ChangeTopic:
        """The topic as the table knows it."""
        return ChangeTopic(self._collection.topic, *topic_id(self._collection.pipeline.admin, self._collection.topic))

    def send(self, changes: int) -> None:
        """Send that many random changes."""
        self.changes.make(changes)

    def end_with_a_row(self) -> None:
        """Send one more document, so that the table's offset comes to be the topic's end (of its partition)."""
        self.changes.end_with_a_row()

    @contextmanager
    def running(self, changes_per_s: float) -> Iterator[None]:
        """Send changes in a thread of its own, in bursts, while the block runs."""
        stop = threading.Event()
        failed: list[BaseException] = []

        def work() -> None:
            try:
                while not stop.wait(self._rng.uniform(0.0, 0.1)):
                    self.send(self._rng.randint(0, max(1, int(changes_per_s / 10))))
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=work, name="hot-key-load")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(JOIN_TIMEOUT_S)
        if failed:
            raise failed[0]
        self._collection.flush()

    def check_where_it_stands(self) -> PinnedTable:
        """Hold the table's newest version against the model at that version's own offsets; return that version."""
        pipeline = self._collection.pipeline
        table = read_pinned(self._collection.url, pipeline.stack.object_store, self.topic)
        told = difference(self.changes.expected_at(table.offsets), table.rows)
        assert not told, f"version {table.version} at {dict(table.offsets)} is not equal to the model:\n{told}"
        return table

    def await_equal(self, timeout_s: float) -> PinnedTable:
        """Wait until every change is applied; check the table then."""
        self._collection.flush()

        def applied() -> PinnedTable | None:
            self._collection.pipeline.check_running()
            table = self.check_where_it_stands()
            return table if self.changes.is_applied(table.offsets) else None

        return wait_until(applied, timeout_s, f"every change of {self._collection.topic} is applied")

    def _produce(self, partition: int, record: Sent) -> None:
        self._collection.send(record.key, record.value, partition=partition)
