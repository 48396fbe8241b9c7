"""Staying signed in: tokens are fetched when the first request needs one, and renewed before they expire."""

import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import httpx

from control_plane.client.errors import ApiError

TOKEN_PATH = "/api/v1/auth/token"  # nosec B105
REFRESH_PATH = "/api/v1/auth/refresh"
RENEW_BEFORE_S = 15.0
"""A token that expires within this time is renewed first, so that it is valid when the request arrives."""

AuthFlow = Generator[httpx.Request, httpx.Response, None]


@dataclass(frozen=True)
class Password:
    """A person's name and password."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class ServiceToken:
    """A machine's token. It is sent as it is, and never renewed."""

    token: str = field(repr=False)


class ServiceTokenAuth(httpx.Auth):
    """Sends a service token."""

    def __init__(self, token: ServiceToken) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> AuthFlow:
        request.headers["Authorization"] = f"Bearer {self._token.token}"
        yield request


class PasswordAuth(httpx.Auth):
    """Signs in with a password, renews with the refresh token, and signs in anew when that is refused.

    Threads may share it: one of them renews, the others wait. A refresh token is never used twice, because the API
    takes that for theft and ends the session.
    """

    requires_response_body = True

    def __init__(self, base_url: str, credentials: Password, clock: Callable[[], float] = time.monotonic) -> None:
        self._base_url = base_url
        self._credentials = credentials
        self._clock = clock
        self._lock = threading.Lock()
        self._access = ""
        self._refresh = ""
        self._expires_at = 0.0

    @property
    def refresh_token(self) -> str:
        """What ends this session when it is handed back; empty before the first request."""
        return self._refresh

    def forget(self) -> None:
        """Sign in anew with the next request: the session has ended."""
        with self._lock:
            self._access = self._refresh = ""

    def use(self, credentials: Password) -> None:
        """Sign in with these from now on."""
        with self._lock:
            self._credentials = credentials
            self._access = self._refresh = ""

    def sync_auth_flow(self, request: httpx.Request) -> AuthFlow:
        """Raises the `ApiError` of a sign-in that was refused."""
        with self._lock:
            if not self._access or self._clock() >= self._expires_at - RENEW_BEFORE_S:
                yield from self._renew()
            sent = self._access
        request.headers["Authorization"] = f"Bearer {sent}"
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return
        response.read()
        with self._lock:  # it was revoked early: signed out elsewhere, or the password was changed
            if self._access == sent:
                yield from self._renew()
            request.headers["Authorization"] = f"Bearer {self._access}"
        yield request

    def _renew(self) -> AuthFlow:
        """The caller holds the lock."""
        refresh, self._access, self._refresh = self._refresh, "", ""
        if refresh:
            answer = yield httpx.Request("POST", self._base_url + REFRESH_PATH, json={"refresh_token": refresh})
            answer.read()
            if answer.is_success:
                self._take(answer)
                return
        form = {"grant_type": "password", "username": self._credentials.user, "password": self._credentials.password}
        answer = yield httpx.Request("POST", self._base_url + TOKEN_PATH, data=form)
        answer.read()
        if not answer.is_success:
            error = ApiError.of(answer)
            error.was_sent = False  # the request that wanted the token
            raise error
        self._take(answer)

    def _take(self, answer: httpx.Response) -> None:
        tokens = answer.json()
        self._access, self._refresh = tokens["access_token"], tokens.get("refresh_token") or ""
        self._expires_at = self._clock() + float(tokens["expires_in"])
