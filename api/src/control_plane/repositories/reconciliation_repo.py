"""Reconciliation in Postgres: jobs, their runs, what these found, and what is verified.

People add jobs and say what they want of them; all else is written by the reconciliation service
(`migrations/0005_reconciliation.sql`).
"""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from cdc_shared.models.reconciliation import DifferenceKind, JobState, Mode
from cdc_shared.models.repair_plan import COUNT_DIFFERENCES, Counts
from control_plane.database import Connection
from control_plane.models.reconciliation import (
    Difference,
    DifferenceFilter,
    DifferencePosition,
    Job,
    NewJob,
    Run,
    StoredReport,
    Verification,
    Wanted,
)

_RUNS = """
SELECT r.*, EXISTS (SELECT 1 FROM reconciliation_reports p WHERE p.run_id = r.id) AS has_report
FROM reconciliation_runs r
"""
_VERIFICATIONS = """
SELECT v.*, r.job_id AS last_job_id
FROM reconciliation_verifications v LEFT JOIN reconciliation_runs r ON r.id = v.last_run_id
"""


async def insert_job(connection: Connection, pipeline: str, job: NewJob, by: str) -> Job:
    """Add a job behind all others."""
    row = await connection.fetchrow(
        "INSERT INTO reconciliation_jobs (pipeline, collections, mode, options, notifications, overlap, requested_by) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *",
        pipeline,
        None if job.collections is None else list(job.collections),
        job.mode,
        job.options.model_dump(mode="json"),
        job.notifications.model_dump(mode="json"),
        job.overlap,
        by,
    )
    assert row is not None  # nosec B101 # RETURNING
    return _job(row)


async def find_job(connection: Connection, pipeline: str, job: UUID, *, lock: bool = False) -> Job | None:
    """The job; with `lock`, nobody else changes it until the transaction ends."""
    row = await connection.fetchrow(
        "SELECT * FROM reconciliation_jobs WHERE pipeline = $1 AND id = $2" + (" FOR UPDATE" if lock else ""),  # nosec B608
        pipeline,
        job,
    )
    return _job(row) if row else None


async def jobs(
    connection: Connection, pipeline: str, state: JobState | None, mode: Mode | None, before: int | None, limit: int
) -> list[tuple[int, Job]]:
    """The pipeline's jobs, newest first, each with its number; those numbered below `before`."""
    rows = await connection.fetch(
        "SELECT * FROM reconciliation_jobs WHERE pipeline = $1 AND ($2::text IS NULL OR state = $2) "
        "AND ($3::text IS NULL OR mode = $3) AND ($4::bigint IS NULL OR number < $4) ORDER BY number DESC LIMIT $5",
        pipeline,
        state,
        mode,
        before,
        limit,
    )
    return [(row["number"], _job(row)) for row in rows]


async def want(connection: Connection, job: UUID, wanted: Wanted) -> None:
    """Say what people want of the job; the service hears it at once."""
    await connection.execute("UPDATE reconciliation_jobs SET wanted = $2 WHERE id = $1", job, wanted)


async def runs(connection: Connection, job: UUID) -> list[Run]:
    """The job's collections, by name."""
    rows = await connection.fetch(f"{_RUNS} WHERE r.job_id = $1 ORDER BY r.database, r.collection", job)
    return [_run(row) for row in rows]


async def differences(
    connection: Connection, job: UUID, which: DifferenceFilter, after: DifferencePosition | None, limit: int
) -> list[Difference]:
    """What the job found, of those behind `after` the first `limit`; by collection, in the order of the report.

    Asked run by run: each is a walk along an index, whatever others have found.
    """
    rows = await connection.fetch(
        "SELECT id, database, collection FROM reconciliation_runs WHERE job_id = $1 "
        "AND ($2::text IS NULL OR database = $2) AND ($3::text IS NULL OR collection = $3) "
        'AND ($4::text IS NULL OR (database COLLATE "C", collection COLLATE "C") >= ($4, $5)) '
        'ORDER BY database COLLATE "C", collection COLLATE "C"',
        job,
        which.database,
        which.collection,
        after.database if after else None,
        after.collection if after else None,
    )
    found: list[Difference] = []
    for run in rows:
        is_begun = after is not None and (run["database"], run["collection"]) == (after.database, after.collection)
        first = after.number if after is not None and is_begun else -1
        found += await _differences_of(connection, run, which.kind, first, limit - len(found))
        if len(found) == limit:
            break
    return found


async def count_differences(connection: Connection, job: UUID) -> Counts:
    """How many keys of each kind the job found, and of them those whose `_id` is known and is not."""
    rows = await connection.fetch(COUNT_DIFFERENCES, job)
    return {(DifferenceKind(row["kind"]), row["is_known"]): row["keys"] for row in rows}


async def report(connection: Connection, job: UUID, database: str, collection: str) -> StoredReport | None:
    row = await connection.fetchrow(
        "SELECT p.run_id, p.report, p.lake_path FROM reconciliation_reports p "
        "JOIN reconciliation_runs r ON r.id = p.run_id WHERE r.job_id = $1 AND r.database = $2 AND r.collection = $3",
        job,
        database,
        collection,
    )
    return StoredReport(**dict(row)) if row else None


async def verifications(
    connection: Connection,
    pipelines: Collection[str] | None,
    after: Sequence[str] | None = None,
    limit: int | None = None,
) -> list[Verification]:
    """What is known of the tables of these pipelines (None: of all), by name; those behind `after`."""
    rows = await connection.fetch(
        f"""{_VERIFICATIONS}
        WHERE ($1::text[] IS NULL OR v.pipeline = ANY($1))
            AND ($2::text IS NULL
                OR (v.pipeline, v.database COLLATE "C", v.collection COLLATE "C") > ($2, $3::text, $4::text))
        ORDER BY v.pipeline, v.database COLLATE "C", v.collection COLLATE "C" LIMIT $5""",  # nosec B608 # constants only
        None if pipelines is None else list(pipelines),
        *(after or (None, None, None)),
        limit,
    )
    return [Verification.model_validate(dict(row)) for row in rows]


async def _differences_of(
    connection: Connection, run: asyncpg.Record, kind: DifferenceKind | None, after: int, limit: int
) -> list[Difference]:
    rows = await connection.fetch(
        "SELECT number, kind, key, source_key IS NOT NULL AS is_known, details FROM reconciliation_differences "
        "WHERE run_id = $1 AND number > $2 AND ($3::text IS NULL OR kind = $3) ORDER BY number LIMIT $4",
        run["id"],
        after,
        kind,
        limit,
    )
    return [_difference(run, row) for row in rows]


def _difference(run: asyncpg.Record, row: asyncpg.Record) -> Difference:
    details: dict[str, Any] = row["details"]
    return Difference(
        run_id=run["id"],
        database=run["database"],
        collection=run["collection"],
        number=row["number"],
        kind=row["kind"],
        key=row["key"],
        can_be_repaired=row["is_known"],
        explanation=details.get("explanation", ""),
        fields=details.get("fields", []),
        document=details.get("document"),
        row=details.get("row"),
        rows=details.get("rows"),
        rules_version=details.get("rules_version"),
    )


def _job(row: asyncpg.Record) -> Job:
    return Job.model_validate(dict(row))


def _run(row: asyncpg.Record) -> Run:
    fields = dict(row)
    fields["progress"] = fields["progress"] or None
    return Run.model_validate(fields)
