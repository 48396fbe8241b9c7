"""Signing in and staying signed in: passwords for tokens, refresh tokens for new ones, tokens for principals.

What a refusal leaves behind (a counted failure, an ended session) is committed by itself: the request's own transaction
is rolled back.
"""

import hashlib
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.security.references import secret_providers
from control_plane.database import Connection, Database
from control_plane.middleware.auth import not_authenticated
from control_plane.models.auth import Principal
from control_plane.problems import Problem
from control_plane.repositories import session_repo, user_repo
from control_plane.repositories.session_repo import EndedBy
from control_plane.repositories.user_repo import User
from control_plane.services import service_tokens
from control_plane.services.access_tokens import LIFETIME, AccessTokens, ExpiredToken, InvalidToken
from control_plane.services.first_admin import ensure_first_admin
from control_plane.services.key_ring import KeyRing
from control_plane.services.login_guard import Attempt, LoginGuard
from control_plane.services.passwords import Passwords, Verdict, require_good
from control_plane.services.signing_keys import SigningKeys
from control_plane.settings import Settings

SESSION_LIFETIME: Final = timedelta(days=7)
"""After that one signs in with the password again."""
REFRESH_LIFETIME: Final = timedelta(hours=24)
"""A session ends when nobody refreshes it for so long."""
REFRESH_PREFIX: Final = "cdcr_"
REFRESH_BYTES: Final = 32
WRONG: Final = "invalid_credentials"

Clock = Callable[[], datetime]
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What a client gets; the tokens exist nowhere else."""

    principal: Principal
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in_s: int


class RefreshReused(Problem):
    """A refresh token came a second time."""

    def __init__(self, session: UUID) -> None:
        invalid = _invalid_refresh()
        super().__init__(invalid.status, invalid.code, invalid.detail, headers=invalid.headers)
        self.session = session


def utc_now() -> datetime:
    return datetime.now(UTC)


class AuthService:
    def __init__(
        self,
        database: Database,
        access_tokens: AccessTokens,
        passwords: Passwords,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._access_tokens = access_tokens
        self._guard = LoginGuard()
        self.passwords = passwords
        self.clock = clock

    @classmethod
    async def open(cls, settings: Settings, database: Database, passwords: Passwords) -> "AuthService":
        """With the signing keys of the settings; the first start makes them, and the first admin.

        Raises `Fatal` when keys are neither there nor can be made, or an admin's password is not good enough.
        """
        providers = secret_providers(settings.secrets)
        reference = settings.api.signing_keys
        ring = KeyRing(SigningKeys.read_or_make(reference, providers), partial(SigningKeys.read, reference, providers))
        service = cls(database, AccessTokens(ring), passwords)
        await ensure_first_admin(database, settings.api, service.passwords, service.clock())
        return service

    async def authenticate(self, token: str) -> Principal:
        """The principal of an access token or a service token, as it is now. Raises `Problem` 401."""
        if token.startswith(service_tokens.PREFIX):
            return await service_tokens.authenticate(self._database, token, self.clock())
        try:
            claims = await self._access_tokens.verify(token)
        except ExpiredToken:
            raise not_authenticated("the access token has expired: refresh it", "token_expired") from None
        except InvalidToken:
            raise not_authenticated("this is no token of this API", "invalid_token") from None
        async with self._database.connection() as connection:
            session = await session_repo.going_on(connection, claims.session, claims.user, self.clock())
        if session is None:
            raise not_authenticated("the session has ended: sign in again", "session_ended")
        return session.principal

    async def known_name(self, name: str) -> str | None:
        """The user of this name, as it is spelled; None for text that names nobody: it may be a password."""
        async with self._database.connection() as connection:
            user = await user_repo.by_name(connection, name)
        return user.name if user else None

    async def check_password(self, name: str, password: str, address: str | None) -> "Accepted":
        """The user of that name and password. Raises `Problem` 401, alike for unknown users, or 429.

        It holds no connection while it compares, which takes its time.
        """
        attempt = Attempt.of(name, address)
        user, verdict = await self._compare(attempt, name, password)
        if user is None or user.disabled or not verdict.right:
            raise await self._refused(attempt, not_authenticated("the name or the password is wrong", WRONG))
        return Accepted(user, verdict.new_hash)

    async def sign_in(self, connection: Connection, accepted: "Accepted", address: str | None) -> SignedIn:
        """Start a session of a user whose password was checked. In a transaction. Raises as `check_password`."""
        now, user = self.clock(), accepted.user
        attempt = Attempt.of(user.name, address)
        await self._guard.admit_in_turn(connection, attempt, now)  # others may have guessed in vain meanwhile
        if not await user_repo.signed_in(connection, user.id, user.password_hash, now, new_hash=accepted.new_hash):
            raise not_authenticated("the user was changed meanwhile: sign in again", WRONG)
        await self._guard.succeeded(connection, attempt)
        await session_repo.clean(connection, now)
        started = uuid.uuid4()
        await session_repo.start(
            connection, started, user.id, now=now, expires_at=now + SESSION_LIFETIME, address=address
        )
        session = await session_repo.going_on(connection, started, user.id, now)
        if session is None:
            raise not_authenticated("the user was changed meanwhile: sign in again", WRONG)
        return await self._tokens(connection, session.principal, now)

    async def refresh(self, connection: Connection, token: str) -> SignedIn:
        """New tokens for a refresh token, which is good once. In a transaction.

        Raises `Problem` 401, or `RefreshReused`: then the caller rolls back and calls `end_reused`.
        """
        now, hashed = self.clock(), _hash(token)
        known = await session_repo.session_of(connection, hashed)
        if known is None:
            raise _invalid_refresh()
        session_of_token, user = known
        issued_at = await session_repo.use_refresh_token(connection, hashed, now)
        if issued_at is None:
            raise RefreshReused(session_of_token)
        session = await session_repo.going_on(connection, session_of_token, user, now)
        if session is None or now - issued_at >= REFRESH_LIFETIME:
            raise _invalid_refresh()
        return await self._tokens(connection, session.principal, now)

    async def end_reused(self, session: UUID) -> None:
        """End a session one of whose refresh tokens came twice: either the first use was a thief's, or this is."""
        async with self._database.transaction() as connection:
            await session_repo.end(connection, session, EndedBy.REFRESH_REUSED, self.clock())
        log.warning("a refresh token was used twice: its session is ended", session=str(session))

    async def sign_out(self, connection: Connection, principal: Principal) -> None:
        """End the session."""
        await session_repo.end(connection, session_id(principal), EndedBy.SIGN_OUT, self.clock())

    async def check_change(self, principal: Principal, current: str, new: str, address: str | None) -> "NewPassword":
        """A change of password that may be made. Raises `Problem` 403 `wrong_password`, 422 or 429."""
        session_id(principal)
        attempt = Attempt.of(principal.name, address)
        user, verdict = await self._compare(attempt, principal.name, current)
        if user is None or not verdict.right:
            raise await self._refused(attempt, Problem(403, "wrong_password", "the current password is wrong"))
        require_good(new, user.name)
        if new == current:
            raise Problem(422, "weak_password", "choose another password: this is the current one")
        return NewPassword(user.password_hash, await self.passwords.hash(new))

    async def change_password(self, connection: Connection, principal: Principal, new: "NewPassword") -> None:
        """Make a change that was checked, and end the user's other sessions. In a transaction.

        Raises `Problem` 409 when another change came first.
        """
        now = self.clock()
        user = await user_repo.by_id(connection, principal.id, lock=True)
        if user is None or user.password_hash != new.instead_of:
            raise Problem(409, "conflict", "the password was changed meanwhile: sign in again")
        await user_repo.set_password(connection, principal.id, new.hash, now=now, must_change=False)
        await session_repo.end_all(connection, principal.id, EndedBy.PASSWORD_CHANGED, now, but=principal.session)

    async def _compare(self, attempt: Attempt, name: str, password: str) -> tuple[User | None, Verdict]:
        async with self._database.connection() as connection:
            await self._guard.admit(connection, attempt, self.clock())
            user = await user_repo.by_name(connection, name)
        return user, await self.passwords.verify(password, user.password_hash if user else None)

    async def _refused(self, attempt: Attempt, problem: Problem) -> Problem:
        """Count a failure. The problem to raise: this one, or 429 where the block came first."""
        now = self.clock()
        async with self._database.transaction() as connection:
            await self._guard.admit_in_turn(connection, attempt, now)
            await self._guard.failed(connection, attempt, now)
        return problem

    async def _tokens(self, connection: Connection, principal: Principal, now: datetime) -> SignedIn:
        session = session_id(principal)
        refresh_token = REFRESH_PREFIX + secrets.token_urlsafe(REFRESH_BYTES)
        await session_repo.add_refresh_token(connection, session, _hash(refresh_token), now)
        access_token = await self._access_tokens.issue(principal.id, session, now)
        return SignedIn(principal, access_token, refresh_token, int(LIFETIME.total_seconds()))


@dataclass(frozen=True, slots=True)
class Accepted:
    """A user whose password was right."""

    user: User
    new_hash: str | None = field(repr=False)
    """What to keep of the password from now on, where today's settings are stronger."""


@dataclass(frozen=True, slots=True)
class NewPassword:
    """A change of password that was checked."""

    instead_of: str = field(repr=False)
    """The hash that was compared with."""
    hash: str = field(repr=False)


def session_id(principal: Principal) -> UUID:
    """The session of a user. Raises `Problem` 403 for a service token."""
    if principal.session is None:
        raise Problem(403, "users_only", "a service token has no session and no password: an admin revokes it")
    return principal.session


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def _invalid_refresh() -> Problem:
    return not_authenticated("this refresh token is not good, or not any more: sign in again", "invalid_refresh_token")
