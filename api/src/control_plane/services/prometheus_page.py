"""The page `/metrics`: the requests, and how pipelines and parts were found last."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cdc_shared.metrics.prometheus_metrics import PipelineState
from control_plane.middleware.request_metrics import RequestMetrics
from control_plane.models.monitoring import DependencyState, PipelineMetrics
from control_plane.models.reconciliation import Verification
from control_plane.services.metrics_collector import MetricsCollector
from control_plane.services.pipeline_metrics import pipeline_metrics, summary

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST


def prometheus_page(requests: RequestMetrics, collector: MetricsCollector) -> bytes:
    """The page. What is known of pipelines is reckoned now: a lag grows while nothing moves."""
    platform = CollectorRegistry()
    platform.register(_PlatformSeries(collector))
    return generate_latest(requests.registry) + generate_latest(platform)


class _PlatformSeries(Collector):
    def __init__(self, collector: MetricsCollector) -> None:
        self._collector = collector

    def describe(self) -> Iterator[Metric]:
        """Nothing: it would be gathered to be described."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        yield from self._parts()
        now = datetime.now(UTC)
        found = [
            pipeline_metrics(
                name, self._collector.reports.reports(name), self._collector.ends, self._collector.oplog(name), now
            )
            for name in self._collector.reports.pipelines()
            if not self._is_stopped(name)
        ]
        yield from _pipelines(found)
        yield from _collections(found)
        yield from verification_series(self._collector.verifications)

    def _is_stopped(self, pipeline: str) -> bool:
        """No alert may hang on the lag of a pipeline that nobody wants to run."""
        return all(each.report.state is PipelineState.STOPPED for each in self._collector.reports.reports(pipeline))

    def _parts(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "cdc_api_dependency_up", "1 while a part answers the control plane, else 0.", labels=["dependency"]
        )
        for each in self._collector.dependencies:
            up.add_metric([each.name], each.state is DependencyState.OK)
        yield up
        if self._collector.free_bytes is not None:
            yield GaugeMetricFamily(
                "cdc_object_store_free_bytes",
                "Bytes that may still be written to the object store.",
                value=self._collector.free_bytes,
            )


def _pipelines(found: list[PipelineMetrics]) -> Iterator[Metric]:
    series = {
        "lag_seconds": ("cdc_pipeline_lag_seconds", "Seconds since the pipeline's watermark; none while it has none."),
        "lag_events": ("cdc_pipeline_lag_events", "Offsets of the pipeline's change topics that are still to come."),
        "events_per_s": ("cdc_pipeline_events_per_second", "Change events committed, over the last minute."),
        "rejected_per_s": ("cdc_pipeline_rejected_per_second", "Records not applied, over the last minute."),
        "error_rate": ("cdc_pipeline_error_ratio", "The share of the records not applied, over the last minute."),
        "writers": ("cdc_pipeline_writers", "Writers that run the pipeline now."),
    }
    families = {key: GaugeMetricFamily(name, text, labels=["pipeline"]) for key, (name, text) in series.items()}
    oplog = GaugeMetricFamily(
        "cdc_source_oplog_window_seconds",
        "How long a pipeline's connector may be away and still go on where it was.",
        labels=["pipeline"],
    )
    for each in found:
        short = summary(each)
        for key, family in families.items():
            if (value := getattr(short, key)) is not None:
                family.add_metric([each.pipeline], value)
        if each.oplog_window_seconds is not None:
            oplog.add_metric([each.pipeline], each.oplog_window_seconds)
    yield from families.values()
    yield oplog


def _collections(found: list[PipelineMetrics]) -> Iterator[Metric]:
    labels = ["pipeline", "database", "collection"]
    lag = GaugeMetricFamily(
        "cdc_collection_lag_seconds", "Seconds since the table's watermark; none while it has none.", labels=labels
    )
    size = GaugeMetricFamily("cdc_collection_table_bytes", "Bytes of the table's files in force.", labels=labels)
    for each in found:
        for one in each.collections:
            where = [each.pipeline, one.database, one.collection]
            if one.lag_seconds is not None:
                lag.add_metric(where, one.lag_seconds)
            if one.table_bytes is not None:
                size.add_metric(where, one.table_bytes)
    yield lag
    yield size


def verification_series(found: Sequence[Verification]) -> Iterator[Metric]:
    """How far each table is verified, and what the last comparison found."""
    labels = ["pipeline", "database", "collection"]
    through = GaugeMetricFamily(
        "cdc_collection_verified_through_timestamp_seconds",
        "Source time as of which every row was proved right; none while no comparison was equal.",
        labels=labels,
    )
    checked = GaugeMetricFamily(
        "cdc_collection_checked_timestamp_seconds", "When the last completed comparison ended.", labels=labels
    )
    differences = GaugeMetricFamily(
        "cdc_collection_differences", "Keys that the last completed comparison found.", labels=[*labels, "kind"]
    )
    for each in found:
        where = [each.pipeline, each.database, each.collection]
        if each.verified_through is not None:
            through.add_metric(where, each.verified_through.timestamp())
        checked.add_metric(where, each.checked_at.timestamp())
        for kind, keys in each.differences.items():
            differences.add_metric([*where, kind], keys)
    yield through
    yield checked
    yield differences
