"""A pipeline in this process, on a local directory, over the fakes of Kafka and of the source."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from fake_kafka import FakeKafka
from fake_source import FakeSource
from prometheus_client import CollectorRegistry

from cdc_shared.metrics.prometheus_metrics import PipelineState, WriterMetrics
from cdc_shared.models.common import BatchSpec, PipelineSpec
from cdc_shared.security.secret_provider import SecretNotFound
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.tracing.otel_config import configure_tracing
from delta_writer.consumer.event_handler import DeadLetter
from delta_writer.metrics.data_quality_metrics import DataQualityMetrics
from delta_writer.pipeline import Pipeline
from delta_writer.pipeline_observer import PipelineObserver
from delta_writer.quality_in_force import QualityInForce
from delta_writer.source.rereader import Rereader
from delta_writer.upkeep import Upkeep
from delta_writer.writer.batch_processor import BatchProcessor
from delta_writer.writer.tables import Tables


class Letters(list[DeadLetter]):
    """The dead-letter topic."""

    def write(self, letters: list[DeadLetter]) -> None:
        """Take the letters."""
        self.extend(letters)


class LocalPipeline:
    """Pipeline `p` of database `db`. `go` runs it, as a new process would, until it has read everything."""

    def __init__(self, directory: Path, **sink: Any) -> None:
        """`sink` is added to the spec's."""
        self.stop = threading.Event()
        self.kafka = FakeKafka(when_drained=self.stop.set)
        self.letters = Letters()
        self.source = FakeSource()
        self.secrets: dict[str, bytes] = {}
        self.statuses: list[PipelineState] = []
        self.max_rows = 1
        self.metrics = WriterMetrics(CollectorRegistry())
        self.data_quality = DataQualityMetrics(CollectorRegistry())
        self.root = str(directory / "lake")
        self.spec = PipelineSpec.model_validate(
            {
                "name": "p",
                "source": {"connection": "env:X", "database": "db"},
                "sink": {"root": self.root, **sink},
            }
        )
        self.cache = directory / "cache"
        self.tracing = configure_tracing("test", None)

    def secret(self, reference: str) -> bytes:
        """What a reference names."""
        if reference not in self.secrets:
            raise SecretNotFound(f"no secret {reference}")
        return self.secrets[reference]

    def tables(self) -> Tables:
        """The tables as a process that starts sees them."""
        return Tables(self.spec, ObjectStoreSettings(), self.cache, self.kafka.describe)

    def go(self) -> None:
        """Run until Kafka has nothing more."""
        self.stop.clear()
        observer = PipelineObserver(
            "p", self.metrics, self.data_quality, lambda _, status: self.statuses.append(status.state)
        )
        self.quality = QualityInForce(self.spec.quality, self.secret, lambda texts: observer.found("rules", texts))
        self.observer = observer
        Pipeline(
            self.kafka.open,  # type: ignore[arg-type]
            self.tables,
            lambda: BatchProcessor(BatchSpec(max_rows=self.max_rows), time.monotonic),
            self.quality,
            self.letters,  # type: ignore[arg-type]
            Rereader(self.spec, self.source),  # type: ignore[arg-type]
            Upkeep([]),
            observer,
            self.tracing,
            self.stop,
        ).run()

    def rows(self, name: str = "things", order: str = "_cdc_key") -> pa.Table:
        """Every row of a table."""
        table = DeltaTable(f"{self.root}/p/db/{name}")
        found = QueryBuilder().register("t", table).execute(f"SELECT * FROM t ORDER BY {order}").read_all()
        return pa.table(found)
