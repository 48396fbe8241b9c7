"""What several writers' reports and the ends of the topics together say of a pipeline."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from cdc_shared.kafka.status_topic import CollectionReport, Heard, PartitionReport
from cdc_shared.metrics.prometheus_metrics import PipelineState
from cdc_shared.source.oplog import OplogWindow
from control_plane.models.monitoring import (
    CollectionMetrics,
    LastError,
    PipelineMetrics,
    PipelineSummary,
    Rates,
    WriterState,
)
from control_plane.services.metrics_collector import Ends

SHOWN_FOR_S: Final = 600.0
"""A writer that has left is shown for so long: rollouts give each new process another name."""
AT_WORK: Final = frozenset({PipelineState.STARTING, PipelineState.RUNNING, PipelineState.RETRYING})


def pipeline_metrics(
    pipeline: str, heard: Sequence[Heard], ends: Ends, oplog: OplogWindow | None, now: datetime
) -> PipelineMetrics:
    """How a pipeline goes. `heard`: the newest first. Pure.

    Where a table stands is what the newest report says that has the partition, also of a writer that is gone: so the
    lag goes on to grow when nobody is there.
    """
    collections = [
        _collection(reports, ends, now)
        for _, reports in sorted(_by_collection(heard).items(), key=lambda each: each[0])
    ]
    return PipelineMetrics(
        pipeline=pipeline,
        observed_at=now - timedelta(seconds=heard[0].age_s) if heard else None,
        lag_seconds=_furthest([each.lag_seconds for each in collections]),
        lag_events=_whole([each.lag_events for each in collections]),
        watermark=_earliest([each.watermark for each in collections]),
        **rates(collections).model_dump(),
        rescued=sum(each.rescued for each in collections),
        rejected=sum(each.rejected for each in collections),
        dead_letters=sum(each.dead_letters for each in collections),
        table_bytes=_whole([each.table_bytes for each in collections]),
        oplog_window_seconds=oplog.seconds if oplog else None,
        last_error=_last_error(heard),
        writers=[_writer(each, now) for each in _recent(heard)],
        collections=collections,
    )


def summary(metrics: PipelineMetrics) -> PipelineSummary:
    """The same in a line of a list."""
    return PipelineSummary(
        **metrics.model_dump(include=set(PipelineSummary.model_fields) - {"writers"}),
        writers=sum(each.state in AT_WORK and not each.is_silent for each in metrics.writers),
    )


def rates(parts: Sequence[CollectionMetrics] | Sequence[PipelineMetrics]) -> Rates:
    """The rates of several together."""
    events, rejected = sum(each.events_per_s for each in parts), sum(each.rejected_per_s for each in parts)
    return Rates(
        events_per_s=round(events, 1), rejected_per_s=round(rejected, 2), error_rate=_error_rate(events, rejected)
    )


def _by_collection(heard: Sequence[Heard]) -> Mapping[tuple[str, str], list[tuple[CollectionReport, bool]]]:
    """Each collection's reports, the newest first, and whether the writer is at work on it now."""
    found: dict[tuple[str, str], list[tuple[CollectionReport, bool]]] = {}
    for each in heard:
        at_work = not each.is_silent and each.report.state in AT_WORK
        for report in each.report.collections:
            found.setdefault((report.database, report.collection), []).append((report, at_work))
    return found


def _collection(found: Sequence[tuple[CollectionReport, bool]], ends: Ends, now: datetime) -> CollectionMetrics:
    reports = [report for report, _ in found]
    watermark = _time(max((each.watermark_ms for each in reports if each.watermark_ms is not None), default=None))
    events_per_s = sum(report.events_per_s for report, at_work in found if at_work)
    rejected_per_s = sum(report.rejected_per_s for report, at_work in found if at_work)
    committed = max(reports, key=lambda each: each.commit_ms or 0)
    rejected = max(reports, key=lambda each: each.last_rejection_ms or 0)
    version = max(each.table_version for each in reports)
    return CollectionMetrics(
        database=reports[0].database,
        collection=reports[0].collection,
        lag_seconds=None if watermark is None else max(0.0, round((now - watermark).total_seconds(), 3)),
        lag_events=_lag_events(reports, ends),
        watermark=watermark,
        events_per_s=round(events_per_s, 1),
        rejected_per_s=round(rejected_per_s, 2),
        error_rate=_error_rate(events_per_s, rejected_per_s),
        last_event=_time(max((each.event_ms for each in reports if each.event_ms is not None), default=None)),
        last_commit=_time(committed.commit_ms),
        latency_ms=committed.latency_ms,
        events=sum(each.events for each in reports),
        rescued=sum(each.rescued for each in reports),
        rejected=sum(each.rejected for each in reports),
        dead_letters=sum(each.dead_letters for each in reports),
        last_rejection=rejected.last_rejection,
        last_rejection_at=_time(rejected.last_rejection_ms),
        table_version=version if version >= 0 else None,
        table_bytes=next((each.table_bytes for each in reports if each.table_version == version), None),
        schema_version=max(each.schema_version for each in reports) or None,
    )


def _lag_events(reports: Sequence[CollectionReport], ends: Ends) -> int | None:
    """Offsets to come; None when nobody has said where the table stands."""
    stands: dict[tuple[str, int], PartitionReport] = {}
    for report in reports:
        for each in report.partitions:
            stands.setdefault((report.topic, each.partition), each)
    if not stands:
        return None
    # A writer's own word may be newer than the last look at the topics, and a topic may be gone.
    lags = (max(0, ends[where] - each.offset) if where in ends else each.lag for where, each in stands.items())
    return sum(lags)


def _error_rate(events_per_s: float, rejected_per_s: float) -> float | None:
    """Records whose document was rejected are events as well, those that are no event at all are not."""
    records = max(events_per_s, rejected_per_s)
    return round(rejected_per_s / records, 4) if records else None


def _last_error(heard: Sequence[Heard]) -> LastError | None:
    errors = [(each.report.last_error, each.report.writer) for each in heard if each.report.last_error is not None]
    if not errors:
        return None
    error, writer = max(errors, key=lambda each: each[0].at_ms)
    return LastError(text=error.text, at=_moment(error.at_ms), writer=writer)


def _recent(heard: Sequence[Heard]) -> Sequence[Heard]:
    """Those that somebody may still ask about; when all left long ago, the last of them."""
    return [each for each in heard if each.age_s <= SHOWN_FOR_S] or heard[:1]


def _writer(heard: Heard, now: datetime) -> WriterState:
    report = heard.report
    return WriterState(
        writer=report.writer,
        state=report.state,
        is_silent=heard.is_silent,
        reason=report.reason,
        findings=list(report.findings),
        since=_time(report.since_ms),
        heard_at=now - timedelta(seconds=heard.age_s),
        turned_at=_time(report.turn_ms),
        rules_version=report.rules_version,
        retries=report.retries,
        partitions=sum(len(each.partitions) for each in report.collections),
    )


def _furthest(lags: Sequence[float | None]) -> float | None:
    """The greatest; None when one is not known: then neither is theirs together."""
    return max((each for each in lags if each is not None), default=None) if None not in lags else None


def _earliest(times: Sequence[datetime | None]) -> datetime | None:
    known = [each for each in times if each is not None]
    return min(known) if known and len(known) == len(times) else None


def _whole(numbers: Sequence[int | None]) -> int | None:
    known = [each for each in numbers if each is not None]
    return sum(known) if known and len(known) == len(numbers) else None


def _time(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else _moment(at_ms)


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
