"""Sessions and their refresh tokens in Postgres. A session is one sign-in; its refresh tokens follow one another."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from control_plane.database import Connection
from control_plane.models.auth import Principal
from control_plane.permissions import Role, granted

CLEANED_AT_ONCE: Final = 100


class EndedBy(StrEnum):
    """Why a session ended before its time."""

    SIGN_OUT = "sign_out"
    REFRESH_REUSED = "refresh_reused"
    PASSWORD_CHANGED = "password_changed"  # nosec B105
    PASSWORD_RESET = "password_reset"  # nosec B105
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Session:
    """A session that goes on, and who is signed in with it."""

    principal: Principal
    expires_at: datetime


async def start(
    connection: Connection, session: UUID, user: UUID, *, now: datetime, expires_at: datetime, address: str | None
) -> None:
    await connection.execute(
        "INSERT INTO sessions (id, user_id, created_at, expires_at, address) VALUES ($1, $2, $3, $4, $5)",
        session,
        user,
        now,
        expires_at,
        address,
    )


async def going_on(connection: Connection, session: UUID, user: UUID, now: datetime) -> Session | None:
    """The session as it is now; None when it has ended, or its user is disabled."""
    row = await connection.fetchrow(
        "SELECT u.id, u.name, u.must_change_password, u.pipelines, s.id AS session, s.expires_at, "
        "ARRAY(SELECT role FROM user_roles r WHERE r.user_id = u.id) AS roles "
        "FROM sessions s JOIN users u ON u.id = s.user_id "
        "WHERE s.id = $1 AND u.id = $2 AND s.revoked_at IS NULL AND s.expires_at > $3 AND NOT u.disabled",
        session,
        user,
        now,
    )
    return Session(_principal(row), row["expires_at"]) if row else None


async def add_refresh_token(connection: Connection, session: UUID, hashed: bytes, now: datetime) -> None:
    await connection.execute(
        "INSERT INTO refresh_tokens (hash, session_id, issued_at) VALUES ($1, $2, $3)", hashed, session, now
    )


async def use_refresh_token(connection: Connection, hashed: bytes, now: datetime) -> datetime | None:
    """When it was issued, for the first that asks; None for any other."""
    issued_at: datetime | None = await connection.fetchval(
        "UPDATE refresh_tokens SET used_at = $2 WHERE hash = $1 AND used_at IS NULL RETURNING issued_at", hashed, now
    )
    return issued_at


async def session_of(connection: Connection, hashed: bytes) -> tuple[UUID, UUID] | None:
    """The session's and the user's id of a refresh token, used or not; None for one that was never issued."""
    row = await connection.fetchrow(
        "SELECT s.id, s.user_id FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id WHERE t.hash = $1", hashed
    )
    return (row["id"], row["user_id"]) if row else None


async def end(connection: Connection, session: UUID, why: EndedBy, now: datetime) -> None:
    """Refuse its tokens from now on."""
    await connection.execute(
        "UPDATE sessions SET revoked_at = $2, revoked_why = $3 WHERE id = $1 AND revoked_at IS NULL", session, now, why
    )


async def end_all(connection: Connection, user: UUID, why: EndedBy, now: datetime, *, but: UUID | None = None) -> None:
    """End every session of a user, except `but`."""
    await connection.execute(
        "UPDATE sessions SET revoked_at = $2, revoked_why = $3 "
        "WHERE user_id = $1 AND revoked_at IS NULL AND id IS DISTINCT FROM $4",
        user,
        now,
        why,
        but,
    )


async def addresses_of(connection: Connection, user: UUID) -> list[str | None]:
    """Where the user's sessions were started from, those that have ended included until they are cleaned away."""
    rows = await connection.fetch("SELECT DISTINCT address FROM sessions WHERE user_id = $1", user)
    return [row["address"] for row in rows]


async def clean(connection: Connection, now: datetime) -> None:
    """Remove some of the sessions whose time is over; their refresh tokens go with them."""
    await connection.execute(
        "DELETE FROM sessions WHERE id IN "
        "(SELECT id FROM sessions WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
        now,
        CLEANED_AT_ONCE,
    )


def _principal(row: Any) -> Principal:
    roles = frozenset(Role(each) for each in row["roles"])
    return Principal(
        id=row["id"],
        name=row["name"],
        kind="user",
        roles=roles,
        permissions=granted(roles),
        pipelines=None if row["pipelines"] is None else frozenset(row["pipelines"]),
        session=row["session"],
        must_change_password=row["must_change_password"],
    )
