"""Operations in Postgres. People add and cancel them; the controller takes them in turn and tells how it goes.

Whatever the controller stores of an operation, it stores only while the operation is unfinished: it may have been
cancelled meanwhile, which the answer of each call says.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from control_plane.database import Connection
from control_plane.models.operation import Operation, OperationKind

_UNFINISHED = "state IN ('pending', 'running')"


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """An operation as the controller works it."""

    id: UUID
    pipeline: str
    pipeline_id: UUID
    kind: OperationKind
    arguments: Mapping[str, Any]
    attempts: int
    memory: Mapping[str, Any]
    holds_connector: bool
    next_attempt_at: datetime | None


async def insert(
    connection: Connection,
    pipeline: str,
    pipeline_id: UUID,
    kind: OperationKind,
    arguments: Mapping[str, Any],
    by: str,
) -> Operation:
    """Add one behind all others of the pipeline."""
    row = await connection.fetchrow(
        "INSERT INTO operations (pipeline, pipeline_id, kind, arguments, requested_by) VALUES ($1, $2, $3, $4, $5) "
        "RETURNING *",
        pipeline,
        pipeline_id,
        kind,
        dict(arguments),
        by,
    )
    assert row is not None  # nosec B101 # RETURNING
    return _operation(row)


async def cancel(connection: Connection, pipeline: str, kinds: Collection[OperationKind]) -> int:
    """Cancel the pipeline's unfinished operations of these kinds; how many there were."""
    answer = await connection.execute(
        f"UPDATE operations SET state = 'cancelled', finished_at = now() "  # nosec B608 # constants only
        f"WHERE pipeline = $1 AND kind = ANY($2) AND {_UNFINISHED}",
        pipeline,
        list(kinds),
    )
    return int(answer.rpartition(" ")[2])


async def find(connection: Connection, pipeline: str, operation: UUID) -> Operation | None:
    row = await connection.fetchrow("SELECT * FROM operations WHERE pipeline = $1 AND id = $2", pipeline, operation)
    return _operation(row) if row else None


async def page(connection: Connection, pipeline: str, before: int | None, limit: int) -> list[tuple[int, Operation]]:
    """The pipeline's operations, newest first, each with its number; those numbered below `before`."""
    rows = await connection.fetch(
        "SELECT * FROM operations WHERE pipeline = $1 AND ($2::bigint IS NULL OR number < $2) "
        "ORDER BY number DESC LIMIT $3",
        pipeline,
        before,
        limit,
    )
    return [(row["number"], _operation(row)) for row in rows]


async def first_unfinished(connection: Connection, pipeline: str) -> OperationRecord | None:
    """The one whose turn it is: the oldest. Resyncs that have not begun, or only follow the connector, come last: they
    wait for the pipeline to run, or for hours, and a restart must not wait with them.
    """
    row = await connection.fetchrow(
        f"SELECT * FROM operations WHERE pipeline = $1 AND {_UNFINISHED} "  # nosec B608 # constants only
        "ORDER BY (kind = 'resync' AND (state = 'pending' OR NOT holds_connector)), number LIMIT 1",
        pipeline,
    )
    return _work(row) if row else None


async def begin(connection: Connection, operation: UUID) -> bool:
    """Note that work on it has begun, unless it was noted before. False: it was cancelled meanwhile."""
    return await _update(connection, operation, "state = 'running', started_at = coalesce(started_at, now())")


async def advance(
    connection: Connection,
    operation: UUID,
    memory: Mapping[str, Any],
    message: str,
    *,
    holds_connector: bool,
    next_attempt_at: datetime | None = None,
) -> bool:
    """Store what a step returned that was not the last. False: it was cancelled meanwhile."""
    return await _update(
        connection,
        operation,
        "memory = $2, message = $3, holds_connector = $4, next_attempt_at = $5, attempts = 0, error = NULL",
        dict(memory),
        message,
        holds_connector,
        next_attempt_at,
    )


async def postpone(connection: Connection, operation: UUID, error: str, next_attempt_at: datetime) -> bool:
    """Note that a step went wrong and is tried again then. False: it was cancelled meanwhile."""
    return await _update(
        connection, operation, "attempts = attempts + 1, error = $2, next_attempt_at = $3", error, next_attempt_at
    )


async def succeed(connection: Connection, operation: UUID, message: str) -> bool:
    """Note that it is done. False: it was cancelled meanwhile."""
    return await _update(
        connection,
        operation,
        "state = 'succeeded', message = $2, finished_at = now(), error = NULL, next_attempt_at = NULL",
        message,
    )


async def fail(connection: Connection, operation: UUID, error: str) -> bool:
    """Note that it will never be done, and why. False: it was cancelled meanwhile."""
    return await _update(
        connection, operation, "state = 'failed', error = $2, finished_at = now(), next_attempt_at = NULL", error
    )


async def _update(connection: Connection, operation: UUID, assignments: str, *values: Any) -> bool:
    answer = await connection.execute(
        f"UPDATE operations SET {assignments} WHERE id = $1 AND {_UNFINISHED}",  # nosec B608 # constants only
        operation,
        *values,
    )
    return answer != "UPDATE 0"


def _operation(row: asyncpg.Record) -> Operation:
    return Operation.model_validate(dict(row))


def _work(row: asyncpg.Record) -> OperationRecord:
    return OperationRecord(
        id=row["id"],
        pipeline=row["pipeline"],
        pipeline_id=row["pipeline_id"],
        kind=OperationKind(row["kind"]),
        arguments=row["arguments"],
        attempts=row["attempts"],
        memory=row["memory"] or {},
        holds_connector=row["holds_connector"],
        next_attempt_at=row["next_attempt_at"],
    )
