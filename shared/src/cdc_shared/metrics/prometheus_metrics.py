"""Every metric of the delta-writer, defined once, with its help and unit.

A `WriterMetrics` is built on a registry that its owner passes in, so that tests and a second writer in one process do
not collide. Labels: `pipeline` is on every metric; `database` and `collection` are MongoDB's names; `topic` and
`partition` Kafka's.
"""

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

TABLE = ("pipeline", "database", "collection")

ROW_BUCKETS = (1, 10, 100, 500, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000)
# From an index look-up of a few ms to a commit that waits for a slow store.
SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# The promise is seconds; an outage is minutes to hours.
LATENCY_BUCKETS = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0)


class PipelineState(StrEnum):
    """The value of the `state` label of `cdc_pipeline_state`."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    RETRYING = "retrying"
    FAILED = "failed"
    RESYNC_NEEDED = "resync_needed"
    STOPPED = "stopped"


class BatchStage(StrEnum):
    """The value of the `stage` label of `cdc_batch_seconds`."""

    DECODE = "decode"
    WRITE = "write"
    COMMIT = "commit"
    INDEX = "index"


class MaintenanceTask(StrEnum):
    """The value of the `task` label of the maintenance metrics."""

    CHECKPOINT = "checkpoint"
    COMPACTION = "compaction"
    VACUUM = "vacuum"
    PROMOTION = "promotion"
    REMASK = "remask"


class MaintenanceOutcome(StrEnum):
    """The value of the `outcome` label of `cdc_maintenance_runs_total`."""

    DONE = "done"
    ABORTED = "aborted"
    FAILED = "failed"


class RereadOutcome(StrEnum):
    """The value of the `outcome` label of `cdc_rereads_total`."""

    UPSERTED = "upserted"
    DELETED = "deleted"


class WriterMetrics:
    """All metrics of one writer process, registered on `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._define_events(registry)
        self._define_batches(registry)
        self._define_lag(registry)
        self._define_maintenance(registry)
        self._define_state(registry)

    def _define_events(self, registry: CollectorRegistry) -> None:
        self.events = Counter(
            "cdc_events_total",
            "Change events whose effect is committed, by Debezium's op (c, u, d, r); x is a re-read on request.",
            (*TABLE, "op"),
            registry=registry,
        )
        self.rereads = Counter(
            "cdc_rereads_total",
            "Documents read from the source again on request, by what it did to their row (upserted, deleted).",
            (*TABLE, "outcome"),
            registry=registry,
        )
        self.events_invalid = Counter(
            "cdc_events_invalid_total",
            "Records that could not be read as change events, by reason.",
            ("pipeline", "topic", "reason"),
            registry=registry,
        )
        self.dead_letters = Counter(
            "cdc_dead_letters_total",
            "Records acknowledged by the dead-letter topic, by reason.",
            ("pipeline", "topic", "reason"),
            registry=registry,
        )
        self.rescued_values = Counter(
            "cdc_rescued_values_total",
            "Values that did not fit their column and were kept in _cdc_rescued.",
            TABLE,
            registry=registry,
        )
        self.collections_changed = Gauge(
            "cdc_source_collections_changed",
            "1 for a captured collection that was dropped, renamed or made again since its table was filled.",
            ("pipeline", "collection", "change"),
            registry=registry,
        )
        self.rows_swept = Counter(
            "cdc_rows_swept_total",
            "Rows deleted because a completed snapshot of their collection did not send them.",
            TABLE,
            registry=registry,
        )
        self.walked_rows = Counter(
            "cdc_walked_rows_total",
            "Rows decoded one at a time because their block did not fit the fast path.",
            TABLE,
            registry=registry,
        )
        self.schema_changes = Counter(
            "cdc_schema_changes_total",
            "Changes of a table's schema that events asked for, by kind (create, widen).",
            (*TABLE, "kind"),
            registry=registry,
        )

    def _define_batches(self, registry: CollectorRegistry) -> None:
        self.batch_rows = Histogram(
            "cdc_batch_rows", "Events in a committed batch.", TABLE, buckets=ROW_BUCKETS, registry=registry
        )
        self.batch_seconds = Histogram(
            "cdc_batch_seconds",
            "Seconds that a batch spent in each stage (decode, write, commit, index).",
            ("pipeline", "stage"),
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "cdc_commit_seconds",
            "Seconds from the first attempt to commit a batch to its success, conflicts included.",
            TABLE,
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.commit_conflicts = Counter(
            "cdc_commit_conflicts_total",
            "Commits that found their table version taken and were tried again on a newer one.",
            TABLE,
            registry=registry,
        )
        self.retries = Counter(
            "cdc_retries_total",
            "Attempts repeated after a transient error, by operation.",
            ("pipeline", "operation"),
            registry=registry,
        )
        self.table_files = Gauge(
            "cdc_table_files",
            "Live files of a table, by kind (data, deletion_vector).",
            (*TABLE, "kind"),
            registry=registry,
        )

    def _define_lag(self, registry: CollectorRegistry) -> None:
        self.end_to_end_lag = Gauge(
            "cdc_end_to_end_lag_seconds",
            "Seconds from the source's timestamp of the newest committed event to its commit.",
            TABLE,
            registry=registry,
        )
        self.end_to_end_latency = Histogram(
            "cdc_end_to_end_latency_seconds",
            "Seconds from a streamed event's source timestamp to its commit; one observation a batch: its oldest.",
            TABLE,
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.table_watermark = Gauge(
            "cdc_table_watermark_seconds",
            "Source time (Unix seconds) strictly before which everything is in the table; none while it is undefined.",
            TABLE,
            registry=registry,
        )
        self.table_watermark_age = Gauge(
            "cdc_table_watermark_age_seconds",
            "Seconds since the table's watermark, by the writer's clock.",
            TABLE,
            registry=registry,
        )
        self.consumer_lag_events = Gauge(
            "cdc_consumer_lag_events",
            "Offsets between the end of a partition and what is committed to the table; transaction markers count.",
            ("pipeline", "topic", "partition"),
            registry=registry,
        )
        self.consumer_paused = Gauge(
            "cdc_consumer_paused",
            "1 while a partition is paused (back-pressure or retry), else 0.",
            ("pipeline", "topic", "partition"),
            registry=registry,
        )

    def _define_maintenance(self, registry: CollectorRegistry) -> None:
        self.maintenance_runs = Counter(
            "cdc_maintenance_runs_total",
            "Maintenance of a table, by task (checkpoint, compaction, promotion, remask, vacuum) and outcome: done, "
            "aborted because other commits came in its way, failed.",
            (*TABLE, "task", "outcome"),
            registry=registry,
        )
        self.maintenance_seconds = Counter(
            "cdc_maintenance_seconds_total",
            "CPU seconds of maintenance; of delta-rs (checkpoints) whole seconds.",
            (*TABLE, "task"),
            registry=registry,
        )
        self.maintenance_rest_seconds = Counter(
            "cdc_maintenance_rest_seconds_total",
            "Seconds that maintenance rested to keep within its budget; near to all the time: the budget is too small.",
            (*TABLE, "task"),
            registry=registry,
        )
        self.maintenance_bytes = Counter(
            "cdc_maintenance_bytes_total",
            "Bytes of data files that compaction moved, by direction (read, written).",
            (*TABLE, "direction"),
            registry=registry,
        )
        self.maintenance_deleted_files = Counter(
            "cdc_maintenance_deleted_files_total",
            "Files that vacuum and log clean-up deleted, by kind (data, deletion_vector, log).",
            (*TABLE, "kind"),
            registry=registry,
        )
        self.maintenance_deleted_bytes = Counter(
            "cdc_maintenance_deleted_bytes_total",
            "Bytes that vacuum and log clean-up deleted.",
            TABLE,
            registry=registry,
        )
        self.table_dead_rows_share = Gauge(
            "cdc_table_dead_rows_share",
            "Of the rows in a table's data files, the share that deletion vectors mark; compaction keeps it down.",
            TABLE,
            registry=registry,
        )

    def _define_state(self, registry: CollectorRegistry) -> None:
        self._pipeline_state = Gauge(
            "cdc_pipeline_state",
            "1 for the state that a pipeline is in, 0 for each other state.",
            ("pipeline", "state"),
            registry=registry,
        )

    def set_pipeline_state(self, pipeline: str, state: PipelineState) -> None:
        """Show `pipeline` in exactly this state."""
        for each in PipelineState:
            self._pipeline_state.labels(pipeline, each.value).set(1 if each is state else 0)

    def forget_pipeline(self, pipeline: str) -> None:
        """Drop every series of a deleted pipeline: no alert may hang on a value that will never move again."""
        for metric in vars(self).values():
            metric.remove_by_labels({"pipeline": pipeline})
