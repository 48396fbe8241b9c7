"""The audit trail in Postgres: entries are added to the end of the chain, and read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from cdc_shared.errors import Fatal
from control_plane.database import Connection
from control_plane.models.audit import Action, AuditEntry, Outcome
from control_plane.models.audit_chain import ChainedEntry, Head, chain, duration_us

_COLUMNS: Final = (
    "id, at, user_id, user_name, roles, action, resource, outcome, status, code, request_id, address, duration_us, hash"
)
_INSERT: Final = f"INSERT INTO audit_logs ({_COLUMNS}) VALUES ({', '.join(f'${n}' for n in range(1, 15))})"  # nosec B608


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries; all of what is set must hold."""

    user: str | None = None
    """A name, in any case, or an id."""
    action: Action | None = None
    resource: str | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    """From this time on."""
    until: datetime | None = None
    """Before this time."""


async def append(connection: Connection, entries: Sequence[AuditEntry]) -> None:
    """Chain entries to the end, in the caller's transaction; they are there when it commits.

    From here to the commit the chain is locked for all processes: this belongs right before it. Raises
    `asyncpg.LockNotAvailableError` when others hold the lock for 10 s.
    """
    chained = chain(_head(await connection.fetchrow("SELECT entries, hash FROM lock_audit_head()")), entries)
    await connection.executemany(_INSERT, [_row(each) for each in chained])
    await connection.execute("UPDATE audit_head SET entries = $1, hash = $2", chained[-1].id, chained[-1].hash)


async def ends(connection: Connection) -> tuple[Head, int]:
    """The head, and the place of the last entry there is: the same, unless somebody meddled."""
    row = await connection.fetchrow(
        "SELECT entries, hash, (SELECT coalesce(max(id), 0) FROM audit_logs) AS last FROM audit_head"
    )
    return _head(row), row["last"] if row else 0


async def newest(connection: Connection, wanted: AuditFilter, before: int | None, limit: int) -> list[ChainedEntry]:
    """Entries that match, newest first, placed before `before`; None: from the end."""
    conditions, values = _conditions(wanted)
    if before is not None:
        conditions.append(f"id < ${len(values) + 1}")
        values.append(before)
    return await _entries(connection, conditions, values, f"DESC LIMIT {limit:d}")


async def between(
    connection: Connection, wanted: AuditFilter, after: int, through: int, limit: int
) -> list[ChainedEntry]:
    """Entries that match, oldest first, with `after` < place ≤ `through`."""
    conditions, values = _conditions(wanted)
    conditions += [f"id > ${len(values) + 1}", f"id <= ${len(values) + 2}"]
    return await _entries(connection, conditions, [*values, after, through], f"LIMIT {limit:d}")


async def hash_at(connection: Connection, place: int) -> bytes | None:
    """The stored hash of the entry at this place; None when there is none."""
    value: bytes | None = await connection.fetchval("SELECT hash FROM audit_logs WHERE id = $1", place)
    return value


async def _entries(connection: Connection, conditions: list[str], values: list[Any], tail: str) -> list[ChainedEntry]:
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = await connection.fetch(f"SELECT {_COLUMNS} FROM audit_logs {where} ORDER BY id {tail}", *values)  # nosec B608
    return [_entry(row) for row in rows]


def _conditions(wanted: AuditFilter) -> tuple[list[str], list[Any]]:
    """Only what is asked for, so that each query gets the plan, and the index, that fits it."""
    asked: list[tuple[str, Any]] = []
    if wanted.user is not None:
        user_id = _uuid(wanted.user)
        asked.append(("user_id = ${}", user_id) if user_id else ("lower(user_name) = lower(${})", wanted.user))
    asked += [
        (condition, value)
        for condition, value in (
            ("action = ${}", wanted.action),
            ("resource = ${}", wanted.resource),
            ("outcome = ${}", wanted.outcome),
            ("at >= ${}", wanted.since),
            ("at < ${}", wanted.until),
        )
        if value is not None
    ]
    return [condition.format(n) for n, (condition, _) in enumerate(asked, 1)], [value for _, value in asked]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _head(row: asyncpg.Record | None) -> Head:
    if row is None:
        raise Fatal("the head of the audit trail is gone from the table audit_head: restore the database")
    return Head(row["entries"], row["hash"])


def _row(chained: ChainedEntry) -> tuple[Any, ...]:
    entry = chained.entry
    return (
        chained.id,
        entry.at,
        entry.user_id,
        entry.user,
        entry.roles,
        entry.action,
        entry.resource,
        entry.outcome,
        entry.status,
        entry.code,
        entry.request_id,
        entry.address,
        duration_us(entry),
        chained.hash,
    )


def _entry(row: asyncpg.Record) -> ChainedEntry:
    entry = AuditEntry(
        at=row["at"],
        user_id=str(row["user_id"]) if row["user_id"] else None,
        user=row["user_name"],
        roles=tuple(row["roles"]),
        action=row["action"],
        resource=row["resource"],
        outcome=row["outcome"],
        status=row["status"],
        code=row["code"],
        request_id=row["request_id"],
        address=row["address"],
        duration_ms=row["duration_us"] / 1000,
    )
    return ChainedEntry(row["id"], entry, row["hash"])
