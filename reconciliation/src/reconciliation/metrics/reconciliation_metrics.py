"""What the reconciliation service tells Prometheus.

What is verified comes from Postgres (`show`), so every process of the service tells the same, whichever did the work:
take `max by (pipeline, database, collection)`. What is counted or under way is each process's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from cdc_shared.models.reconciliation import DifferenceKind, JobState, Outcome
from reconciliation.reconciler.progress import Phase, RunProgress

if TYPE_CHECKING:
    from reconciliation.database import Connection
    from reconciliation.reconciler.result import RunResult
    from reconciliation.reporters.notifier import Delivery
    from reconciliation.scheduler.job import Job, Run

_TABLE: Final = ("pipeline", "database", "collection")
_READS: Final = frozenset({Phase.SCANNING_SOURCE, Phase.SCANNING_TABLE})


@dataclass(frozen=True, slots=True)
class VerifiedCollection:
    """What is known of a collection: a row of `reconciliation_verifications`."""

    pipeline: str
    database: str
    collection: str
    verified_through: datetime | None
    last_outcome: Outcome | None
    differences: Mapping[DifferenceKind, int]
    checked_at: datetime


async def verified_collections(connection: Connection) -> list[VerifiedCollection]:
    """Read what is known of every collection."""
    rows = await connection.fetch(
        "SELECT pipeline, database, collection, verified_through, last_outcome, differences, checked_at "
        "FROM reconciliation_verifications"
    )
    return [
        VerifiedCollection(
            row["pipeline"],
            row["database"],
            row["collection"],
            row["verified_through"],
            Outcome(row["last_outcome"]) if row["last_outcome"] else None,
            {DifferenceKind(kind): count for kind, count in row["differences"].items()},
            row["checked_at"],
        )
        for row in rows
    ]


class ReconciliationMetrics:
    """All metrics of one process, registered on `registry`. Observes jobs (`job_executor.Observer`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._define_verdicts(registry)
        self._define_work(registry)
        self._shown: set[tuple[str, str, str]] = set()

    def _define_verdicts(self, registry: CollectorRegistry) -> None:
        self.verified_through = Gauge(
            "reconciliation_verified_through_seconds",
            "Source time (Unix seconds) as of which every row was right; none while no run was equal.",
            _TABLE,
            registry=registry,
        )
        self.verified_age = Gauge(
            "reconciliation_verified_through_age_seconds",
            "Seconds since that time, by the service's clock, as of the last look at Postgres.",
            _TABLE,
            registry=registry,
        )
        self.last_run = Gauge(
            "reconciliation_last_run_seconds",
            "When the last completed run of the collection ended (Unix seconds).",
            _TABLE,
            registry=registry,
        )
        self.last_outcome = Gauge(
            "reconciliation_last_outcome",
            "1 for the outcome of the last completed run, 0 for the others.",
            (*_TABLE, "outcome"),
            registry=registry,
        )
        self.differences = Gauge(
            "reconciliation_differences",
            "Keys that the last completed run found not to be equal, by kind.",
            (*_TABLE, "kind"),
            registry=registry,
        )

    def _define_work(self, registry: CollectorRegistry) -> None:
        self.documents_per_second = Gauge(
            "reconciliation_documents_per_second",
            "How fast the run under way reads, over its current phase; none while no run reads.",
            (*_TABLE, "phase"),
            registry=registry,
        )
        self.progress = Gauge(
            "reconciliation_progress_ratio",
            "How much of the current phase of the run under way is done, from 0 to 1; none while it is not known.",
            (*_TABLE, "phase"),
            registry=registry,
        )
        self.documents = Counter(
            "reconciliation_documents_total",
            "Documents of the source that completed runs have compared.",
            _TABLE,
            registry=registry,
        )
        self.rows = Counter(
            "reconciliation_rows_total",
            "Rows of the tables that completed runs have compared.",
            _TABLE,
            registry=registry,
        )
        self.runs = Counter(
            "reconciliation_runs_total",
            "Runs of a collection that came to their end, by outcome.",
            ("pipeline", "outcome"),
            registry=registry,
        )
        self.jobs = Counter(
            "reconciliation_jobs_total",
            "Jobs that this process has left, by the state that they were left in.",
            ("pipeline", "state"),
            registry=registry,
        )
        self.notifications = Counter(
            "reconciliation_notifications_total",
            "Notifications by kind of channel and by what became of them (delivered, failed).",
            ("channel", "result"),
            registry=registry,
        )
        self.reports_not_written = Counter(
            "reconciliation_reports_not_written_total",
            "Reports that could not be written to the lake and are in Postgres alone.",
            ("pipeline",),
            registry=registry,
        )

    def show(self, collections: Iterable[VerifiedCollection], now: datetime) -> None:
        """Show what is known now, and no more what is known no longer."""
        found = {(each.pipeline, each.database, each.collection): each for each in collections}
        for gone in self._shown - found.keys():
            self._forget(gone)
        self._shown = set(found)
        for table, each in found.items():
            self.last_run.labels(*table).set(each.checked_at.timestamp())
            if each.verified_through is not None:
                self.verified_through.labels(*table).set(each.verified_through.timestamp())
                self.verified_age.labels(*table).set((now - each.verified_through).total_seconds())
            for outcome in Outcome:
                self.last_outcome.labels(*table, outcome.value).set(outcome is each.last_outcome)
            for kind in DifferenceKind:
                self.differences.labels(*table, kind.value).set(each.differences.get(kind, 0))

    def progressed(self, job: Job, run: Run, progress: RunProgress) -> None:
        """See `job_executor.Observer`."""
        self._end_phase(job, run)
        labels = (job.pipeline, run.database, run.collection, progress.phase.value)
        if progress.phase in _READS:
            self.documents_per_second.labels(*labels).set(progress.per_s)
        if progress.percent is not None:
            self.progress.labels(*labels).set(progress.percent / 100)

    def completed(self, job: Job, run: Run, result: RunResult) -> None:
        """See `job_executor.Observer`."""
        table = (job.pipeline, run.database, run.collection)
        self._end_phase(job, run)
        self.documents.labels(*table).inc(result.summary.documents)
        self.rows.labels(*table).inc(result.summary.rows)
        self.runs.labels(job.pipeline, result.outcome.value).inc()

    def ended(self, job: Job, state: JobState) -> None:
        """See `job_executor.Observer`."""
        self.jobs.labels(job.pipeline, state.value).inc()
        for metric in (self.documents_per_second, self.progress):
            metric.remove_by_labels({"pipeline": job.pipeline})

    def delivered(self, deliveries: Iterable[Delivery]) -> None:
        """Notifications were sent, or given up."""
        for each in deliveries:
            self.notifications.labels(each.kind, "failed" if each.error else "delivered").inc()

    def report_not_written(self, pipeline: str) -> None:
        """A report is in Postgres alone."""
        self.reports_not_written.labels(pipeline).inc()

    def _end_phase(self, job: Job, run: Run) -> None:
        for metric in (self.documents_per_second, self.progress):
            metric.remove_by_labels({"pipeline": job.pipeline, "database": run.database, "collection": run.collection})

    def _forget(self, table: tuple[str, str, str]) -> None:
        labels = dict(zip(_TABLE, table, strict=True))
        for metric in (self.verified_through, self.verified_age, self.last_run, self.last_outcome, self.differences):
            metric.remove_by_labels(labels)
