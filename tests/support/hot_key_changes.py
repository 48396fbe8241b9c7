"""Random changes of few documents as records of a change topic, and what a table must hold after any prefix of them.

Because the whole history is kept by offset, a table can be checked at the position where it stands, at any moment and
under load: there is no need to wait until it has caught up.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from debezium_events import Op, event_key, event_value

from cdc_shared.documents import canonical_document, key_text
from cdc_shared.kafka.topics import partition_for

OPERATIONS = ("upsert", "delete", "duplicate", "lost_update")
OPERATION_WEIGHTS = (70, 15, 12, 3)
DUPLICATED_EVENTS = 12
"""As many of a partition's last events are sent again, in their order, as a restarted connector does."""
CLOCK_SKEW_MS = 60_000


class Sent(NamedTuple):
    """One record, and what it does to the table."""

    key: bytes
    value: bytes | None
    row: str
    """Its `_cdc_key`."""
    document: bytes | None
    """The canonical form, where the event carries a document."""
    deletes: bool = False


class HotKeyChanges:
    """Makes changes of `keys` documents; `put` takes each record with its partition. Offsets begin at 0."""

    def __init__(
        self,
        put: Callable[[int, Sent], None],
        rng: random.Random,
        *,
        pipeline: str,
        database: str,
        collection: str,
        partitions: int,
        keys: int = 40,
    ) -> None:
        self._out = put
        self._rng = random.Random(rng.random())  # of its own: it may run in a thread
        self._source = {"pipeline": pipeline, "database": database, "collection": collection}
        self._ids = [n if n % 2 else f"k{n}" for n in range(keys)]  # mixed `_id` types
        self._partitions = partitions
        self._at: list[list[Sent | None]] = [[] for _ in range(partitions)]
        self._numbers = 0

    def make(self, changes: int) -> None:
        """Make that many random changes."""
        for _ in range(changes):
            operation = self._rng.choices(OPERATIONS, OPERATION_WEIGHTS)[0]
            document_id = self._rng.choice(self._ids)
            if operation == "duplicate":
                self._duplicate(partition_for(event_key(document_id), self._partitions))
            elif operation == "upsert":
                self._upsert(document_id)
            elif operation == "delete":
                self._change(document_id, None, self._envelope("d", None), deletes=True)
                self._change(document_id, None, None)
            else:
                self._change(document_id, None, self._envelope("u", None))

    def end_with_a_row(self) -> None:
        """Make one more document, so that the table's offset comes to be the topic's end (of its partition)."""
        self._upsert(self._ids[0])

    def add_gap(self, partition: int) -> None:
        """An offset without a record, as the end of a transaction leaves one."""
        self._at[partition].append(None)

    def add_invalid(self, partition: int) -> None:
        """A record that can never be applied."""
        self._put(partition, Sent(b'{"id": "broken"}', b"this is no JSON", "", None))

    def add_rejected_read(self) -> None:
        """A snapshot's read of a document that is none: its row stays as it is, where a sweep does not take it."""
        document_id = self._rng.choice(self._ids)
        envelope = json.loads(self._envelope("r", {}))
        self._change(document_id, None, json.dumps(envelope | {"after": "[]"}).encode())

    def end(self, partition: int) -> int:
        """The offset after the last one."""
        return len(self._at[partition])

    def expected_at(self, offsets: Mapping[int, int]) -> dict[str, bytes]:
        """What the table must hold when it stands at these offsets: `_cdc_key` → canonical form."""
        rows: dict[str, bytes] = {}
        for partition, offset in offsets.items():
            for record in self._at[partition][:offset]:
                if record is None:
                    continue
                if record.document is not None:
                    rows[record.row] = record.document
                elif record.deletes:
                    rows.pop(record.row, None)
        return rows

    def events_at(self, offsets: Mapping[int, int]) -> list[tuple[int, int]]:
        """Partition and offset of every event that a history has a row of when it stands at these offsets."""
        return [
            (partition, offset)
            for partition, end in sorted(offsets.items())
            for offset, record in enumerate(self._at[partition][:end])
            if record is not None and (record.document is not None or record.deletes)
        ]

    def is_applied(self, offsets: Mapping[int, int]) -> bool:
        """Whether a table at these offsets stands behind the last change that surely changes a row."""
        return all(offsets.get(p, 0) >= self._last_change(p) for p in range(self._partitions))

    def _last_change(self, partition: int) -> int:
        """The offset after the last event with a document."""
        records = self._at[partition]
        carries = (i + 1 for i in reversed(range(len(records))) if (record := records[i]) and record.document)
        return next(carries, 0)

    def _upsert(self, document_id: Any) -> None:
        self._numbers += 1
        document: dict[str, Any] = {"_id": document_id, "n": self._numbers, "text": "x" * self._rng.randrange(60)}
        document["mixed"] = self._rng.choice([self._numbers, 2.5, "text", None, {"a": 1}])
        document[f"late_{min(self._numbers // 400, 20)}"] = self._numbers  # the schema grows as the load goes on
        self._change(document_id, canonical_document(document), self._envelope("u", document))

    def _duplicate(self, partition: int) -> None:
        for record in [each for each in self._at[partition][-DUPLICATED_EVENTS:] if each is not None]:
            self._put(partition, record)

    def _change(self, document_id: Any, document: bytes | None, value: bytes | None, *, deletes: bool = False) -> None:
        key = event_key(document_id)
        self._put(
            partition_for(key, self._partitions), Sent(key, value, key_text(document_id), document, deletes=deletes)
        )

    def _put(self, partition: int, record: Sent) -> None:
        self._at[partition].append(record)
        self._out(partition, record)

    def _envelope(self, op: Op, document: Mapping[str, Any] | None) -> bytes:
        skewed_ms = int(time.time() * 1000) + self._rng.randint(-CLOCK_SKEW_MS, CLOCK_SKEW_MS)
        return event_value(op, document, ts_ms=skewed_ms, **self._source)
