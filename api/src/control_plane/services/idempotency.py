"""Requests that are done once however often they are sent: `POST` with an `Idempotency-Key`.

The answer is stored in the transaction of the work that it tells of. So a request whose answer got lost finds it when
it is sent again, and one that failed has left nothing and is simply tried again.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from control_plane.database import Connection
from control_plane.problems import Problem
from control_plane.repositories import idempotency_repo
from control_plane.repositories.idempotency_repo import KEPT_H, GivenAnswer

RETRY_AFTER_S: Final = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back: JSON."""

    status: int
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)
    is_repeated: bool = False
    """It was given before, and nothing was done now."""


def digest_of(method: str, path: str, query: str, body: bytes) -> bytes:
    """What tells one request from another."""
    digest = hashlib.sha256("\n".join((method, path, query, "")).encode())
    digest.update(body)
    return digest.digest()


async def once(
    connection: Connection, principal: UUID, key: str | None, request: bytes, perform: Callable[[], Awaitable[Answer]]
) -> Answer:
    """Perform, or give the answer that was given under the key before. Without a key: perform.

    Args:
        connection: in the transaction that `perform` works in.
        request: `digest_of` the request.

    Raises:
        Problem: 409 while the same key is being worked on, 422 when it was used for another request.
    """
    if key is None:
        return await perform()
    if not await idempotency_repo.lock(connection, principal, key):
        raise Problem(
            409,
            "idempotency_key_in_use",
            "a request with this Idempotency-Key is being worked on: send it again in a moment",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )
    given = await idempotency_repo.find(connection, principal, key)
    if given is None:
        answer = await perform()
        stored = GivenAnswer(request, answer.status, answer.headers, answer.body)
        await idempotency_repo.store(connection, principal, key, stored)
        return answer
    if given.request != request:
        raise Problem(
            422,
            "idempotency_key_reused",
            f"this Idempotency-Key was used for another request within the last {KEPT_H} h: take a new one",
        )
    return Answer(given.status, given.body, given.headers, is_repeated=True)
