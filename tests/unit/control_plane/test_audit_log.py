"""What is audited: every call, allowed, refused or failed, before it is answered. The whole chain of middleware but
authentication, over applications of a few lines."""

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from control_plane.middleware.audit import CLIENT_CLOSED_REQUEST, AuditMiddleware
from control_plane.middleware.request_context import RequestContextMiddleware, draft_of
from control_plane.models.audit import Action, AuditEntry, Outcome
from control_plane.models.auth import Principal
from control_plane.permissions import Role
from control_plane.problems import Problem, problem_response
from control_plane.services.audit_trail import AuditUnavailable

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

ADA = Principal(UUID(int=7), "ada", "user", frozenset({Role.OPERATOR, Role.AUDITOR}), frozenset())


class Trail:
    """Keeps entries, or cannot."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.away = False

    async def record(self, entry: AuditEntry) -> None:
        if self.away:
            raise AuditUnavailable("the audit trail cannot be written; try again")
        self.entries.append(entry)


def _act(request: Request, action: Action = Action.PIPELINE_READ) -> None:
    """What a guarded route does first."""
    draft = draft_of(request.scope)
    draft.action = action
    draft.principal = ADA
    draft.resource = request.path_params.get("name")


async def read(request: Request) -> Response:
    _act(request)
    return PlainTextResponse("shown")


async def change(request: Request) -> Response:
    _act(request, Action.PIPELINE_CHANGE)
    draft_of(request.scope).stored = True  # with the change, in its transaction
    return PlainTextResponse("changed")


async def refuse(request: Request) -> Response:
    _act(request)
    return PlainTextResponse("", int(request.path_params["status"]))


async def fail(request: Request) -> Response:
    _act(request)
    raise RuntimeError("planted-value-of-a-document")


async def panic(request: Request) -> Response:
    """As one of a Rust extension does, in a thread of a task group."""
    _act(request)
    raise BaseExceptionGroup("", [_Panic("planted-value-of-a-document")])


class _Panic(BaseException):
    pass


async def read_body(request: Request) -> Response:
    _act(request)
    return PlainTextResponse(str(len(await request.body())))


async def stream(request: Request) -> Response:
    _act(request, Action.AUDIT_EXPORT)

    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        raise RuntimeError("broke off")

    return StreamingResponse(parts())


async def probe(request: Request) -> Response:
    draft_of(request.scope).action = Action.HEALTH
    return PlainTextResponse("alive", int(request.query_params.get("status", "200")))


async def problem(request: Request, error: Exception) -> Response:
    return problem_response(request, error)


@pytest.fixture
def trail() -> Trail:
    return Trail()


@pytest.fixture
def app(trail: Trail) -> Starlette:
    made = Starlette(
        routes=[
            Route("/pipelines/{name}", read),
            Route("/pipelines/{name}", change, methods=["PUT"]),
            Route("/refuse/{status}", refuse),
            Route("/fail", fail),
            Route("/panic", panic),
            Route("/body", read_body, methods=["POST"]),
            Route("/stream", stream),
            Route("/health", probe),
        ],
        exception_handlers={HTTPException: problem, Problem: problem},
    )
    made.state.platform = SimpleNamespace(audit=trail)
    made.add_middleware(AuditMiddleware)
    made.add_middleware(RequestContextMiddleware)
    return made


@pytest.fixture
async def client(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, client=("10.1.2.3", 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as made:
        yield made


async def test_an_allowed_call_tells_who_did_what_from_where(client: httpx.AsyncClient, trail: Trail) -> None:
    answer = await client.get("/pipelines/shop", headers={"X-Request-ID": "call-1"})

    (entry,) = trail.entries
    assert answer.headers["x-request-id"] == entry.request_id == "call-1"
    assert (entry.user, entry.user_id, entry.roles) == ("ada", str(ADA.id), ("auditor", "operator"))
    assert (entry.action, entry.resource, entry.address) == (Action.PIPELINE_READ, "shop", "10.1.2.3")
    assert (entry.outcome, entry.status, entry.code) == (Outcome.ALLOWED, 200, None)
    assert entry.duration_ms > 0


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (401, Outcome.REFUSED),
        (403, Outcome.REFUSED),
        (429, Outcome.REFUSED),
        (409, Outcome.FAILED),
        (413, Outcome.FAILED),
        (422, Outcome.FAILED),
        (503, Outcome.FAILED),
    ],
)
async def test_refusals_and_failures_are_entries(
    client: httpx.AsyncClient, trail: Trail, status: int, outcome: Outcome
) -> None:
    await client.get(f"/refuse/{status}")

    assert [(each.status, each.outcome) for each in trail.entries] == [(status, outcome)]


@pytest.mark.parametrize("path", ["/fail", "/panic"])
async def test_an_unexpected_error_is_an_entry_and_a_problem_without_its_message(
    client: httpx.AsyncClient, trail: Trail, path: str
) -> None:
    answer = await client.get(path)

    assert answer.json()["code"] == "internal_error"
    assert "planted" not in answer.text
    assert [(each.status, each.code, each.action) for each in trail.entries] == [
        (500, "internal_error", Action.PIPELINE_READ)
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "resource"),
    [
        ("GET", "/nowhere/to/go?token=planted", 404, "/nowhere/to/go"),
        ("DELETE", "/pipelines/shop", 405, "/pipelines/shop"),
        ("GET", f"/reset/{'s3cret' * 8}/x", 404, "/reset/…/x"),
        ("GET", "/api/v1/Hunter-2/x", 404, "/api/v1/…/x"),
        ("GET", "/sign-in/617ba54579710e55", 404, "/sign-in/…"),
        ("DELETE", "/pipelines/shop-42", 405, "/pipelines/shop-42"),
        ("GET", "/" + "a/" * 400, 404, ("/" + "a/" * 400)[:200]),
    ],
)
async def test_a_call_of_no_route_is_one_action_and_its_path_a_resource_without_tokens(
    client: httpx.AsyncClient, trail: Trail, method: str, path: str, status: int, resource: str
) -> None:
    await client.request(method, path)

    assert [(each.action, each.status, each.resource) for each in trail.entries] == [(Action.UNKNOWN, status, resource)]


async def test_a_change_that_stored_its_entry_is_not_entered_again(client: httpx.AsyncClient, trail: Trail) -> None:
    assert (await client.put("/pipelines/shop")).status_code == 200
    assert trail.entries == []


async def test_without_its_entry_no_call_is_answered(client: httpx.AsyncClient, trail: Trail) -> None:
    trail.away = True

    answer = await client.get("/pipelines/shop")

    assert answer.status_code == 503
    assert answer.json()["code"] == "dependency_unavailable"
    assert "shown" not in answer.text
    assert int(answer.headers["retry-after"]) > 0


async def test_probes_are_answered_without_the_trail_unless_they_are_refused(
    client: httpx.AsyncClient, trail: Trail
) -> None:
    trail.away = True
    assert (await client.get("/health")).status_code == 200
    assert (await client.get("/health?status=503")).status_code == 503

    trail.away = False
    assert (await client.get("/health?status=401")).status_code == 401
    assert [(each.action, each.status) for each in trail.entries] == [(Action.HEALTH, 401)]


async def test_an_answer_that_breaks_off_is_entered_when_it_begins_and_stays_broken(
    client: httpx.AsyncClient, trail: Trail
) -> None:
    with pytest.raises(RuntimeError, match="broke off"):
        await client.get("/stream")

    assert [(each.action, each.status) for each in trail.entries] == [(Action.AUDIT_EXPORT, 200)]


async def test_the_answer_waits_for_its_entry(app: Starlette, trail: Trail) -> None:
    stored = asyncio.Event()
    asked = asyncio.Event()

    async def record(entry: AuditEntry) -> None:
        asked.set()
        await stored.wait()

    app.state.platform = SimpleNamespace(audit=SimpleNamespace(record=record))
    sent: list[Message] = []
    call = asyncio.create_task(_call(app, "/pipelines/shop", [{"type": "http.request"}], sent))
    await asked.wait()
    assert sent == []

    stored.set()
    await call
    assert [each["type"] for each in sent] == ["http.response.start", "http.response.body"]


async def test_a_caller_that_went_away_with_its_body_is_an_entry(app: Starlette, trail: Trail) -> None:
    await _call(app, "/body", [{"type": "http.request", "more_body": True}, {"type": "http.disconnect"}], [], "POST")

    assert [(each.status, each.code) for each in trail.entries] == [(CLIENT_CLOSED_REQUEST, "client_disconnected")]


async def test_a_caller_that_went_away_while_nothing_can_be_stored_disturbs_nobody(
    app: Starlette, trail: Trail
) -> None:
    trail.away = True
    sent: list[Message] = []

    await _call(app, "/body", [{"type": "http.disconnect"}], sent, "POST")

    assert sent == []


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, 'x"\\', "é"])
async def test_a_request_id_that_is_no_plain_word_is_replaced(
    client: httpx.AsyncClient, trail: Trail, given: str
) -> None:
    answer = await client.get("/pipelines/shop", headers={b"X-Request-ID": given.encode()})

    assert str(UUID(answer.headers["x-request-id"])) == trail.entries[0].request_id


async def test_no_header_query_or_body_reaches_an_entry(client: httpx.AsyncClient, trail: Trail) -> None:
    await client.post(
        "/body?access_token=planted", json={"password": "planted"}, headers={"Authorization": "Bearer planted"}
    )

    assert "planted" not in json.dumps([repr(each) for each in trail.entries])


async def _call(app: ASGIApp, path: str, received: list[Any], sent: list[Message], method: str = "GET") -> None:
    """One request, its messages as given."""
    messages = iter(received)

    async def receive() -> Message:
        message: Message = next(messages)
        return message

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "client": ("10.1.2.3", 4711),
    }
    await app(scope, receive, send)
