"""Data-quality metrics: by rule, by field within a bound, gone with their pipeline."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from cdc_shared.dead_letters.rejection import ReasonCode, Rejection
from delta_writer.metrics.data_quality_metrics import MAX_FIELDS, OTHER_FIELDS, DataQualityMetrics

pytestmark = pytest.mark.unit

TABLE = ("p", "db", "things")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> DataQualityMetrics:
    return DataQualityMetrics(registry)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_rejections_are_counted_by_code_and_policy_and_by_rule(metrics, registry):
    failed = Rejection(ReasonCode.VALIDATION_FAILED, "/age is not within 0 and 150", rule="age")
    metrics.rejected("p", "t", failed, "dlq")
    metrics.rejected("p", "t", failed, "skip")
    metrics.rejected("p", "t", Rejection(ReasonCode.UNDECODABLE_KEY, "no key"), "dlq")
    assert value(registry, "cdc_rejections_total", code="validation_failed", policy="dlq") == 1
    assert value(registry, "cdc_rejections_total", policy="dlq") == 2
    assert value(registry, "cdc_validation_failures_total", rule="age") == 2


def test_changed_values_are_counted_by_what_changed_them(metrics, registry):
    metrics.transformed(TABLE, {("convert", "/n"): 3, ("email", "/mail"): 2, ("hash", "/mail"): 1})
    metrics.conflicted(TABLE, {"/n": {"string": 4, "object": 1}})
    assert value(registry, "cdc_converted_values_total", field="/n") == 3
    assert value(registry, "cdc_masked_values_total", field="/mail") == 3
    assert value(registry, "cdc_masked_values_total", mask="hash") == 1
    assert value(registry, "cdc_field_conflicts_total", field="/n", kind="string") == 4


def test_a_collection_of_any_number_of_fields_has_a_bounded_number_of_series(metrics, registry):
    for number in range(3 * MAX_FIELDS):
        metrics.conflicted(TABLE, {f"/f{number}": {"string": 1}})
    metrics.conflicted(("p", "db", "others"), {"/late": {"string": 1}})
    assert value(registry, "cdc_field_conflicts_total") == 3 * MAX_FIELDS + 1
    assert value(registry, "cdc_field_conflicts_total", field=OTHER_FIELDS) == 2 * MAX_FIELDS
    assert value(registry, "cdc_field_conflicts_total", field="/late") == 1


def test_a_pipeline_that_ends_leaves_no_series(metrics, registry):
    metrics.rejected("p", "t", Rejection(ReasonCode.VALIDATION_FAILED, "…", rule="r"), "dlq")
    metrics.conflicted(TABLE, {"/a": {"string": 1}})
    metrics.transformed(TABLE, {("redact", "/a"): 1, ("convert", "/a"): 1})
    metrics.set_back("p", "t", [0])
    metrics.set_back("q", "t", [0])
    metrics.forget_pipeline("p")
    shown = generate_latest(registry).decode()
    assert 'pipeline="p"' not in shown
    assert 'pipeline="q"' in shown
