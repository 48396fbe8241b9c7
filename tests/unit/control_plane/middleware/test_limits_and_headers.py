"""The middleware around every route: rate limits, the size of bodies, headers for browsers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.types import ASGIApp

from control_plane import problems
from control_plane.middleware.body_limit import BodyLimitMiddleware
from control_plane.middleware.rate_limits import RateLimitMiddleware, RateLimits
from control_plane.middleware.request_context import RequestContextMiddleware
from control_plane.middleware.security_headers import SecurityHeadersMiddleware
from control_plane.models.auth import Principal
from control_plane.problems import Problem, problem_response

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

LIMIT_BYTES = 1000


class Note(BaseModel):
    text: str


def application(limits: RateLimits) -> FastAPI:
    app = FastAPI()
    problems.install(app)

    @app.post("/notes")
    async def take(note: Note) -> int:
        return len(note.text)

    @app.get("/health")
    async def health() -> str:
        return "alive"

    app.add_middleware(BodyLimitMiddleware, max_bytes=LIMIT_BYTES)
    app.add_middleware(RateLimitMiddleware, limits=limits)
    app.add_middleware(_Problems)
    app.add_middleware(RequestContextMiddleware)
    app.add_middleware(SecurityHeadersMiddleware)
    return app


class _Problems:
    """What the audit middleware does with problems that arise outside of the routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._app(scope, receive, send)
        except Problem as problem:
            from starlette.requests import Request

            await problem_response(Request(scope), problem)(scope, receive, send)


def client(app: FastAPI, address: str = "192.0.2.1") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url="http://api.test")


def body(size: int) -> bytes:
    return b'{"text":"' + b"x" * (size - 11) + b'"}'


async def in_parts(content: bytes) -> AsyncIterator[bytes]:
    """Sent without a length, as a client may."""
    for start in range(0, len(content), 100):
        yield content[start : start + 100]


@pytest.fixture
def unlimited() -> FastAPI:
    return application(RateLimits("1000000/second", "1000000/second"))


@pytest.mark.parametrize("parts", [False, True], ids=["with a length", "in parts"])
async def test_a_body_may_be_as_large_as_allowed_and_not_a_byte_larger(unlimited: FastAPI, parts: bool) -> None:
    async with client(unlimited) as http:
        for size, status in ((LIMIT_BYTES, 200), (LIMIT_BYTES + 1, 413), (50 * LIMIT_BYTES, 413)):
            content = body(size)
            sent = await http.post(
                "/notes", content=in_parts(content) if parts else content, headers={"content-type": "application/json"}
            )
            assert sent.status_code == status, sent.text
            if status == 413:
                assert sent.json()["code"] == "body_too_large"
                assert str(LIMIT_BYTES) in sent.json()["detail"]


@pytest.mark.parametrize("length", ["-1", "9" * 40, "9" * 5000, "abc", "1e9", ""])
async def test_a_length_that_is_none_does_no_harm(unlimited: FastAPI, length: str) -> None:
    async with client(unlimited) as http:
        headers = {"content-type": "application/json", "content-length": length}
        answer = await http.post("/notes", content=in_parts(body(100)), headers=headers)
        assert answer.status_code in (200, 413)


async def test_browsers_are_told_to_do_nothing_with_answers_errors_included(unlimited: FastAPI) -> None:
    async with client(unlimited) as http:
        for answer in (await http.get("/health"), await http.get("/nowhere"), await http.post("/notes", content=b"")):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "strict-transport-security" not in answer.headers
            assert "access-control-allow-origin" not in answer.headers
        secure = await http.get("https://api.test/health")
        assert "max-age=" in secure.headers["strict-transport-security"]


async def test_an_address_that_sends_too_much_is_told_how_long_to_wait_and_others_are_not() -> None:
    app = application(RateLimits("5/minute", "5/minute"))
    async with client(app) as http, client(app, "192.0.2.2") as other:
        statuses = [(await http.get("/nowhere")).status_code for _ in range(5)]
        assert statuses == [404] * 5
        refused = await http.get("/nowhere")
        assert refused.status_code == 429
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "too_many_requests"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert re.search(r"wait \d+ s", refused.json()["detail"])
        assert (await http.get("/health")).status_code == 200
        assert (await other.get("/nowhere")).status_code == 404


async def test_the_addresses_of_one_ipv6_network_count_together() -> None:
    app = application(RateLimits("3/minute", "3/minute"))
    statuses = []
    for number in range(4):
        async with client(app, f"2001:db8::{number:x}") as http:
            statuses.append((await http.get("/nowhere")).status_code)
    assert statuses == [404, 404, 404, 429]


def test_a_user_is_limited_over_all_addresses_and_apart_from_others() -> None:
    limits = RateLimits("3/minute", "1/minute")
    ada, bob = (Principal(UUID(int=n), name, "user", frozenset(), frozenset()) for n, name in ((1, "ada"), (2, "bob")))
    for _ in range(3):
        limits.count_call(ada)
    with pytest.raises(Problem, match="this user"):
        limits.count_call(ada)
    limits.count_call(bob)


def test_passwords_have_a_tighter_limit_of_their_own() -> None:
    limits = RateLimits("100/minute", "2/minute")
    for _ in range(2):
        limits.count_password("192.0.2.1")
    with pytest.raises(Problem, match="passwords") as refused:
        limits.count_password("192.0.2.1")
    assert refused.value.status == 429
    limits.count_request("192.0.2.1")
    limits.count_password("192.0.2.2")
