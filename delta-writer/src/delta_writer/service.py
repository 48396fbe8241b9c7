"""The delta-writer process: runs the pipelines that the spec topic (`cdc.pipelines`) names, each in its own thread."""

import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry, ProcessCollector

from cdc_shared.dead_letters.letter_topic import ensure_dead_letters_topic
from cdc_shared.errors import Fatal
from cdc_shared.http_server import HttpServer
from cdc_shared.kafka.partition_ends import written_ends
from cdc_shared.kafka.rules_topic import read_versions
from cdc_shared.kafka.spec_topic import SpecReader
from cdc_shared.kafka.status_topic import WriterReport, ensure_status_topic
from cdc_shared.kafka.topics import held_offsets, notification_topic, topic_id
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.metrics.prometheus_metrics import PipelineState, WriterMetrics
from cdc_shared.models.common import InvalidSpec, PipelineSpec
from cdc_shared.retry import RetryAttempt, RetryInterrupted, retrying
from cdc_shared.security.data_key import DataKeys
from cdc_shared.security.references import resolve_reference, secret_providers
from cdc_shared.snapshots.notification_reader import NotificationReader
from cdc_shared.snapshots.topic_positions import TopicPositions
from cdc_shared.source.mongodb_source import MongodbSource
from cdc_shared.tracing.otel_config import Tracing
from delta_writer.consumer.event_consumer import EventConsumer, consumer_config
from delta_writer.maintenance.chore import Maintenance
from delta_writer.maintenance.mask_watch import MaskSource
from delta_writer.maintenance.policy import MaintenancePolicy
from delta_writer.maintenance.rewrite_directory import remove_left_overs
from delta_writer.maintenance.worker import MaintenanceWorker
from delta_writer.metrics.data_quality_metrics import DataQualityMetrics
from delta_writer.pipeline import Pipeline
from delta_writer.pipeline_observer import PipelineObserver
from delta_writer.quality_in_force import QualityInForce
from delta_writer.reporting.status_publisher import StatusPublisher
from delta_writer.reporting.table_watch import TableWatch
from delta_writer.settings import Settings
from delta_writer.snapshots.collection_watch import CollectionWatch, look_at_source
from delta_writer.snapshots.sweeper import Sweeper
from delta_writer.source.rereader import Rereader
from delta_writer.upkeep import Upkeep
from delta_writer.watermark.claims import Claims
from delta_writer.watermark.feed import WatermarkFeed
from delta_writer.watermark.time_source import time_source
from delta_writer.writer.batch_processor import BatchProcessor
from delta_writer.writer.delta_writer import CommitResult
from delta_writer.writer.dlq_writer import DeadLetterWriter, LetterStore, acknowledged_producer
from delta_writer.writer.flood_limit import FloodLimit
from delta_writer.writer.letter_expiry import LetterExpiry
from delta_writer.writer.schema_cache import SchemaCache
from delta_writer.writer.schema_watch import SchemaWatch
from delta_writer.writer.tables import Table, Tables

ENDED_BADLY: Final = frozenset({PipelineState.FAILED, PipelineState.RESYNC_NEEDED, PipelineState.PAUSED})

log = get_logger(__name__)


@dataclass(slots=True)
class _Running:
    spec: PipelineSpec
    stop: threading.Event
    thread: threading.Thread
    observer: PipelineObserver
    quality: QualityInForce


class WriterService:
    """Follows the specs from `run` until `stop` is set, then finishes the batches in hand."""

    def __init__(self, settings: Settings, tracing: Tracing, stop: threading.Event) -> None:
        self._settings = settings
        self._tracing = tracing
        self._stop = stop
        self._bootstrap = settings.kafka.bootstrap_servers
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # memory, CPU and file descriptors of this process
        self._metrics = WriterMetrics(self._registry)
        self._data_quality = DataQualityMetrics(self._registry)
        self._admin = AdminClient({"bootstrap.servers": self._bootstrap})
        self._producer = acknowledged_producer(self._bootstrap)
        self._secrets = secret_providers(settings.secrets)
        self._data_keys = DataKeys.resolve(settings.data_key.reference, self._secrets)
        self._maintenance = MaintenanceWorker()
        self._status = StatusPublisher(self._bootstrap, self._producer)
        self._writer = ""
        """How others tell it from other writers; known once it serves."""
        self._pipelines: dict[str, _Running] = {}
        self._specs_read = False

    def run(self) -> None:
        """Serve until `stop` is set. Raises `Fatal` when the service itself cannot go on."""
        _check_cache_dir(self._settings.writer.cache_dir)
        remove_left_overs(self._settings.writer.cache_dir)
        host, port = self._settings.writer.http_host, self._settings.writer.http_port
        try:
            server = HttpServer(host, port, self._health, self._ready, self._registry)
        except OSError as error:
            raise Fatal(
                f"cannot serve on {host}:{port}: {error.strerror}; set WRITER_HTTP_PORT to a free port"
            ) from error
        self._writer = self._settings.writer.instance_id or f"{socket.gethostname()}:{server.port}"
        log.info("delta-writer started", http=f"http://{host}:{server.port}", writer=self._writer)
        self._status.start()
        try:
            retrying(self._follow_specs, _log_retry, self._stop)
        except RetryInterrupted:
            pass
        finally:
            self._stop_all()
            self._maintenance.close()
            self._status.close()
            server.close()
            log.info("delta-writer stopped")

    def _follow_specs(self) -> None:
        ensure_dead_letters_topic(self._admin, self._settings.writer.dead_letter_retention_days)
        ensure_status_topic(self._admin)
        with SpecReader.open(self._bootstrap, _log_invalid_spec, topic=self._settings.kafka.pipelines_topic) as reader:
            specs = reader.read_existing(self._stop)
            for name in self._pipelines.keys() - specs.keys():
                self._take_back(name)
            for spec in specs.values():
                self._follow(spec)
            self._specs_read = True
            self._status.settle(self._writer, specs.keys())
            for change in reader.changes(self._stop):
                if change.spec is None:
                    self._take_back(change.name)
                else:
                    self._follow(change.spec)

    # -- pipelines ----------------------------------------------------------------------------------------------------

    def _follow(self, spec: PipelineSpec) -> None:
        """Do what a spec asks for that was published."""
        if spec.desired == "stopped":
            self._end(spec.name)
        else:
            self._begin(spec)

    def _begin(self, spec: PipelineSpec) -> None:
        """Start a pipeline, or start it anew when its spec changed or it ended; publishing a spec again restarts it.

        A running one goes on when nothing but its rules changed, and takes them from its next batch on.
        """
        running = self._pipelines.get(spec.name)
        if running is not None and running.thread.is_alive() and _same_but_rules(running.spec, spec):
            if running.spec != spec and running.quality.replace(spec.quality):
                running.spec = spec
            return
        if running is not None:
            self._end(spec.name)
        log.info("pipeline starting", pipeline=spec.name)
        stop = threading.Event()
        observer = PipelineObserver(
            spec.name, self._metrics, self._data_quality, lambda name, _: self._status.changed(name)
        )
        quality = QualityInForce(spec.quality, self._secret, partial(observer.found, "rules"))
        self._status.add(spec.name, partial(self._report, observer, quality))
        thread = threading.Thread(
            target=self._run_pipeline, args=(spec, observer, quality, stop), name=f"pipeline-{spec.name}"
        )
        self._pipelines[spec.name] = _Running(spec, stop, thread, observer, quality)
        thread.start()

    def _run_pipeline(
        self, spec: PipelineSpec, observer: PipelineObserver, quality: QualityInForce, stop: threading.Event
    ) -> None:
        try:
            with closing(MongodbSource(spec.source, self._settings.secrets)) as source:
                self._pipeline(spec, source, observer, quality, stop).run()
        except BaseException as error:  # the thread's end: whatever it is, it is shown, and other pipelines go on
            observer.failed(error)
        else:
            observer.stopped()

    def _pipeline(
        self,
        spec: PipelineSpec,
        source: MongodbSource,
        observer: PipelineObserver,
        quality: QualityInForce,
        stop: threading.Event,
    ) -> Pipeline:
        settings = self._settings
        config = consumer_config(
            self._bootstrap, spec.name, settings.writer.session_timeout_s, settings.writer.instance_id
        )
        sweeper, claims, schemas = self._sweeper(spec), Claims(), SchemaCache()
        letter_store = LetterStore(
            settings.stores.root_for(spec.sink.root),
            spec.name,
            settings.stores,
            settings.writer.dead_letter_retention_days,
        )
        return Pipeline(
            open_consumer=lambda assigned, revoked: EventConsumer(config, spec.name, assigned, revoked),
            open_tables=lambda: Tables(
                spec, settings.stores, settings.writer.cache_dir, lambda topic: topic_id(self._admin, topic), schemas
            ),
            new_batches=lambda: BatchProcessor(spec.batch, time.monotonic, claims),
            quality=quality,
            dead_letters=self._dead_letters(spec.name, letter_store, quality),
            rereader=Rereader(spec, source),
            upkeep=Upkeep(
                [
                    Maintenance(
                        spec.name,
                        MaintenancePolicy.of(spec.maintenance),
                        self._maintenance,
                        self._metrics,
                        lambda sink: sink.schemas.promotions(),
                        observer.found,
                        MaskSource(
                            lambda collection: quality.of(collection).rules.version,
                            lambda: read_versions(self._bootstrap, spec.name),
                            self._secret,
                        ),
                    ),
                    sweeper,
                    self._collection_watch(spec, source, sweeper, observer),
                    self._watermarks(spec, source, claims, sweeper, observer),
                    LetterExpiry(letter_store.expire),
                    SchemaWatch(),
                    TableWatch(observer.progress),
                ]
            ),
            observer=observer,
            tracing=self._tracing,
            stop=stop,
        )

    def _dead_letters(self, pipeline: str, store: LetterStore, quality: QualityInForce) -> DeadLetterWriter:
        flood_limit = FloodLimit(lambda: quality.dirty_data.max_dead_letters_per_minute)
        key = self._data_keys.current(pipeline)
        return DeadLetterWriter(self._producer, pipeline, key, store, flood_limit, self._tracing)

    def _sweeper(self, spec: PipelineSpec) -> Sweeper:
        def swept(table: Table, result: CommitResult) -> None:
            labels = (spec.name, table.collection.database, table.collection.name)
            self._metrics.rows_swept.labels(*labels).inc(result.rows_removed)

        return Sweeper(
            lambda: NotificationReader(self._bootstrap, spec.name), lambda: TopicPositions(self._bootstrap), swept
        )

    def _collection_watch(
        self, spec: PipelineSpec, source: MongodbSource, sweeper: Sweeper, observer: PipelineObserver
    ) -> CollectionWatch:
        def notifications_end() -> int:
            ((_, end),) = held_offsets(self._admin, notification_topic(spec.name), 1).values()
            return end

        return CollectionWatch(
            spec,
            lambda: look_at_source(source, spec.source.database, notifications_end),
            sweeper.is_swept_since,
            observer.collections_changed,
            self._settings.writer.collection_watch_s,
        )

    def _watermarks(
        self, spec: PipelineSpec, source: MongodbSource, claims: Claims, sweeper: Sweeper, observer: PipelineObserver
    ) -> WatermarkFeed:
        return WatermarkFeed(
            spec.name,
            time_source(spec, source, self._admin, self._bootstrap, self._settings.writer.connect_url),
            lambda partitions: written_ends(self._admin, partitions),
            claims,
            sweeper.snapshot_complete,
            observer.watermark,
            spec.watermark.interval_s,
        )

    def _secret(self, reference: str) -> bytes:
        return resolve_reference(reference, self._secrets).reveal().encode()

    def _end(self, name: str) -> None:
        running = self._pipelines.get(name)
        if running is None:  # it was taken back twice
            return
        running.stop.set()
        running.thread.join()
        running.observer.stopped()  # also one that had failed is not to be run here any more
        self._status.ended(name)
        self._metrics.forget_pipeline(name)
        self._data_quality.forget_pipeline(name)
        del self._pipelines[name]  # last: whoever sees it gone may delete its tables, which it no longer writes
        log.info("pipeline ended", pipeline=name)

    def _take_back(self, name: str) -> None:
        """The pipeline's spec was deleted."""
        self._end(name)
        self._status.take_back(name, self._writer)

    def _stop_all(self) -> None:
        for running in self._pipelines.values():
            running.stop.set()
        for running in self._pipelines.values():
            running.thread.join()

    # -- what others see ----------------------------------------------------------------------------------------------

    def _report(self, observer: PipelineObserver, quality: QualityInForce) -> WriterReport:
        return observer.progress.report(observer.status, self._writer, quality.version)

    def _statuses(self) -> dict[str, dict[str, Any]]:
        return {
            name: {"state": status.state, "reason": status.reason}
            | ({"findings": status.findings} if status.findings else {})
            for name, status in [(name, each.observer.status) for name, each in list(self._pipelines.items())]
        }

    def _health(self) -> tuple[bool, Mapping[str, Any]]:
        """Well while no pipeline has ended by itself. Not for a liveness probe: a restart cures no failed pipeline."""
        statuses = self._statuses()
        well = not any(status["state"] in ENDED_BADLY for status in statuses.values())
        return well, {"status": "ok" if well else "failed", "pipelines": statuses}

    def _ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Ready when the specs are read and every pipeline reads and writes."""
        statuses = self._statuses()
        running = all(status["state"] == PipelineState.RUNNING for status in statuses.values())
        ready = self._specs_read and running
        return ready, {"status": "ready" if ready else "not ready", "pipelines": statuses}


def _same_but_rules(running: PipelineSpec, spec: PipelineSpec) -> bool:
    return running == spec.model_copy(update={"quality": running.quality})


def _check_cache_dir(directory: Path) -> None:
    """Make the cache's directory. Raises `Fatal` when nothing could be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Fatal(f"cannot make {directory}: {error.strerror}; set WRITER_CACHE_DIR to a local directory") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise Fatal(f"{directory} may not be written; set WRITER_CACHE_DIR to another local directory")


def _log_retry(attempt: RetryAttempt) -> None:
    log.warning("waiting for Kafka", attempt=attempt.number, wait_s=round(attempt.wait_s, 2), reason=str(attempt.error))


def _log_invalid_spec(name: str, error: InvalidSpec) -> None:
    log.error("spec not usable; the last good one stays in force", pipeline=name, reason=str(error))
