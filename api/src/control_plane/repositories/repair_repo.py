"""Repairs in Postgres. People propose and decide; the reconciliation service applies what is approved."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from cdc_shared.models.reconciliation import DifferenceKind, RepairState
from cdc_shared.models.repair_plan import RepairPlan
from control_plane.database import Connection
from control_plane.models.repairs import Repair


async def insert(
    connection: Connection,
    pipeline: str,
    job: UUID,
    kinds: Sequence[DifferenceKind],
    max_keys: int,
    plan: RepairPlan,
    by: str,
) -> Repair | None:
    """Add a proposed repair; None while another one of the job is not finished."""
    row = await connection.fetchrow(
        "INSERT INTO reconciliation_repairs (pipeline, job_id, kinds, max_keys, plan, proposed_by) "
        "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING *",
        pipeline,
        job,
        list(kinds),
        max_keys,
        plan.model_dump(mode="json"),
        by,
    )
    return _repair(row) if row else None


async def find(connection: Connection, pipeline: str, repair: UUID, *, lock: bool = False) -> Repair | None:
    """The repair; with `lock`, nobody else changes it until the transaction ends."""
    row = await connection.fetchrow(
        "SELECT * FROM reconciliation_repairs WHERE pipeline = $1 AND id = $2" + (" FOR UPDATE" if lock else ""),  # nosec B608
        pipeline,
        repair,
    )
    return _repair(row) if row else None


async def unfinished(connection: Connection, job: UUID) -> Repair | None:
    """The job's repair that is not finished; there is one at most."""
    row = await connection.fetchrow(
        "SELECT * FROM reconciliation_repairs WHERE job_id = $1 AND finished_at IS NULL", job
    )
    return _repair(row) if row else None


async def page(
    connection: Connection, pipeline: str, state: RepairState | None, before: int | None, limit: int
) -> list[tuple[int, Repair]]:
    """The pipeline's repairs, newest first, each with its number; those numbered below `before`."""
    rows = await connection.fetch(
        "SELECT * FROM reconciliation_repairs WHERE pipeline = $1 AND ($2::text IS NULL OR state = $2) "
        "AND ($3::bigint IS NULL OR number < $3) ORDER BY number DESC LIMIT $4",
        pipeline,
        state,
        before,
        limit,
    )
    return [(row["number"], _repair(row)) for row in rows]


async def decide(connection: Connection, repair: UUID, state: RepairState, by: str) -> Repair:
    """Approve or reject it. Held by `find` with `lock` in the same transaction."""
    row = await connection.fetchrow(
        "UPDATE reconciliation_repairs SET state = $2, decided_by = $3, decided_at = now(), "
        "finished_at = CASE WHEN $2 = 'rejected' THEN now() END WHERE id = $1 RETURNING *",
        repair,
        state,
        by,
    )
    assert row is not None  # nosec B101 # it is held
    return _repair(row)


def _repair(row: asyncpg.Record) -> Repair:
    return Repair.model_validate(dict(row))
