"""Schedules of reconciliation in Postgres. They are people's; the service notes when they fire."""

from uuid import UUID

import asyncpg

from cdc_shared.models.reconciliation import ScheduleConfig
from control_plane.database import Connection
from control_plane.models.reconciliation_schedules import Schedule


async def insert(connection: Connection, pipeline: str, config: ScheduleConfig, by: str) -> Schedule:
    row = await connection.fetchrow(
        "INSERT INTO reconciliation_schedules (pipeline, config, created_by, updated_by) VALUES ($1, $2, $3, $3) "
        "RETURNING *",
        pipeline,
        config.model_dump(mode="json"),
        by,
    )
    assert row is not None  # nosec B101 # RETURNING
    return _schedule(row)


async def find(connection: Connection, pipeline: str, schedule: UUID, *, lock: bool = False) -> Schedule | None:
    """The schedule; with `lock`, nobody else changes it until the transaction ends."""
    row = await connection.fetchrow(
        "SELECT * FROM reconciliation_schedules WHERE pipeline = $1 AND id = $2" + (" FOR UPDATE" if lock else ""),  # nosec B608
        pipeline,
        schedule,
    )
    return _schedule(row) if row else None


async def page(connection: Connection, pipeline: str, after: UUID | None, limit: int) -> list[Schedule]:
    """The pipeline's schedules by id, those behind `after`."""
    rows = await connection.fetch(
        "SELECT * FROM reconciliation_schedules WHERE pipeline = $1 AND ($2::uuid IS NULL OR id > $2) "
        "ORDER BY id LIMIT $3",
        pipeline,
        after,
        limit,
    )
    return [_schedule(row) for row in rows]


async def replace(connection: Connection, schedule: UUID, config: ScheduleConfig, by: str) -> Schedule:
    """Store another config under the next version; the service finds out anew when it is due.

    Held by `find` with `lock` in the same transaction.
    """
    row = await connection.fetchrow(
        "UPDATE reconciliation_schedules SET config = $2, version = version + 1, updated_at = now(), updated_by = $3, "
        "next_fire_at = NULL WHERE id = $1 RETURNING *",
        schedule,
        config.model_dump(mode="json"),
        by,
    )
    assert row is not None  # nosec B101 # it is held
    return _schedule(row)


async def remove(connection: Connection, schedule: UUID) -> None:
    """Take the schedule away; jobs that it made stay."""
    await connection.execute("DELETE FROM reconciliation_schedules WHERE id = $1", schedule)


def _schedule(row: asyncpg.Record) -> Schedule:
    return Schedule.model_validate(dict(row))
