"""Service tokens in Postgres. The tokens themselves are nowhere: only SHA-256 of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from control_plane.database import Connection
from control_plane.permissions import Permission

_COLUMNS: Final = (
    "id, name, prefix, permissions, pipelines, created_by, created_at, expires_at, last_used_at, revoked_at"
)


@dataclass(frozen=True, slots=True)
class ServiceToken:
    id: UUID
    name: str
    prefix: str
    permissions: frozenset[Permission]
    pipelines: frozenset[str] | None
    created_by: UUID | None
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


async def add(
    connection: Connection,
    *,
    name: str,
    prefix: str,
    hashed: bytes,
    permissions: Iterable[Permission],
    pipelines: Iterable[str] | None,
    created_by: UUID | None,
    now: datetime,
    expires_at: datetime,
) -> ServiceToken | None:
    """The new token; None when one of this name is not revoked."""
    row = await connection.fetchrow(
        "INSERT INTO service_tokens "
        "(name, prefix, hash, permissions, pipelines, created_by, created_at, expires_at) "
        f"VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING {_COLUMNS}",  # nosec B608
        name,
        prefix,
        hashed,
        sorted(permissions),
        None if pipelines is None else sorted(pipelines),
        created_by,
        now,
        expires_at,
    )
    return _token(row) if row else None


async def by_hash(connection: Connection, hashed: bytes) -> ServiceToken | None:
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM service_tokens WHERE hash = $1",  # nosec B608
        hashed,
    )
    return _token(row) if row else None


async def page(connection: Connection, after: tuple[datetime, UUID] | None, limit: int) -> list[ServiceToken]:
    """The next ones, oldest first."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM service_tokens "  # nosec B608
        "WHERE $1::timestamptz IS NULL OR (created_at, id) > ($1, $2) ORDER BY created_at, id LIMIT $3",
        after[0] if after else None,
        after[1] if after else None,
        limit,
    )
    return [_token(row) for row in rows]


async def note_use(connection: Connection, token: UUID, now: datetime) -> None:
    await connection.execute("UPDATE service_tokens SET last_used_at = $2 WHERE id = $1", token, now)


async def revoke(connection: Connection, token: UUID, now: datetime) -> ServiceToken | None:
    """The token as it is now, revoked once and for all; None when there is none of this id."""
    row = await connection.fetchrow(
        "UPDATE service_tokens SET revoked_at = coalesce(revoked_at, $2) "  # nosec B608
        f"WHERE id = $1 RETURNING {_COLUMNS}",
        token,
        now,
    )
    return _token(row) if row else None


def _token(row: Any) -> ServiceToken:
    values = dict(row)
    known = set(Permission)  # one that a later release took away grants nothing
    values["permissions"] = frozenset(Permission(each) for each in values["permissions"] if each in known)
    values["pipelines"] = None if values["pipelines"] is None else frozenset(values["pipelines"])
    return ServiceToken(**values)
