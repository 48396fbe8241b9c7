"""What a job's end is to those who are told: its runs, each with what the one before it had said."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from cdc_shared.models.reconciliation import DifferenceKind, JobState, Outcome
from reconciliation.database import Database
from reconciliation.reporters.news import CollectionNews, JobNews, Verdict
from reconciliation.scheduler.job import Job

# Against the last run of the same mode: hourly counts and a nightly full comparison do not see the same. Verifications
# of repairs have compared a few keys: they are no verdict on the collection.
_RUNS: Final = """
SELECT r.database, r.collection, r.state, r.outcome, r.summary, r.error, p.outcome AS before_outcome,
    p.summary AS before_summary
FROM reconciliation_runs r
LEFT JOIN LATERAL (
    SELECT e.outcome, e.summary FROM reconciliation_runs e JOIN reconciliation_jobs j ON j.id = e.job_id
    WHERE e.pipeline = r.pipeline AND e.database = r.database AND e.collection = r.collection
        AND e.state = 'completed' AND e.finished_at < r.finished_at AND e.job_id <> r.job_id AND j.repair_id IS NULL
        AND j.mode = (SELECT mode FROM reconciliation_jobs WHERE id = r.job_id)
    ORDER BY e.finished_at DESC LIMIT 1
) p ON true
WHERE r.job_id = $1 ORDER BY r.database COLLATE "C", r.collection COLLATE "C"
"""


async def news_of(
    database: Database, job: Job, state: JobState, at: datetime, error: str | None = None, warning: str | None = None
) -> JobNews:
    """Return the news of a job in this state. Raises `Transient`."""
    async with database.connection() as connection:
        rows = await connection.fetch(_RUNS, job.id)
    return JobNews(
        job_id=str(job.id),
        pipeline=job.pipeline,
        mode=job.mode,
        state=state,
        requested_by=job.requested_by,
        at=at,
        collections=tuple(_collection(dict(row)) for row in rows),
        warning=warning or job.warning,
        error=error,
    )


def _collection(row: Mapping[str, Any]) -> CollectionNews:
    summary = row["summary"] or {}
    through = summary.get("verified_through")
    return CollectionNews(
        database=row["database"],
        collection=row["collection"],
        state=JobState(row["state"]),
        verdict=_verdict(row["outcome"], summary),
        before=_verdict(row["before_outcome"], row["before_summary"] or {}),
        verified_through=datetime.fromisoformat(through) if through else None,
        documents=summary.get("documents", 0),
        rows=summary.get("rows", 0),
        error=row["error"],
    )


def _verdict(outcome: str | None, summary: Mapping[str, Any]) -> Verdict | None:
    if outcome is None:
        return None
    return Verdict(Outcome(outcome), {DifferenceKind(k): n for k, n in summary.get("differences", {}).items()})
