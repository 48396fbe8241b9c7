"""Pipelines in Postgres: the row that people change, and what the controller has seen beside it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from control_plane.database import Connection
from control_plane.models.operation import Operation
from control_plane.models.pipeline import Condition, Desired, PipelineRecord

# One row a pipeline, with its conditions and its unfinished operations in it.
_SELECT = """
SELECT p.*, coalesce(o.reached_version, 0) AS reached_version, o.published_version, o.rules_version, o.observed_at,
    (SELECT jsonb_agg(to_jsonb(c) ORDER BY c.kind) FROM conditions c WHERE c.pipeline = p.name) AS conditions,
    (SELECT jsonb_agg(to_jsonb(w) - 'memory' ORDER BY w.number) FROM operations w
        WHERE w.pipeline = p.name AND w.state IN ('pending', 'running')) AS operations
FROM pipelines p LEFT JOIN observations o ON o.pipeline = p.name
"""


@dataclass(frozen=True, slots=True)
class PipelineFilter:
    """Which pipelines a list is of; None does not restrict."""

    names: Collection[str] | None = None
    """Only these, as a user's row scope says."""
    text: str | None = None
    """Part of the name."""
    desired: Desired | None = None
    database: str | None = None
    """The source's."""


async def insert(connection: Connection, name: str, spec: Mapping[str, Any], by: str) -> UUID | None:
    """Add a stopped pipeline; None when there is one of that name."""
    made: UUID | None = await connection.fetchval(
        "INSERT INTO pipelines (name, spec, created_by, updated_by) VALUES ($1, $2, $3, $3) "
        "ON CONFLICT (name) DO NOTHING RETURNING id",
        name,
        dict(spec),
        by,
    )
    return made


async def lock(connection: Connection, name: str) -> bool:
    """Let nobody else change the pipeline until the transaction ends; False when there is none.

    Taken before the row is read with `find`: a query that waits for a lock sees the other tables as they were before.
    """
    return await connection.fetchval("SELECT 1 FROM pipelines WHERE name = $1 FOR UPDATE", name) is not None


async def keep(connection: Connection, name: str) -> bool:
    """Let nobody delete the pipeline until the transaction ends; False when it is gone. Changes of it go on."""
    return await connection.fetchval("SELECT 1 FROM pipelines WHERE name = $1 FOR KEY SHARE", name) is not None


async def find(connection: Connection, name: str) -> PipelineRecord | None:
    row = await connection.fetchrow(f"{_SELECT} WHERE p.name = $1", name)
    return _record(row) if row else None


async def page(
    connection: Connection, which: PipelineFilter, after: str | None, limit: int | None
) -> list[PipelineRecord]:
    """Pipelines by name, of those behind `after` the first `limit`; None: all."""
    rows = await connection.fetch(
        f"""{_SELECT}
        WHERE ($1::text[] IS NULL OR p.name = ANY($1))
            AND ($2::text IS NULL OR position($2 in p.name) > 0)
            AND ($3::text IS NULL OR p.desired = $3)
            AND ($4::text IS NULL OR p.spec #>> '{{source,database}}' = $4)
            AND ($5::text IS NULL OR p.name > $5)
        ORDER BY p.name LIMIT $6""",  # nosec B608 # constants only
        None if which.names is None else list(which.names),
        which.text,
        which.desired,
        which.database,
        after,
        limit,
    )
    return [_record(row) for row in rows]


async def names(connection: Connection, among: frozenset[str] | None) -> list[str]:
    """The names of all pipelines, or of those that are among these."""
    rows = await connection.fetch(
        "SELECT name FROM pipelines WHERE $1::text[] IS NULL OR name = ANY($1) ORDER BY name",
        None if among is None else list(among),
    )
    return [row["name"] for row in rows]


async def every(connection: Connection) -> list[PipelineRecord]:
    """All pipelines, by name: what the controller looks after."""
    return await page(connection, PipelineFilter(), after=None, limit=None)


async def replace_spec(connection: Connection, name: str, spec: Mapping[str, Any], by: str) -> None:
    """Store another spec under the next version."""
    await connection.execute(
        "UPDATE pipelines SET spec = $2, version = version + 1, updated_at = now(), updated_by = $3 WHERE name = $1",
        name,
        dict(spec),
        by,
    )


async def move(connection: Connection, name: str, desired: Desired, by: str, *, deleting: bool = False) -> None:
    """Store what the pipeline is wanted to be now. One that is to run has been started from then on."""
    await connection.execute(
        "UPDATE pipelines SET desired = $2, desired_version = desired_version + 1, desired_since = now(), "
        "started = started OR $2 = 'running', deleting = deleting OR $4, updated_at = now(), updated_by = $3 "
        "WHERE name = $1",
        name,
        desired,
        by,
        deleting,
    )


async def forget_start(connection: Connection, name: str) -> None:
    """Note that the pipeline's tables are gone, so that nothing rests on its spec any more: after a reset."""
    await connection.execute("UPDATE pipelines SET started = false WHERE name = $1", name)


async def remove(connection: Connection, name: str) -> None:
    """Take the row away, with what was seen of it; its operations stay."""
    await connection.execute("DELETE FROM pipelines WHERE name = $1", name)


async def observe(
    connection: Connection,
    name: str,
    at: datetime,
    *,
    reached_version: int | None = None,
    published_version: int | None = None,
    rules_version: int | None = None,
) -> None:
    """Note that the controller has looked, and what it has made true; None leaves what was noted before.

    Does nothing when the pipeline is gone meanwhile.
    """
    await connection.execute(
        """INSERT INTO observations AS o (pipeline, reached_version, published_version, rules_version, observed_at)
        SELECT name, coalesce($3, 0), $4, $5, $2 FROM pipelines WHERE name = $1
        ON CONFLICT (pipeline) DO UPDATE SET
            reached_version = coalesce($3, o.reached_version),
            published_version = coalesce($4, o.published_version),
            rules_version = coalesce($5, o.rules_version),
            observed_at = $2""",
        name,
        at,
        reached_version,
        published_version,
        rules_version,
    )


def _record(row: asyncpg.Record) -> PipelineRecord:
    fields = dict(row)
    fields["desired"] = Desired(fields["desired"])
    fields["conditions"] = tuple(Condition.model_validate(each) for each in fields["conditions"] or ())
    fields["operations"] = tuple(Operation.model_validate(each) for each in fields["operations"] or ())
    return PipelineRecord(**fields)
