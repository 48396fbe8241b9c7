"""Maintenance as a pipeline's chore: the tables that this process looks after, and their histories."""

from collections.abc import Collection, Mapping

from cdc_shared.metrics.prometheus_metrics import WriterMetrics
from delta_writer.maintenance.policy import MaintenancePolicy
from delta_writer.maintenance.table_maintenance import TableMaintenance
from delta_writer.maintenance.worker import MaintenanceWorker
from delta_writer.writer.tables import Table


class Maintenance:
    """An `upkeep.Chore`. Of several writers of one table, the one that reads partition 0 looks after it."""

    name = "maintenance"

    def __init__(
        self, pipeline: str, policy: MaintenancePolicy, worker: MaintenanceWorker, metrics: WriterMetrics
    ) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self._worker = worker
        self._metrics = metrics
        self._tables: dict[tuple[str, str], TableMaintenance] = {}

    def turn(self, tables: Mapping[str, Table], assigned: Collection[tuple[str, int]]) -> None:
        """See `upkeep.Chore`."""
        ours = {
            (topic, sink.name): (table, sink.writer)
            for topic, table in tables.items()
            if (topic, 0) in assigned
            for sink in table.sinks
        }
        for key, maintained in list(self._tables.items()):
            if key not in ours or ours[key][1] is not maintained.writer:  # taken away, or opened anew
                self._tables.pop(key).close()
        for key, (table, writer) in ours.items():
            if key not in self._tables:
                labels = (self._pipeline, table.collection.database, key[1])
                self._tables[key] = TableMaintenance(writer, labels, self._policy, self._worker, self._metrics)
            self._tables[key].turn()

    def close(self) -> None:
        """See `upkeep.Chore`."""
        for maintained in self._tables.values():
            maintained.close()
        self._tables.clear()
