"""A process that is there to be killed: the real pipeline over a recorded topic.

It is forked from a server that has imported everything, so that it reads its first record within some milliseconds.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crash_points import CrashPoint, arm
from prometheus_client import CollectorRegistry
from recorded_topic import TOPIC_ID, RecordedConsumer, RecordedTopic

from cdc_shared.kafka.topics import TopicIdentity
from cdc_shared.logging.structured_logger import configure_logging
from cdc_shared.metrics.prometheus_metrics import WriterMetrics
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings, SecretsSettings
from cdc_shared.source.mongodb_source import MongodbSource
from cdc_shared.tracing.otel_config import configure_tracing
from delta_writer.consumer.event_handler import DeadLetter
from delta_writer.maintenance import chore, column_rewrite, rewrite_plan, table_maintenance
from delta_writer.maintenance.chore import Maintenance
from delta_writer.maintenance.policy import MaintenancePolicy
from delta_writer.maintenance.retention import Retention
from delta_writer.maintenance.worker import MaintenanceWorker
from delta_writer.metrics.data_quality_metrics import DataQualityMetrics
from delta_writer.pipeline import Pipeline
from delta_writer.pipeline_observer import PipelineObserver
from delta_writer.quality_in_force import QualityInForce
from delta_writer.source.rereader import Rereader
from delta_writer.upkeep import Upkeep
from delta_writer.writer import key_index
from delta_writer.writer.batch_processor import BatchProcessor
from delta_writer.writer.dlq_writer import DeadLetterWriter
from delta_writer.writer.tables import Tables

COMMITS_A_CHECKPOINT = 4
VACUUM_EVERY_S = 0.3
RETENTION = Retention(versions_s=30.0, upload_grace_s=20.0, readers_grace_s=0.0)
"""Above what a loaded machine needs from an upload to its commit, and for reading a version."""
RARE_IN_SMALL_TABLES = (
    (key_index, "INLINE_MERGE_ENTRIES", 16),
    (key_index, "_SMALLEST_TIER_ENTRIES", 4),
    (rewrite_plan, "FANOUT", 4),
    (table_maintenance, "FANOUT", 4),
    (column_rewrite, "MAX_INPUTS", 3),
    (column_rewrite, "MAX_LATE_ROWS", 40),
    (chore, "ASK_EVERY_S", 0),
)
"""Sizes from which on things happen: small ones here, so that they happen all the time."""


@dataclass(frozen=True, slots=True)
class WriterPlan:
    """What a process shall do, and where it shall die."""

    member: str
    topic: RecordedTopic
    spec: PipelineSpec
    stores: ObjectStoreSettings
    cache_dir: Path
    log_file: Path
    letters_file: Path
    seed: str
    crash_point: CrashPoint | None
    stops_when_drained: bool
    reads_at_most: int | None


class FileLetters(DeadLetterWriter):
    """Dead letters as lines `partition offset` of a file, on disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, letters: Sequence[DeadLetter]) -> None:
        with self._path.open("a") as file:
            file.writelines(f"{letter.partition} {letter.offset}\n" for letter in letters)
            file.flush()
            os.fsync(file.fileno())


def run(plan: WriterPlan) -> None:
    """Run the pipeline until SIGTERM, or until all is read; die at the crash point."""
    _log_to(plan.log_file)
    for module, name, size in RARE_IN_SMALL_TABLES:
        assert hasattr(module, name), f"{module.__name__} has no {name} any more"
        setattr(module, name, size)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if plan.crash_point is not None:
        arm(plan.crash_point)
    _pipeline(plan, stop).run()


def _log_to(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    configure_logging("crash-writer")


def _pipeline(plan: WriterPlan, stop: threading.Event) -> Pipeline:
    rng = random.Random(plan.seed)
    metrics = WriterMetrics(CollectorRegistry())
    partitions = plan.spec.topic_partitions
    policy = replace(
        MaintenancePolicy.of(plan.spec.maintenance),
        retention=RETENTION,
        cpu_share=1.0,
        vacuum_every_s=VACUUM_EVERY_S,
        first_vacuum_s=0.0,
        commits_a_checkpoint=COMMITS_A_CHECKPOINT,
    )
    when_drained = stop.set if plan.stops_when_drained else lambda: None
    return Pipeline(
        open_consumer=lambda assigned, revoked: RecordedConsumer(  # type: ignore[arg-type,return-value]
            plan.topic, plan.member, rng, when_drained, assigned, revoked, at_most=plan.reads_at_most
        ),
        open_tables=lambda: Tables(
            plan.spec, plan.stores, plan.cache_dir, lambda _: TopicIdentity(TOPIC_ID, partitions)
        ),
        new_batches=lambda: BatchProcessor(plan.spec.batch, time.monotonic),
        quality=QualityInForce(plan.spec.quality, lambda reference: reference.encode() * 16),
        dead_letters=FileLetters(plan.letters_file),
        rereader=Rereader(plan.spec, MongodbSource(plan.spec.source, SecretsSettings(), {})),
        upkeep=Upkeep(
            [Maintenance(plan.spec.name, policy, MaintenanceWorker(), metrics, lambda sink: sink.schemas.promotions())]
        ),
        observer=PipelineObserver(plan.spec.name, metrics, DataQualityMetrics(CollectorRegistry()), lambda *_: None),
        tracing=configure_tracing("crash-writer", None),
        stop=stop,
    )
