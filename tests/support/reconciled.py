"""Stands in for the reconciliation service: writes into Postgres what that writes of jobs, runs and what they found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from api_database import TrialDatabase

DETAILS = {
    "explanation": "the row does not hold what the document says in /total; repair it",
    "fields": [{"pointer": "/total", "how": "value"}],
    "document": '{"_id": 1, "total": 25}',
    "row": '{"_id": 1, "total": 24}',
    "rows": 1,
    "rules_version": 2,
}


@dataclass(frozen=True, slots=True)
class Found:
    """A difference that a run has found. `is_known`: whether its `_id` is, so that it can be asked for again."""

    kind: str
    key: str = "1"
    is_known: bool = True


async def finish(
    database: TrialDatabase, job: str, outcome: str | None = "differences", state: str = "completed"
) -> None:
    """End a job."""
    await database.fetch(
        "UPDATE reconciliation_jobs SET state = $2, outcome = $3, started_at = now(), finished_at = now() "
        "WHERE id = $1",
        UUID(job),
        state,
        outcome,
    )


async def add_run(
    database: TrialDatabase,
    job: str,
    *found: Found,
    database_name: str = "shop",
    collection: str = "orders",
    report: dict[str, Any] | None = None,
    lake_path: str | None = None,
) -> UUID:
    """A run of a job that has ended, with what it found; its id."""
    summary = {"mode": "full", "documents": 3, "rows": 2, "differences": {"missing": 1}, "timeline": []}
    progress = {"phase": "reporting", "done": 3, "total": 3, "per_s": 12.5, "percent": 100.0, "throttled_by": None}
    run: UUID = await database.fetch_value(
        "INSERT INTO reconciliation_runs (job_id, pipeline, database, collection, state, outcome, progress, summary) "
        "SELECT id, pipeline, $2, $3, 'completed', 'differences', $4, $5 FROM reconciliation_jobs "
        "WHERE id = $1 RETURNING id",
        UUID(job),
        database_name,
        collection,
        json.dumps(progress),
        json.dumps(summary),
    )
    for number, each in enumerate(found):
        await database.fetch(
            "INSERT INTO reconciliation_differences VALUES ($1, $2, $3, $4, $5, $6)",
            run,
            number,
            each.kind,
            each.key,
            b"sealed" if each.is_known else None,
            json.dumps(DETAILS),
        )
    if report is not None:
        await database.fetch(
            "INSERT INTO reconciliation_reports (run_id, report, lake_path) VALUES ($1, $2, $3)",
            run,
            json.dumps(report),
            lake_path,
        )
    return run


async def verify(
    database: TrialDatabase,
    pipeline: str,
    collection: str,
    through: datetime | None,
    outcome: str = "equal",
    differences: dict[str, int] | None = None,
    run: UUID | None = None,
) -> None:
    """The newest verdict on a collection of the database `shop`."""
    await database.fetch(
        "INSERT INTO reconciliation_verifications (pipeline, database, collection, verified_through, last_outcome, "
        "differences, last_run_id, checked_at) VALUES ($1, 'shop', $2, $3, $4, $5, $6, now())",
        pipeline,
        collection,
        through,
        outcome,
        json.dumps(differences or {}),
        run,
    )
