"""Metrics are defined once, described, and can be built as often as a test wants."""

import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from cdc_shared.metrics.prometheus_metrics import BatchStage, PipelineState, WriterMetrics

pytestmark = pytest.mark.unit

# What dashboards and alerts rely on: a change here is a change for users.
CONTRACT = {
    "cdc_events": ("counter", ("pipeline", "database", "collection", "op")),
    "cdc_rereads": ("counter", ("pipeline", "database", "collection", "outcome")),
    "cdc_events_invalid": ("counter", ("pipeline", "topic", "reason")),
    "cdc_dead_letters": ("counter", ("pipeline", "topic", "reason")),
    "cdc_rescued_values": ("counter", ("pipeline", "database", "collection")),
    "cdc_source_collections_changed": ("gauge", ("pipeline", "collection", "change")),
    "cdc_rows_swept": ("counter", ("pipeline", "database", "collection")),
    "cdc_walked_rows": ("counter", ("pipeline", "database", "collection")),
    "cdc_schema_changes": ("counter", ("pipeline", "database", "collection", "kind")),
    "cdc_batch_rows": ("histogram", ("pipeline", "database", "collection")),
    "cdc_batch_seconds": ("histogram", ("pipeline", "stage")),
    "cdc_commit_seconds": ("histogram", ("pipeline", "database", "collection")),
    "cdc_commit_conflicts": ("counter", ("pipeline", "database", "collection")),
    "cdc_retries": ("counter", ("pipeline", "operation")),
    "cdc_table_files": ("gauge", ("pipeline", "database", "collection", "kind")),
    "cdc_table_dead_rows_share": ("gauge", ("pipeline", "database", "collection")),
    "cdc_maintenance_runs": ("counter", ("pipeline", "database", "collection", "task", "outcome")),
    "cdc_maintenance_seconds": ("counter", ("pipeline", "database", "collection", "task")),
    "cdc_maintenance_rest_seconds": ("counter", ("pipeline", "database", "collection", "task")),
    "cdc_maintenance_bytes": ("counter", ("pipeline", "database", "collection", "direction")),
    "cdc_maintenance_deleted_files": ("counter", ("pipeline", "database", "collection", "kind")),
    "cdc_maintenance_deleted_bytes": ("counter", ("pipeline", "database", "collection")),
    "cdc_end_to_end_lag_seconds": ("gauge", ("pipeline", "database", "collection")),
    "cdc_end_to_end_latency_seconds": ("histogram", ("pipeline", "database", "collection")),
    "cdc_table_watermark_seconds": ("gauge", ("pipeline", "database", "collection")),
    "cdc_table_watermark_age_seconds": ("gauge", ("pipeline", "database", "collection")),
    "cdc_consumer_lag_events": ("gauge", ("pipeline", "topic", "partition")),
    "cdc_consumer_paused": ("gauge", ("pipeline", "topic", "partition")),
    "cdc_pipeline_state": ("gauge", ("pipeline", "state")),
}


def test_every_metric_of_the_contract_is_defined_with_help_and_labels() -> None:
    metrics = WriterMetrics(CollectorRegistry())
    defined = {m._name: (m._type, m._labelnames, m._documentation) for m in vars(metrics).values()}
    assert {name: (kind, labels) for name, (kind, labels, _) in defined.items()} == CONTRACT
    assert all(help_text.endswith(".") and len(help_text) > 20 for *_, help_text in defined.values())


def test_two_writers_in_one_process_do_not_collide() -> None:
    one, two = CollectorRegistry(), CollectorRegistry()
    WriterMetrics(one).events.labels("p", "d", "c", "u").inc(5)
    WriterMetrics(two)
    assert (
        one.get_sample_value("cdc_events_total", {"pipeline": "p", "database": "d", "collection": "c", "op": "u"}) == 5
    )
    assert b"cdc_events_total{" not in generate_latest(two)


def test_a_pipeline_is_in_exactly_one_state() -> None:
    registry = CollectorRegistry()
    metrics = WriterMetrics(registry)
    for state in PipelineState:
        metrics.set_pipeline_state("shop", state)
        shown = {
            each: registry.get_sample_value("cdc_pipeline_state", {"pipeline": "shop", "state": each})
            for each in PipelineState
        }
        assert shown == {each: float(each is state) for each in PipelineState}


def test_a_deleted_pipeline_leaves_no_series_and_others_stay() -> None:
    registry = CollectorRegistry()
    metrics = WriterMetrics(registry)
    for pipeline in ("shop", "crm"):
        metrics.set_pipeline_state(pipeline, PipelineState.RUNNING)
        metrics.events.labels(pipeline, "d", "c", "c").inc()
        metrics.batch_seconds.labels(pipeline, BatchStage.WRITE).observe(0.1)
        metrics.consumer_lag_events.labels(pipeline, "t", "0").set(7)
    metrics.forget_pipeline("shop")
    text = generate_latest(registry).decode()
    assert 'pipeline="shop"' not in text
    assert len(set(re.findall(r'^(cdc_\w+)\{.*pipeline="crm"', text, re.MULTILINE))) >= 5
