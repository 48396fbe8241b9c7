"""Answers that were given under an `Idempotency-Key`, so that a request that is repeated gets the same one again.

Keys are of the caller's choice, and are stored hashed: somebody may have taken a token for one.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from control_plane.database import Connection

KEPT_H: Final = 24
_MAX_EXPIRED_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """An answer as it was sent, and which request it was to."""

    request: bytes
    status: int
    headers: Mapping[str, str]
    body: str


async def lock(connection: Connection, principal: UUID, key: str) -> bool:
    """Hold the key until the transaction ends; False when another request holds it now."""
    number = int.from_bytes(hashlib.sha256(principal.bytes + key.encode()).digest()[:8], "big", signed=True)
    held: bool = await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", number)
    return held


async def find(connection: Connection, principal: UUID, key: str) -> GivenAnswer | None:
    """What was answered under the key within the last `KEPT_H` hours."""
    row = await connection.fetchrow(
        "SELECT request, status, headers, body FROM idempotency_keys "
        "WHERE principal = $1 AND key = $2 AND created_at > now() - make_interval(hours => $3)",
        principal,
        _hash_of(key),
        KEPT_H,
    )
    return GivenAnswer(**row) if row else None


async def store(connection: Connection, principal: UUID, key: str, answer: GivenAnswer) -> None:
    """Keep an answer, and drop some whose time has passed."""
    await connection.execute(
        "DELETE FROM idempotency_keys WHERE (principal, key) IN (SELECT principal, key FROM idempotency_keys "
        "WHERE created_at <= now() - make_interval(hours => $1) LIMIT $2 FOR UPDATE SKIP LOCKED)",
        KEPT_H,
        _MAX_EXPIRED_AT_ONCE,
    )
    await connection.execute(
        "INSERT INTO idempotency_keys (principal, key, request, status, headers, body) VALUES ($1, $2, $3, $4, $5, $6) "
        "ON CONFLICT (principal, key) DO UPDATE SET request = $3, status = $4, headers = $5, body = $6, "
        "created_at = now()",
        principal,
        _hash_of(key),
        answer.request,
        answer.status,
        dict(answer.headers),
        answer.body,
    )


def _hash_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
