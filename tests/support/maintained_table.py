"""A table that a test writes and looks after in its own threads, without Kafka: batches, and turns of maintenance."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from prometheus_client import CollectorRegistry
from waiting import wait_until

from cdc_shared.delta.offsets import ChangeTopic, OffsetRange
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import TableIdentity
from cdc_shared.documents import canonical_document, key_text
from cdc_shared.metrics.prometheus_metrics import MaintenanceOutcome, MaintenanceTask, WriterMetrics
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from delta_writer.maintenance.policy import MaintenancePolicy
from delta_writer.maintenance.table_maintenance import TableMaintenance
from delta_writer.maintenance.worker import MaintenanceWorker
from delta_writer.transformers.bson_to_delta import decode_events, encode_batch
from delta_writer.transformers.change_batch import ChangeEvents
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.delta_writer import SchemaMoved

LABELS = ("p", "db", "things")

Change = tuple[int, Mapping[str, Any] | None]
"""`_id`, and the document; None is a delete."""


class TableWriter:
    """Writes the changes of one partition. Not thread-safe.

    Attributes:
        model: what the partition's rows must equal: key text → the document's canonical form.
        states: the model as it was, by the partition's next offset.
    """

    def __init__(
        self, url: str, stores: ObjectStoreSettings, cache_dir: Path, partition: int = 0, partitions: int = 1
    ) -> None:
        self.url = url
        self.stores = stores
        self.model: dict[str, bytes] = {}
        self.states: dict[int, dict[str, bytes]] = {0: {}}
        self.topic = ChangeTopic("p.db.things", "topic-id", partitions)
        location = TableLocation(url, open_store(url, stores), stores.storage_options())
        self._cache_dir = cache_dir
        self._location = location
        self.writer = self._open()
        self._partition = partition
        self._offset = 0

    def apply(self, changes: Sequence[Change], *, keep_state: bool = False) -> None:
        """Commit a batch. The partition's `_id`s are its own."""
        keys: list[str] = []
        documents: list[str | None] = []
        for key, document in changes:
            text = key_text(key)
            keys.append(text)
            if document is None:
                documents.append(None)
                self.model.pop(text, None)
            else:
                after = json.dumps({"_id": key, **document})
                documents.append(after)
                self.model[text] = canonical_document(after)
        end = self._offset + len(changes)
        if keep_state:
            self.states[end] = dict(self.model)
        events = ChangeEvents(
            keys=keys,
            documents=documents,
            source_ts_ms=[1_700_000_000_000] * len(keys),
            partitions=[self._partition] * len(keys),
            offsets=list(range(self._offset, end)),
            ops=["d" if document is None else "u" for document in documents],
            ranges={self._partition: OffsetRange(self._offset, end)},
            must_commit=True,
        )
        while True:
            decoded = decode_events(events, self.writer.schema)
            assert not decoded.rejected
            try:
                self.writer.commit(encode_batch(decoded, self.writer.schema))
                break
            except SchemaMoved:
                continue
        self._offset = end

    def reopen(self) -> None:
        """Close the writer and open another one with the same cache, as after a restart."""
        self.close()
        self.writer = self._open()

    def close(self) -> None:
        """Close the writer."""
        self.writer.close()

    def _open(self) -> DeletionVectorWriter:
        return DeletionVectorWriter(self._location, TableIdentity(*LABELS), self.topic, self._cache_dir)


class MaintainedTable(TableWriter):
    """The writer that also looks after the table."""

    def __init__(
        self,
        url: str,
        stores: ObjectStoreSettings,
        cache_dir: Path,
        policy: MaintenancePolicy,
        partitions: int = 1,
    ) -> None:
        super().__init__(url, stores, cache_dir, 0, partitions)
        self.metrics = WriterMetrics(CollectorRegistry())
        self._worker = MaintenanceWorker()
        self.maintenance = TableMaintenance(self.writer, LABELS, policy, self._worker, self.metrics)

    def __enter__(self) -> MaintainedTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.maintenance.close()
        self._worker.close()
        self.close()

    def apply(self, changes: Sequence[Change], *, keep_state: bool = False) -> None:
        """Commit a batch, and take a turn of maintenance."""
        super().apply(changes, keep_state=keep_state)
        self.maintenance.turn()

    def settle(self, timeout_s: float) -> None:
        """Take turns until maintenance has nothing to do."""

        def idle() -> bool:
            self.maintenance.turn()
            return not self.maintenance._queued and self.maintenance._rewrite is None

        wait_until(idle, timeout_s, "maintenance has nothing to do", poll_s=0.01)

    def runs(self, task: MaintenanceTask, outcome: MaintenanceOutcome) -> int:
        """How often a task of maintenance has ended so."""
        return int(self.metrics.maintenance_runs.labels(*LABELS, task, outcome)._value.get())

    def seconds(self, task: MaintenanceTask) -> float:
        """How long a task of maintenance has worked."""
        return float(self.metrics.maintenance_seconds.labels(*LABELS, task)._value.get())


def random_document(rng: random.Random) -> dict[str, Any]:
    """A document with a number, a text and a sub-document."""
    return {"n": rng.random(), "text": f"text {rng.randrange(100)}", "sub": {"a": rng.randrange(10), "b": "x"}}
