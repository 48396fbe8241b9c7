"""A table that a test writes and looks after in its own thread, without Kafka: batches, and turns of maintenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from prometheus_client import CollectorRegistry

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
from delta_writer.writer.delta_writer import TableLocation
from delta_writer.writer.offsets import ChangeTopic, OffsetRange
from delta_writer.writer.table_metadata import TableIdentity

TOPIC = ChangeTopic("p.db.things", "topic-id", 1)


class MaintainedTable:
    """`model` is what the table must equal: key text → the document's canonical form."""

    def __init__(self, url: str, stores: ObjectStoreSettings, cache_dir: Path, policy: MaintenancePolicy) -> None:
        self.url = url
        self.stores = stores
        self.store = open_store(url, stores)
        self.model: dict[str, bytes] = {}
        self.metrics = WriterMetrics(CollectorRegistry())
        location = TableLocation(url, self.store, stores.storage_options())
        self.writer = DeletionVectorWriter(location, TableIdentity("p", "db", "things"), TOPIC, cache_dir)
        self._worker = MaintenanceWorker()
        self.maintenance = TableMaintenance(self.writer, ("p", "db", "things"), policy, self._worker, self.metrics)
        self._offset = 0

    def __enter__(self) -> MaintainedTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.maintenance.close()
        self._worker.close()
        self.writer.close()

    def apply(self, changes: Sequence[tuple[int, Mapping[str, Any] | None]]) -> None:
        """Commit a batch of changes (`_id`, document or None for a delete), and take a turn of maintenance."""
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
        events = ChangeEvents(
            keys=keys,
            documents=documents,
            source_ts_ms=[1_700_000_000_000] * len(keys),
            partitions=[0] * len(keys),
            offsets=list(range(self._offset, end)),
            ops=["d" if document is None else "u" for document in documents],
            ranges={0: OffsetRange(self._offset, end)},
        )
        decoded = decode_events(events, self.writer.schema)
        assert not decoded.invalid
        if self.writer.commit(encode_batch(decoded, self.writer.schema)) is not None:
            self._offset = end
        self.maintenance.turn()

    def runs(self, task: MaintenanceTask, outcome: MaintenanceOutcome) -> int:
        """How often a task of maintenance has ended so."""
        return int(self.metrics.maintenance_runs.labels("p", "db", "things", task, outcome)._value.get())

    def seconds(self, task: MaintenanceTask) -> float:
        """How long a task of maintenance has worked."""
        return float(self.metrics.maintenance_seconds.labels("p", "db", "things", task)._value.get())
