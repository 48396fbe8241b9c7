"""The conditions of pipelines, as the controller last found them."""

from collections.abc import Collection, Iterable
from datetime import datetime

from control_plane.database import Connection
from control_plane.models.pipeline import ConditionStatus


async def remove(connection: Connection, pipeline: str, kinds: Collection[str]) -> None:
    """Say nothing more of these."""
    await connection.execute("DELETE FROM conditions WHERE pipeline = $1 AND kind = ANY($2)", pipeline, list(kinds))


async def record(
    connection: Connection,
    pipeline: str,
    found: Iterable[tuple[str, ConditionStatus, str, str]],
    at: datetime,
) -> None:
    """Store what was found: kind, status, reason, message. `since` moves only when status or reason are others.

    Writes nothing that is there already, and nothing of a pipeline that is gone meanwhile.
    """
    kinds, statuses, reasons, messages = [list(column) for column in zip(*found, strict=True)] or [[], [], [], []]
    await connection.execute(
        """INSERT INTO conditions AS c (pipeline, kind, status, reason, message, since)
        SELECT p.name, f.kind, f.status, f.reason, f.message, $6
        FROM pipelines p, unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS f(kind, status, reason, message)
        WHERE p.name = $1
        ON CONFLICT (pipeline, kind) DO UPDATE SET
            status = excluded.status, reason = excluded.reason, message = excluded.message,
            since = CASE WHEN (c.status, c.reason) = (excluded.status, excluded.reason) THEN c.since
                ELSE excluded.since END
        WHERE (c.status, c.reason, c.message) <> (excluded.status, excluded.reason, excluded.message)""",
        pipeline,
        kinds,
        statuses,
        reasons,
        messages,
        at,
    )
