"""Maintenance as a pipeline's chore: the tables that this process looks after."""

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
        self._tables: dict[str, TableMaintenance] = {}

    def turn(self, tables: Mapping[str, Table], assigned: Collection[tuple[str, int]]) -> None:
        """See `upkeep.Chore`."""
        ours = {topic: table for topic, table in tables.items() if (topic, 0) in assigned}
        for topic, maintained in list(self._tables.items()):
            if topic not in ours or ours[topic].writer is not maintained.writer:  # taken away, or opened anew
                self._tables.pop(topic).close()
        for topic, table in ours.items():
            if topic not in self._tables:
                labels = (self._pipeline, table.collection.database, table.collection.name)
                self._tables[topic] = TableMaintenance(table.writer, labels, self._policy, self._worker, self._metrics)
            self._tables[topic].turn()

    def close(self) -> None:
        """See `upkeep.Chore`."""
        for maintained in self._tables.values():
            maintained.close()
        self._tables.clear()
