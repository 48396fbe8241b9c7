"""How many requests one address and one user may send, and, tighter, how many passwords one address may try.

slowapi keeps the counts (a sliding window, in this process's memory: several API processes count each for itself). Its
own middleware is not used: it sends the start of a streamed answer once more with every part of it.
"""

import math
import os
import time
import warnings
from typing import Final

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from slowapi import Limiter
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.middleware.request_context import draft_of
from control_plane.models.audit import Action
from control_plane.models.auth import Principal
from control_plane.problems import Problem
from control_plane.services.login_guard import network_of

STRATEGY: Final = "sliding-window-counter"
UNLIMITED_PATHS: Final = frozenset({"/health", "/ready", "/metrics"})
"""What probes and Prometheus ask for; it touches no database."""
FORGET_EVERY_S: Final = 10.0
PASSWORD_ACTIONS: Final = frozenset({Action.SIGN_IN, Action.CHANGE_PASSWORD})


class CountsInMemory(MemoryStorage):
    """Forgets what has expired now and then. The one that it is made of starts a thread for that with each request,
    and waits until it runs: 1.5 ms in which nothing else is answered.
    """

    STORAGE_SCHEME = ["cdc-memory"]  # noqa: RUF012 # as its base declares it

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **options: str) -> None:
        super().__init__(uri, wrap_exceptions, **options)
        self._forgotten_at = time.monotonic()

    def _MemoryStorage__schedule_expiry(self) -> None:  # noqa: N802 # a private method's name, as Python spells it
        now = time.monotonic()
        if now - self._forgotten_at >= FORGET_EVERY_S:
            self._forgotten_at = now
            super()._MemoryStorage__schedule_expiry()  # type: ignore[misc]


class RateLimits:
    """Each method counts one request, or raises `Problem` 429 with `Retry-After`."""

    def __init__(self, requests: str, passwords: str) -> None:
        """Limits such as `600/minute`: `requests` of one address, and of one user; `passwords` of one address."""
        with warnings.catch_warnings():
            # It has no file of settings: without a name it would take those of a .env in the working directory.
            warnings.filterwarnings("ignore", "Config file", UserWarning)
            limiter = Limiter(lambda: "", strategy=STRATEGY, storage_uri="cdc-memory://", config_filename=os.devnull)
        self._limiter = limiter.limiter
        self._requests = parse(requests)
        self._passwords = parse(passwords)

    def count_request(self, address: str | None) -> None:
        self._count(self._requests, "requests from this address", "address", network_of(address))

    def count_call(self, principal: Principal) -> None:
        self._count(self._requests, f"requests of this {principal.kind}", principal.kind, str(principal.id))

    def count_password(self, address: str | None) -> None:
        self._count(self._passwords, "passwords from this address", "passwords", network_of(address))

    def _count(self, limit: RateLimitItem, what: str, *key: str) -> None:
        if self._limiter.hit(limit, *key):
            return
        free_at = self._limiter.get_window_stats(limit, *key).reset_time
        wait_s = max(1, math.ceil(free_at - time.time()))
        raise Problem(
            429,
            "too_many_requests",
            f"too many {what}: {limit.amount} per {limit.GRANULARITY.name} are allowed; wait {wait_s} s",
            headers={"Retry-After": str(wait_s)},
        )


class RateLimitMiddleware:
    """Counts every request for its address, before anything is done for it. Pure ASGI, inside of the audit."""

    def __init__(self, app: ASGIApp, limits: RateLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in UNLIMITED_PATHS:
            self._limits.count_request(draft_of(scope).address)
        await self._app(scope, receive, send)
