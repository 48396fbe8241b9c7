"""Service tokens: what machines sign in with. Random, hashed at rest, scoped, expiring, revocable."""

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from control_plane.database import Connection, Database
from control_plane.middleware.auth import not_authenticated
from control_plane.models.auth import Principal
from control_plane.models.pages import Page, decode_cursor, encode_cursor
from control_plane.models.service_tokens import CreatedServiceToken, NewServiceToken, ServiceTokenView
from control_plane.permissions import OF_EVERYONE
from control_plane.problems import Problem
from control_plane.repositories import service_token_repo
from control_plane.repositories.service_token_repo import ServiceToken

PREFIX: Final = "cdcs_"
RANDOM_BYTES: Final = 32
SHOWN_CHARS: Final = len(PREFIX) + 6
USE_NOTED_EVERY: Final = timedelta(minutes=1)


async def authenticate(database: Database, token: str, now: datetime) -> Principal:
    """The principal of a service token. Raises `Problem` 401."""
    async with database.connection() as connection:
        found = await service_token_repo.by_hash(connection, _hash(token))
        if found is None:
            raise not_authenticated("this is no token of this API", "invalid_token")
        if found.revoked_at is not None:
            raise not_authenticated("the service token was revoked", "token_revoked")
        if found.expires_at <= now:
            raise not_authenticated("the service token has expired: ask an admin for a new one", "token_expired")
        if found.last_used_at is None or now - found.last_used_at >= USE_NOTED_EVERY:
            await service_token_repo.note_use(connection, found.id, now)
    return Principal(
        id=found.id,
        name=found.name,
        kind="service",
        roles=frozenset(),
        permissions=found.permissions | OF_EVERYONE,
        pipelines=found.pipelines,
    )


async def create(connection: Connection, wanted: NewServiceToken, by: Principal, now: datetime) -> CreatedServiceToken:
    """A new token. Raises `Problem` 409 when there is one of this name, 403 for rights that its maker has not."""
    if missing := wanted.permissions - by.permissions:
        raise Problem(403, "not_permitted", f"nobody gives what they do not have: {', '.join(sorted(missing))}")
    token = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    made = await service_token_repo.add(
        connection,
        name=wanted.name,
        prefix=token[:SHOWN_CHARS],
        hashed=_hash(token),
        permissions=wanted.permissions,
        pipelines=wanted.pipelines,
        created_by=by.id,
        now=now,
        expires_at=now + timedelta(days=wanted.expires_in_days),
    )
    if made is None:
        raise Problem(409, "name_taken", "a token of this name is in use: revoke it first, or choose another name")
    return CreatedServiceToken(**_view(made).model_dump(), token=token)


async def page(connection: Connection, cursor: str | None, limit: int) -> Page[ServiceTokenView]:
    """The tokens, oldest first, revoked and expired ones too."""
    position = decode_cursor(cursor, str, str)
    try:
        after = (datetime.fromisoformat(str(position[0])), UUID(str(position[1]))) if position else None
    except ValueError:
        raise Problem(422, "invalid_cursor", "cursor is not one that a page gave as its `next`") from None
    found = await service_token_repo.page(connection, after, limit + 1)
    shown = found[:limit]
    more = encode_cursor([shown[-1].created_at.isoformat(), str(shown[-1].id)]) if len(found) > limit else None
    return Page(items=[_view(each) for each in shown], next=more)


async def revoke(connection: Connection, token: UUID, now: datetime) -> ServiceTokenView:
    """Refuse it from now on; revoking twice is harmless. Raises `Problem` 404."""
    revoked = await service_token_repo.revoke(connection, token, now)
    if revoked is None:
        raise Problem(404, "not_found", "there is no service token of this id")
    return _view(revoked)


def _view(token: ServiceToken) -> ServiceTokenView:
    return ServiceTokenView(
        id=token.id,
        name=token.name,
        prefix=token.prefix,
        permissions=sorted(token.permissions),
        pipelines=None if token.pipelines is None else sorted(token.pipelines),
        created_by=token.created_by,
        created_at=token.created_at,
        expires_at=token.expires_at,
        last_used_at=token.last_used_at,
        revoked_at=token.revoked_at,
    )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
