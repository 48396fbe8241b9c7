"""Users and their roles in Postgres."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from control_plane.advisory_locks import AdvisoryLock
from control_plane.database import Connection
from control_plane.permissions import Role

ADMINS_LOCK: Final = AdvisoryLock.ADMINS
"""The advisory lock of whoever takes an admin away or makes the first one."""

_COLUMNS: Final = """
    u.id, u.name, u.password_hash, u.must_change_password, u.disabled, u.pipelines, u.created_at,
    u.password_changed_at, u.last_login_at,
    ARRAY(SELECT role FROM user_roles r WHERE r.user_id = u.id ORDER BY role) AS roles
"""


@dataclass(frozen=True, slots=True)
class User:
    id: UUID
    name: str
    password_hash: str = field(repr=False)
    must_change_password: bool
    disabled: bool
    roles: frozenset[Role]
    pipelines: frozenset[str] | None
    """The only ones that this user may see; None: all."""
    created_at: datetime
    password_changed_at: datetime
    last_login_at: datetime | None


async def by_id(connection: Connection, user: UUID, *, lock: bool = False) -> User | None:
    """`lock`: until the transaction ends, nobody else changes this user."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM users u WHERE u.id = $1 {'FOR UPDATE' if lock else ''}",  # nosec B608
        user,
    )
    return _user(row) if row else None


async def by_name(connection: Connection, name: str) -> User | None:
    """Upper and lower case are the same here."""
    if not name.isascii():
        return None  # Postgres has ASCII lower cases for some (of U+0130 an i): aliases that guesses are counted by
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM users u WHERE lower(u.name) = lower($1)",  # nosec B608
        name,
    )
    return _user(row) if row else None


async def page(connection: Connection, after: str | None, limit: int) -> list[User]:
    """The next users by lower-case name."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM users u WHERE $1::text IS NULL OR lower(u.name) > $1 "  # nosec B608
        "ORDER BY lower(u.name) LIMIT $2",
        after,
        limit,
    )
    return [_user(row) for row in rows]


async def any_user(connection: Connection) -> bool:
    return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM users)"))


async def add(
    connection: Connection,
    name: str,
    password_hash: str,
    roles: Iterable[Role],
    *,
    now: datetime,
    pipelines: Iterable[str] | None = None,
    must_change_password: bool = False,
) -> UUID | None:
    """The new user's id; None when the name is taken."""
    user: UUID | None = await connection.fetchval(
        "INSERT INTO users (name, password_hash, must_change_password, pipelines, created_at, password_changed_at) "
        "VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT DO NOTHING RETURNING id",
        name,
        password_hash,
        must_change_password,
        None if pipelines is None else sorted(pipelines),
        now,
    )
    if user is not None:
        await set_roles(connection, user, roles)
    return user


async def set_roles(connection: Connection, user: UUID, roles: Iterable[Role]) -> None:
    await connection.execute("DELETE FROM user_roles WHERE user_id = $1", user)
    await connection.executemany(
        "INSERT INTO user_roles (user_id, role) VALUES ($1, $2)", [(user, role.value) for role in set(roles)]
    )


async def set_pipelines(connection: Connection, user: UUID, pipelines: Iterable[str] | None) -> None:
    await connection.execute(
        "UPDATE users SET pipelines = $2 WHERE id = $1", user, None if pipelines is None else sorted(pipelines)
    )


async def set_disabled(connection: Connection, user: UUID, disabled: bool) -> None:
    await connection.execute("UPDATE users SET disabled = $2 WHERE id = $1", user, disabled)


async def set_password(
    connection: Connection, user: UUID, password_hash: str, *, now: datetime, must_change: bool
) -> None:
    await connection.execute(
        "UPDATE users SET password_hash = $2, password_changed_at = $3, must_change_password = $4 WHERE id = $1",
        user,
        password_hash,
        now,
        must_change,
    )


async def signed_in(
    connection: Connection, user: UUID, kept: str, now: datetime, *, new_hash: str | None = None
) -> bool:
    """Note a sign-in with the password whose hash is `kept`. False when it was changed, or the user disabled, since."""
    done = await connection.fetchval(
        "UPDATE users SET last_login_at = $3, password_hash = coalesce($4, password_hash) "
        "WHERE id = $1 AND password_hash = $2 AND NOT disabled RETURNING true",
        user,
        kept,
        now,
        new_hash,
    )
    return bool(done)


async def role_descriptions(connection: Connection) -> dict[Role, str]:
    """What people are told of each role."""
    return {
        Role(row["name"]): row["description"] for row in await connection.fetch("SELECT * FROM roles ORDER BY name")
    }


async def lock_admins(connection: Connection) -> None:
    """Until the transaction ends, nobody else takes an admin away."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", ADMINS_LOCK)


async def count_admins(connection: Connection) -> int:
    """Those that can sign in."""
    return int(
        await connection.fetchval(
            "SELECT count(*) FROM user_roles r JOIN users u ON u.id = r.user_id WHERE r.role = $1 AND NOT u.disabled",
            Role.ADMIN.value,
        )
    )


def _user(row: Any) -> User:
    values = dict(row)
    values["roles"] = frozenset(Role(each) for each in values["roles"])
    values["pipelines"] = None if values["pipelines"] is None else frozenset(values["pipelines"])
    return User(**values)
