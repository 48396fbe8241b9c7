"""Changes on few keys, and what a table must hold after any prefix of them.

Because the whole history is kept by offset, a table can be checked at the position where it stands, at any moment and
under load: there is no need to wait until it has caught up.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from debezium_events import Op, event_key, event_value
from pinned_table import PinnedTable, read_pinned
from topic_pipeline import TopicCollection
from trial_pipeline import difference
from waiting import wait_until

from cdc_shared.documents import canonical_document, key_text
from cdc_shared.kafka.topics import partition_for, topic_id
from delta_writer.writer.offsets import ChangeTopic

JOIN_TIMEOUT_S = 30.0
OPERATIONS = ("upsert", "delete", "duplicate", "lost_update")
OPERATION_WEIGHTS = (70, 15, 12, 3)
DUPLICATED_EVENTS = 12
"""As many of a partition's last events are sent again, in their order, as a restarted connector does."""
CLOCK_SKEW_MS = 60_000


class _Sent(NamedTuple):
    key: bytes
    value: bytes | None
    row: str
    """Its `_cdc_key`."""
    document: bytes | None
    """The canonical form, where the event carries a document."""
    deletes: bool = False


class HotKeyLoad:
    """Sends random changes of `keys` documents to one collection's topic. It must be the topic's only producer."""

    def __init__(self, collection: TopicCollection, rng: random.Random, *, keys: int = 40) -> None:
        self._collection = collection
        self._rng = random.Random(rng.random())  # of its own: it may run in a thread
        self._ids = [n if n % 2 else f"k{n}" for n in range(keys)]  # mixed `_id` types
        self._partitions = collection.pipeline.spec.topic_partitions
        self._sent: list[list[_Sent]] = [[] for _ in range(self._partitions)]
        self._numbers = 0

    @property
    def topic(self) -> ChangeTopic:
        """The topic as the table knows it."""
        return ChangeTopic(self._collection.topic, *topic_id(self._collection.pipeline.admin, self._collection.topic))

    def send(self, changes: int) -> None:
        """Send that many random changes."""
        for _ in range(changes):
            operation = self._rng.choices(OPERATIONS, OPERATION_WEIGHTS)[0]
            document_id = self._rng.choice(self._ids)
            if operation == "duplicate":
                self._duplicate(partition_for(event_key(document_id), self._partitions))
            elif operation == "upsert":
                self._upsert(document_id)
            elif operation == "delete":
                self._send(document_id, None, self._envelope("d", None), deletes=True)
                self._send(document_id, None, None)
            else:
                self._send(document_id, None, self._envelope("u", None))

    def end_with_a_row(self) -> None:
        """Send one more document, so that the table's offset comes to be the topic's end (of its partition)."""
        self._upsert(self._ids[0])

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

    def expected_at(self, offsets: Mapping[int, int]) -> dict[str, bytes]:
        """What the table must hold when it stands at these offsets."""
        rows: dict[str, bytes] = {}
        for partition, offset in offsets.items():
            for record in self._sent[partition][:offset]:
                if record.document is not None:
                    rows[record.row] = record.document
                elif record.deletes:
                    rows.pop(record.row, None)
        return rows

    def check_where_it_stands(self) -> PinnedTable:
        """Hold the table's newest version against the model at that version's own offsets; return that version."""
        pipeline = self._collection.pipeline
        table = read_pinned(self._collection.url, pipeline.stack.object_store, self.topic)
        told = difference(self.expected_at(table.offsets), table.rows)
        assert not told, f"version {table.version} at {dict(table.offsets)} is not equal to the model:\n{told}"
        return table

    def await_equal(self, timeout_s: float) -> PinnedTable:
        """Wait until every change is applied; check the table then."""
        self._collection.flush()

        def applied() -> PinnedTable | None:
            self._collection.pipeline.check_running()
            table = self.check_where_it_stands()
            return table if self.is_applied(table) else None

        return wait_until(applied, timeout_s, f"every change of {self._collection.topic} is applied")

    def is_applied(self, table: PinnedTable) -> bool:
        """Whether the table stands behind the last change that was sent."""
        return all(table.offsets.get(p, 0) >= self._last_change(p) for p in range(self._partitions))

    def _last_change(self, partition: int) -> int:
        """The offset after the last record that surely changes a row: an event with a document."""
        sent = self._sent[partition]
        return next((i + 1 for i in reversed(range(len(sent))) if sent[i].document is not None), 0)

    def _upsert(self, document_id: Any) -> None:
        self._numbers += 1
        document: dict[str, Any] = {"_id": document_id, "n": self._numbers, "text": "x" * self._rng.randrange(60)}
        document["mixed"] = self._rng.choice([self._numbers, 2.5, "text", None, {"a": 1}])
        document[f"late_{min(self._numbers // 400, 20)}"] = self._numbers  # the schema grows as the load goes on
        self._send(document_id, canonical_document(document), self._envelope("u", document))

    def _duplicate(self, partition: int) -> None:
        for record in self._sent[partition][-DUPLICATED_EVENTS:]:
            self._put(partition, record)

    def _send(self, document_id: Any, document: bytes | None, value: bytes | None, *, deletes: bool = False) -> None:
        key = event_key(document_id)
        self._put(
            partition_for(key, self._partitions), _Sent(key, value, key_text(document_id), document, deletes=deletes)
        )

    def _put(self, partition: int, record: _Sent) -> None:
        self._sent[partition].append(record)
        self._collection.send(record.key, record.value, partition=partition)

    def _envelope(self, op: Op, document: Mapping[str, Any] | None) -> bytes:
        pipeline = self._collection.pipeline
        skewed_ms = int(time.time() * 1000) + self._rng.randint(-CLOCK_SKEW_MS, CLOCK_SKEW_MS)
        return event_value(
            op,
            document,
            pipeline=pipeline.name,
            database=pipeline.database,
            collection=self._collection.name,
            ts_ms=skewed_ms,
        )
