"""Failed sign-ins in Postgres, so that all API processes count together."""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from control_plane.database import Connection


async def blocked_until(connection: Connection, subjects: Collection[str]) -> datetime | None:
    """The latest time that one of these is blocked until, past or not; None when none has failed."""
    until: datetime | None = await connection.fetchval(
        "SELECT max(blocked_until) FROM login_failures WHERE subject = ANY($1)", list(subjects)
    )
    return until


async def take_turn(connection: Connection, subject: str) -> None:
    """Wait for whoever else has the turn; it is held to the transaction's end. A row to lock there may not be yet."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", subject)


async def count(connection: Connection, subject: str, now: datetime, forget_after: timedelta) -> int:
    """Note one more failure; how many that makes since there was a pause of `forget_after`."""
    return int(
        await connection.fetchval(
            "INSERT INTO login_failures AS f (subject, failures, last_failure_at, blocked_until) "
            "VALUES ($1, 1, $2, $2) ON CONFLICT (subject) DO UPDATE SET last_failure_at = $2, "
            "failures = CASE WHEN f.last_failure_at < $2 - $3::interval THEN 1 ELSE f.failures + 1 END "
            "RETURNING failures",
            subject,
            now,
            forget_after,
        )
    )


async def block(connection: Connection, subject: str, until: datetime) -> None:
    await connection.execute("UPDATE login_failures SET blocked_until = $2 WHERE subject = $1", subject, until)


async def forget(connection: Connection, subjects: Iterable[str]) -> None:
    for subject in subjects:  # one by one: everybody locks them in one order
        await connection.execute("DELETE FROM login_failures WHERE subject = $1", subject)


async def clean(connection: Connection, before: datetime) -> None:
    """Forget those whose last failure, and whose block, lie before; not those that somebody counts for just now."""
    await connection.execute(
        "DELETE FROM login_failures WHERE subject IN (SELECT subject FROM login_failures "
        "WHERE last_failure_at < $1 AND blocked_until < $1 FOR UPDATE SKIP LOCKED)",
        before,
    )
