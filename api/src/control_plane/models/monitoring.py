"""How things go: of the platform's parts, of the pipelines, of each collection."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cdc_shared.metrics.prometheus_metrics import PipelineState
from cdc_shared.snapshots.snapshot_progress import CollectionState, SnapshotState
from control_plane.models.pipeline import PipelineStatus
from control_plane.models.reconciliation import Verification


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Health(_Answer):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class DependencyState(StrEnum):
    OK = "ok"
    AWAY = "away"
    """It does not answer, or refuses."""
    UNKNOWN = "unknown"
    """It was not asked yet, or not for a while."""


class Dependency(_Answer):
    """One of the parts that the control plane works with."""

    name: str
    state: DependencyState
    required: bool = Field(description="without it the API is not ready; without another one it goes on with less")
    since: datetime | None = Field(description="since when it is in this state")


class Readiness(_Answer):
    """Whether requests should be sent here."""

    status: Literal["ready", "degraded", "not_ready"] = Field(
        description="degraded: something is away that is not required; what needs it is delayed, not lost"
    )
    dependencies: list[Dependency]


class DependencyDetail(Dependency):
    """The same for those who may read metrics."""

    checked_at: datetime | None
    duration_ms: float | None = Field(description="of the last check")
    detail: str | None = Field(description="what is wrong")


class Rates(_Answer):
    """How much is done, over the last minute."""

    events_per_s: float = Field(description="change events committed")
    rejected_per_s: float = Field(description="records that were not applied, whatever became of them")
    error_rate: float | None = Field(
        description="the share of the records that were not applied; null: there were none", ge=0, le=1
    )


class Lag(_Answer):
    """How far tables are behind their source."""

    lag_seconds: float | None = Field(
        description="since the watermark, before which everything in the source is in the table: at most so much is "
        "missing; null: there is no watermark, the snapshot is not complete"
    )
    lag_events: int | None = Field(
        description="offsets of the change topics still to come; null: nobody has said where the table stands"
    )
    watermark: datetime | None = Field(description="source time strictly before which everything is in the table")


class CollectionMetrics(Rates, Lag):
    """One collection of a pipeline."""

    database: str
    collection: str
    last_event: datetime | None = Field(description="source time of the newest change in the table")
    last_commit: datetime | None
    latency_ms: int | None = Field(description="from source to commit, of the last batch's newest change")
    events: int = Field(description="committed since the writers that are there now began")
    rescued: int = Field(description="values that did not fit their column, kept in `_cdc_rescued`")
    rejected: int
    dead_letters: int
    last_rejection: str | None
    last_rejection_at: datetime | None
    table_version: int | None = Field(description="of the Delta table; null: there is none yet")
    table_bytes: int | None = Field(description="of the table's files that are in force")
    schema_version: int | None = Field(description="counts the changes of the table's schema")


class WriterState(_Answer):
    """One writer's part in a pipeline."""

    writer: str
    state: PipelineState
    is_silent: bool = Field(description="it has said nothing for so long that it is taken for gone")
    reason: str | None
    findings: list[str] = Field(description="what somebody should look at although the pipeline goes on")
    since: datetime | None = Field(description="when it came into this state")
    heard_at: datetime = Field(description="when it last reported")
    turned_at: datetime | None = Field(description="when its loop last came round; long before `heard_at`: it hangs")
    rules_version: int
    retries: int
    partitions: int = Field(description="of the change topics, that it reads")


class LastError(_Answer):
    text: str
    at: datetime
    writer: str


class PipelineMetrics(Rates, Lag):
    """One pipeline, as its writers report it and Kafka's topics stand."""

    pipeline: str
    observed_at: datetime | None = Field(description="when a writer last reported; null: none ever did")
    rescued: int
    rejected: int
    dead_letters: int
    table_bytes: int | None
    oplog_window_seconds: int | None = Field(
        description="how long the connector may be away and still go on; null: the source does not tell"
    )
    last_error: LastError | None
    writers: list[WriterState]
    collections: list[CollectionMetrics]


class PipelineSummary(Rates, Lag):
    """One pipeline among all."""

    pipeline: str
    observed_at: datetime | None
    writers: int = Field(description="that run it now")
    dead_letters: int


class ObjectStoreMetrics(_Answer):
    free_bytes: int | None = Field(description="that may still be written; null: the store does not tell")
    table_bytes: int = Field(description="of all these pipelines' tables, files in force only")


class PlatformMetrics(Rates):
    """All pipelines that one may see, and the parts that they run on."""

    at: datetime
    lag_seconds: float | None = Field(description="of the pipeline that is furthest behind, of those that have a lag")
    lag_events: int
    dependencies: list[DependencyDetail]
    object_store: ObjectStoreMetrics
    pipelines: list[PipelineSummary]


class CollectionSnapshot(_Answer):
    """How far a collection's snapshot is."""

    collection: str
    state: CollectionState
    documents: int = Field(description="read so far, about")
    total: int | None = Field(description="that the source has, about; null: it has not said")


class SnapshotStatus(_Answer):
    """How far the last snapshot is, of what the connector reads; how far the tables are, `metrics` tells."""

    state: SnapshotState
    started_at: datetime
    completed_at: datetime | None
    documents: int | None = Field(description="read so far, about")
    total: int | None = Field(description="that the source has, about; null: it has not said")
    percent: float | None = Field(ge=0, le=100)
    documents_per_s: float | None = Field(description="over the last minute")
    seconds_left: int | None = Field(description="an estimate, at that rate")
    collections: list[CollectionSnapshot] = Field(description="none once it is complete")


class PipelineHealth(PipelineStatus):
    """How a pipeline stands and how it gets on."""

    model_config = ConfigDict(frozen=True)

    pipeline: str
    snapshot: SnapshotStatus | None = Field(description="null: none has begun, or it cannot be told now")
    metrics: PipelineMetrics
    verified_through: datetime | None = Field(
        default=None,
        description="every row of every table was right as of this time of the source, as reconciliation has proved; "
        "null: of at least one table it has not",
    )
    verifications: list[Verification] = Field(default=[], description="the same of each table that was compared")
