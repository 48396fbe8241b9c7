"""What dashboards and alerts rely on; and that what is over or gone is no longer told."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from cdc_shared.models.reconciliation import DifferenceKind, JobState, Mode, Outcome
from reconciliation.metrics.reconciliation_metrics import ReconciliationMetrics, VerifiedCollection
from reconciliation.reconciler.progress import Phase, RunProgress
from reconciliation.reconciler.result import RunResult, RunSummary
from reconciliation.reporters.notifier import Delivery

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
TABLE = ("pipeline", "database", "collection")
LABELS = {"pipeline": "p", "database": "d", "collection": "c"}
RUN: Any = SimpleNamespace(id=uuid4(), database="d", collection="c")
JOB: Any = SimpleNamespace(id=uuid4(), pipeline="p")

CONTRACT = {
    "reconciliation_verified_through_seconds": ("gauge", TABLE),
    "reconciliation_verified_through_age_seconds": ("gauge", TABLE),
    "reconciliation_last_run_seconds": ("gauge", TABLE),
    "reconciliation_last_outcome": ("gauge", (*TABLE, "outcome")),
    "reconciliation_differences": ("gauge", (*TABLE, "kind")),
    "reconciliation_documents_per_second": ("gauge", (*TABLE, "phase")),
    "reconciliation_progress_ratio": ("gauge", (*TABLE, "phase")),
    "reconciliation_documents": ("counter", TABLE),
    "reconciliation_rows": ("counter", TABLE),
    "reconciliation_runs": ("counter", ("pipeline", "outcome")),
    "reconciliation_jobs": ("counter", ("pipeline", "state")),
    "reconciliation_notifications": ("counter", ("channel", "result")),
    "reconciliation_reports_not_written": ("counter", ("pipeline",)),
}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> ReconciliationMetrics:
    return ReconciliationMetrics(registry)


def verified(through: datetime | None = NOW - timedelta(hours=1), **more: Any) -> VerifiedCollection:
    known = {"last_outcome": Outcome.EQUAL, "differences": {}, "checked_at": NOW, **more}
    return VerifiedCollection("p", "d", "c", through, **known)


def test_every_metric_of_the_contract_is_defined_with_help_and_labels(registry: CollectorRegistry) -> None:
    metrics = ReconciliationMetrics(registry)
    defined = [each for each in vars(metrics).values() if hasattr(each, "_labelnames")]
    assert {each._name: (each._type, each._labelnames) for each in defined} == CONTRACT
    assert all(each._documentation.endswith(".") and len(each._documentation) > 20 for each in defined)


def test_what_is_verified_is_told_and_when_it_is_known_no_longer_it_goes(
    metrics: ReconciliationMetrics, registry: CollectorRegistry
) -> None:
    wrong = {DifferenceKind.MISSING: 4}
    metrics.show([verified(last_outcome=Outcome.DIFFERENCES, differences=wrong)], NOW)
    value = registry.get_sample_value
    assert value("reconciliation_verified_through_age_seconds", LABELS) == 3600
    assert value("reconciliation_verified_through_seconds", LABELS) == NOW.timestamp() - 3600
    assert value("reconciliation_differences", {**LABELS, "kind": "missing"}) == 4
    assert value("reconciliation_last_outcome", {**LABELS, "outcome": "differences"}) == 1
    assert value("reconciliation_last_outcome", {**LABELS, "outcome": "equal"}) == 0
    metrics.show([verified()], NOW + timedelta(seconds=30))
    assert value("reconciliation_verified_through_age_seconds", LABELS) == 3630
    assert value("reconciliation_differences", {**LABELS, "kind": "missing"}) == 0
    metrics.show([], NOW)
    assert value("reconciliation_verified_through_age_seconds", LABELS) is None
    assert value("reconciliation_differences", {**LABELS, "kind": "missing"}) is None


def test_what_was_never_verified_has_no_age(metrics: ReconciliationMetrics, registry: CollectorRegistry) -> None:
    metrics.show([verified(None)], NOW)
    assert registry.get_sample_value("reconciliation_verified_through_age_seconds", LABELS) is None
    assert registry.get_sample_value("reconciliation_last_run_seconds", LABELS) == NOW.timestamp()


def test_progress_is_of_the_phase_at_hand_and_ends_with_the_run(
    metrics: ReconciliationMetrics, registry: CollectorRegistry
) -> None:
    def value(name: str, phase: str) -> float | None:
        return registry.get_sample_value(name, {**LABELS, "phase": phase})

    metrics.progressed(JOB, RUN, RunProgress(Phase.SCANNING_SOURCE, 50, 200, 25.0))
    assert value("reconciliation_documents_per_second", "scanning_source") == 25
    assert value("reconciliation_progress_ratio", "scanning_source") == 0.25
    metrics.progressed(JOB, RUN, RunProgress(Phase.SETTLING, 1, 4))
    assert value("reconciliation_documents_per_second", "scanning_source") is None
    assert value("reconciliation_progress_ratio", "settling") == 0.25
    metrics.completed(JOB, RUN, RunResult(Outcome.EQUAL, RunSummary(Mode.FULL, documents=200, rows=199)))
    assert value("reconciliation_progress_ratio", "settling") is None
    assert registry.get_sample_value("reconciliation_documents_total", LABELS) == 200
    assert registry.get_sample_value("reconciliation_rows_total", LABELS) == 199
    assert registry.get_sample_value("reconciliation_runs_total", {"pipeline": "p", "outcome": "equal"}) == 1


def test_a_job_that_is_left_leaves_no_progress_behind(
    metrics: ReconciliationMetrics, registry: CollectorRegistry
) -> None:
    metrics.progressed(JOB, RUN, RunProgress(Phase.SCANNING_TABLE, 50, 200, 25.0))
    metrics.ended(JOB, JobState.CANCELLED)
    labels = {**LABELS, "phase": "scanning_table"}
    assert registry.get_sample_value("reconciliation_documents_per_second", labels) is None
    assert registry.get_sample_value("reconciliation_jobs_total", {"pipeline": "p", "state": "cancelled"}) == 1


def test_deliveries_and_lost_reports_are_counted(metrics: ReconciliationMetrics, registry: CollectorRegistry) -> None:
    metrics.delivered([Delivery("slack", 1, None), Delivery("slack", 9, "503"), Delivery("email", 1, None)])
    metrics.report_not_written("p")
    value = registry.get_sample_value
    assert value("reconciliation_notifications_total", {"channel": "slack", "result": "failed"}) == 1
    assert value("reconciliation_notifications_total", {"channel": "email", "result": "delivered"}) == 1
    assert value("reconciliation_reports_not_written_total", {"pipeline": "p"}) == 1
