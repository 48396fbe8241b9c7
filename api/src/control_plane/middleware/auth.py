"""Who calls: the bearer token of a request, and the principal that it stands for."""

from typing import Protocol

from fastapi import Request
from fastapi.security import OAuth2PasswordBearer

from control_plane.models.auth import Principal
from control_plane.problems import Problem

TOKEN_URL = "/api/v1/auth/token"  # nosec B105

bearer = OAuth2PasswordBearer(tokenUrl=TOKEN_URL, auto_error=False)
"""Tells OpenAPI how to sign in; the routes themselves ask `authenticate`."""


class Authenticator(Protocol):
    async def authenticate(self, token: str) -> Principal:
        """The principal of an access token or a service token. Raises `Problem` 401."""
        ...


async def authenticate(request: Request, authenticator: Authenticator) -> Principal:
    """The principal that a request comes from. Raises `Problem` 401 without a good token."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise not_authenticated("sign in at POST /api/v1/auth/token and send its access_token as a bearer token")
    return await authenticator.authenticate(token.strip())


def not_authenticated(detail: str, code: str = "not_authenticated") -> Problem:
    return Problem(401, code, detail, headers={"WWW-Authenticate": "Bearer"})
