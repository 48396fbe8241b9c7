"""Access tokens: short-lived JWTs (RFC 9068) that name a user and a session, signed with ES256 and nothing else.

A token carries no rights: what its user may do, and whether its session goes on, is asked of the database each time.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from jose import jwt
from jose.exceptions import ExpiredSignatureError, JWTError

from control_plane.services.key_ring import KeyRing
from control_plane.services.signing_keys import ALGORITHM

ISSUER: Final = "cdc-control-plane"
AUDIENCE: Final = "cdc-control-plane-api"
TYPE: Final = "at+jwt"
LIFETIME: Final = timedelta(minutes=10)
CLOCK_SKEW_S: Final = 10
"""How far the clocks of the machines that serve one API may be apart."""
MAX_CHARS: Final = 2048
"""Ours have about 500."""

_OPTIONS: Final = {
    **{f"require_{claim}": True for claim in ("aud", "iat", "exp", "nbf", "iss", "sub", "jti")},
    "leeway": CLOCK_SKEW_S,
}


class InvalidToken(Exception):
    """Not a token that we signed for this API, or not a good one."""


class ExpiredToken(InvalidToken):
    """It was good once."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says."""

    user: UUID
    session: UUID


class AccessTokens:
    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    async def issue(self, user: UUID, session: UUID, now: datetime) -> str:
        """A token that is good from `now` for `LIFETIME`."""
        keys = await self._keys.current()
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user),
            "sid": str(session),
            "jti": str(uuid.uuid4()),
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME,
        }
        token: str = jwt.encode(claims, keys.private, algorithm=ALGORITHM, headers={"kid": keys.newest, "typ": TYPE})
        return token

    async def verify(self, token: str) -> Claims:
        """What the token says. Raises `ExpiredToken`, or `InvalidToken`, which does not say why."""
        if len(token) > MAX_CHARS:
            raise InvalidToken
        try:
            header: dict[str, Any] = jwt.get_unverified_header(token)
            key_id = header.get("kid")
            if header.get("alg") != ALGORITHM or header.get("typ") != TYPE or not isinstance(key_id, str):
                raise InvalidToken
            key = (await self._keys.verifying(key_id)).public.get(key_id)
            if key is None:
                raise InvalidToken
            claims = jwt.decode(
                token, key, algorithms=[ALGORITHM], audience=AUDIENCE, issuer=ISSUER, options=dict(_OPTIONS)
            )
            return Claims(UUID(claims["sub"]), UUID(claims["sid"]))
        except ExpiredSignatureError:
            raise ExpiredToken from None
        except (JWTError, ValueError, KeyError, TypeError, AttributeError):
            raise InvalidToken from None
