"""Maintenance as a pipeline's chore: the tables that this process looks after, and their histories."""

import time
from collections import abc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from cdc_shared.delta.actions import Metadata
from cdc_shared.metrics.prometheus_metrics import WriterMetrics
from cdc_shared.models.collection import Collection
from delta_writer.maintenance.column_rewrite import ColumnChange
from delta_writer.maintenance.mask_watch import MaskSource, MaskWatch
from delta_writer.maintenance.policy import MaintenancePolicy
from delta_writer.maintenance.promotion import WaitingPromotion, next_promotion, with_promotions
from delta_writer.maintenance.table_maintenance import REWRITABLE, TableMaintenance
from delta_writer.maintenance.worker import MaintenanceWorker, Urgency
from delta_writer.transformers.type_resolver import Promotion
from delta_writer.writer.delta_writer import DeltaWriter
from delta_writer.writer.sink import Sink
from delta_writer.writer.tables import Table

ASK_EVERY_S: Final = 2.0
"""How often it is asked which columns should be promoted, and what is plain."""


class Maintenance:
    """An `upkeep.Chore`. Of several writers of one table, the one that reads partition 0 looks after it."""

    name = "maintenance"

    def __init__(
        self,
        pipeline: str,
        policy: MaintenancePolicy,
        worker: MaintenanceWorker,
        metrics: WriterMetrics,
        promotions: Callable[[Sink], Sequence[Promotion]] = lambda _: (),
        found: Callable[[str, Sequence[str]], None] = lambda *_: None,
        masks: MaskSource | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`promotions` says which columns of a table should be wider; `found` is `PipelineObserver.found`. Without
        `masks` nothing is masked after the fact.
        """
        self._pipeline = pipeline
        self._policy = policy
        self._worker = worker
        self._metrics = metrics
        self._promotions = promotions
        self._found = found
        self._masks = masks
        self._clock = clock
        self._ask_after = float("-inf")
        self._tables: dict[tuple[str, str], TableMaintenance] = {}
        self._watches: dict[tuple[str, str], MaskWatch] = {}

    def turn(self, tables: Mapping[str, Table], assigned: abc.Collection[tuple[str, int]]) -> None:
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
                self._watches.pop(key, None)
        for key, (table, writer) in ours.items():
            if key not in self._tables:
                self._tables[key] = self._maintain(key, writer, table.collection)
            self._tables[key].turn()
        if self._clock() >= self._ask_after:
            self._ask_after = self._clock() + ASK_EVERY_S
            self._ask_for_promotions(tables)
            for watch in self._watches.values():
                watch.turn()

    def close(self) -> None:
        """See `upkeep.Chore`."""
        for maintained in self._tables.values():
            maintained.close()
        self._tables.clear()
        self._watches.clear()

    def _maintain(self, key: tuple[str, str], writer: DeltaWriter, collection: Collection) -> TableMaintenance:
        name = f"{collection.database}.{key[1]}"

        def column_changes(metadata: Metadata) -> ColumnChange | None:
            watch = self._watches.get(key)
            return (watch and watch.wanted(metadata)) or next_promotion(metadata, writer.snapshot.files.values())

        if self._masks is not None and isinstance(writer, REWRITABLE):
            self._watches[key] = MaskWatch(
                writer,
                self._pipeline,
                collection.name,
                self._masks,
                partial(self._worker.submit, Urgency.REWRITE),
                partial(self._report, f"masks of {name}", name),
            )
        return TableMaintenance(
            writer,
            (self._pipeline, collection.database, key[1]),
            self._policy,
            self._worker,
            self._metrics,
            column_changes=column_changes,
            report=partial(self._report, f"columns of {name}", name),
        )

    def _report(self, about: str, name: str, text: str | None) -> None:
        self._found(about, [] if text is None else [f"{name}: {text}"])

    def _ask_for_promotions(self, tables: Mapping[str, Table]) -> None:
        """Have what this process has seen of conflicts stand in the table, also of one that another looks after."""
        for sink in (sink for table in tables.values() for sink in table.sinks):
            if sink.writer.snapshot.metadata is None or not isinstance(sink.writer, REWRITABLE):
                continue
            if wanted := [WaitingPromotion.of(each) for each in self._promotions(sink)]:
                sink.writer.set_properties(partial(with_promotions, further=wanted))
