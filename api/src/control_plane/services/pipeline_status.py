"""What the control plane tells of itself and of pipelines: everything here is reckoned of what is known already."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from cdc_shared.snapshots.snapshot_progress import SnapshotProgress
from control_plane.models.monitoring import (
    CollectionSnapshot,
    Dependency,
    DependencyState,
    ObjectStoreMetrics,
    PipelineHealth,
    PipelineMetrics,
    PlatformMetrics,
    Readiness,
    SnapshotStatus,
)
from control_plane.models.pipeline import PipelineRecord, State
from control_plane.models.reconciliation import Verification
from control_plane.services.metrics_collector import MetricsCollector
from control_plane.services.pipeline_metrics import pipeline_metrics, rates, summary


class Monitoring:
    """Answers from what the collector found last; never blocks."""

    def __init__(self, collector: MetricsCollector) -> None:
        self.collector = collector

    def readiness(self) -> Readiness:
        """Whether requests should be sent here."""
        parts = [
            Dependency(name=each.name, state=each.state, required=each.required, since=each.since)
            for each in self.collector.dependencies
        ]
        missing = [each for each in parts if each.state is not DependencyState.OK]
        if any(each.required for each in missing):
            return Readiness(status="not_ready", dependencies=parts)
        return Readiness(status="degraded" if missing else "ready", dependencies=parts)

    def of_pipeline(self, name: str, now: datetime) -> PipelineMetrics:
        """How a pipeline gets on."""
        collector = self.collector
        return pipeline_metrics(name, collector.reports.reports(name), collector.ends, collector.oplog(name), now)

    def of_platform(self, names: Iterable[str], now: datetime) -> PlatformMetrics:
        """How these pipelines get on, and what they run on."""
        found = [self.of_pipeline(name, now) for name in names]
        return PlatformMetrics(
            at=now,
            **rates(found).model_dump(),
            lag_seconds=max((each.lag_seconds for each in found if each.lag_seconds is not None), default=None),
            lag_events=sum(each.lag_events or 0 for each in found),
            dependencies=self.collector.dependencies,
            object_store=ObjectStoreMetrics(
                free_bytes=self.collector.free_bytes, table_bytes=sum(each.table_bytes or 0 for each in found)
            ),
            pipelines=[summary(each) for each in found],
        )

    def status(
        self, record: PipelineRecord, state: State, verifications: Sequence[Verification], now: datetime
    ) -> PipelineHealth:
        """What a pipeline is and how it gets on; `verifications` are all that there are of its tables."""
        metrics = self.of_pipeline(record.name, now)
        return PipelineHealth(
            pipeline=record.name,
            state=state,
            desired=record.desired,
            since=record.desired_since,
            observed_at=record.observed_at,
            conditions=list(record.conditions),
            operations=list(record.operations),
            snapshot=_snapshot(self.collector.snapshot(record.name)),
            metrics=metrics,
            verified_through=verified_through(metrics, verifications),
            verifications=list(verifications),
        )


def verified_through(metrics: PipelineMetrics, verifications: Sequence[Verification]) -> datetime | None:
    """As of when all of the pipeline's tables were right; None while of one of them that is not known."""
    known = {(each.database, each.collection): each.verified_through for each in verifications}
    tables = known.keys() | {(each.database, each.collection) for each in metrics.collections}
    times = [at for table in tables if (at := known.get(table)) is not None]
    return min(times) if times and len(times) == len(tables) else None


def _snapshot(progress: SnapshotProgress | None) -> SnapshotStatus | None:
    if progress is None:
        return None
    return SnapshotStatus(
        state=progress.state,
        started_at=_moment(progress.started_ms),
        completed_at=None if progress.completed_ms is None else _moment(progress.completed_ms),
        documents=progress.documents,
        total=progress.total,
        percent=None if progress.percent is None else round(progress.percent, 1),
        documents_per_s=None if progress.documents_per_s is None else round(progress.documents_per_s, 1),
        seconds_left=None if progress.seconds_left is None else round(progress.seconds_left),
        collections=[
            CollectionSnapshot(collection=each.collection, state=each.state, documents=each.documents, total=each.total)
            for each in progress.collections
        ],
    )


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
