"""One line a request, with its id, route and outcome, and nothing of what was sent."""

import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import StreamingResponse

from cdc_shared.logging.structured_logger import configure_logging, get_logger
from control_plane.middleware.logging import LoggingMiddleware
from control_plane.middleware.request_context import RequestContextMiddleware, draft_of
from control_plane.models.audit import Action
from control_plane.models.auth import Principal
from control_plane.problems import Problem, install

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

ADA = Principal(UUID(int=7), "ada", "user", frozenset(), frozenset())
router = APIRouter(prefix="/pipelines")


@router.get("/{name}")
async def read(name: str, request: Request) -> str:
    draft = draft_of(request.scope)
    draft.action, draft.principal, draft.resource = Action.PIPELINE_READ, ADA, name
    get_logger("endpoint").info("looked")
    return name


@router.get("/{name}/broken")
async def break_off(name: str) -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        raise RuntimeError("planted-value")

    return StreamingResponse(parts())


@router.get("/{name}/busy")
async def be_busy(name: str) -> None:
    raise Problem(503, "dependency_unavailable", "away")


@router.get("/{name}/probe")
async def probe(name: str, request: Request) -> None:
    draft_of(request.scope).action = Action.HEALTH


@pytest.fixture(autouse=True)
def _json_lines() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hooks = root.handlers, root.level, (sys.excepthook, threading.excepthook)
    yield
    root.handlers, root.level = handlers, level
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    structlog.reset_defaults()


async def lines_of(path: str, capsys: pytest.CaptureFixture[str], level: str = "INFO") -> list[dict[str, Any]]:
    """What one call leaves in the log."""
    configure_logging("control-plane", level)
    logging.getLogger("httpx").setLevel(logging.ERROR)
    app = FastAPI()
    install(app)
    app.include_router(router, prefix="/api/v1")
    app.add_middleware(LoggingMiddleware)
    app.add_middleware(RequestContextMiddleware)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("10.1.2.3", 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        await client.get(path, headers={"X-Request-ID": "call-1", "Authorization": "Bearer planted-token"})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    return [line for line in lines if line["logger"] != "asyncio"]


async def test_a_call_is_one_line_and_all_its_lines_have_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    looked, line = await lines_of("/api/v1/pipelines/shop?token=planted-token", capsys)

    assert looked["request_id"] == line["request_id"] == "call-1"
    assert line["event"] == "request"
    assert (line["method"], line["route"]) == ("GET", "/api/v1/pipelines/{name}")
    assert (line["action"], line["resource"], line["user"]) == ("pipeline.read", "shop", "ada")
    assert (line["status"], line["outcome"], line["address"]) == (200, "allowed", "10.1.2.3")
    assert line["duration_ms"] > 0
    assert "planted" not in json.dumps([looked, line])


async def test_a_failure_of_the_server_is_an_error_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    lines = await lines_of("/api/v1/pipelines/shop/busy", capsys)

    assert (lines[-1]["level"], lines[-1]["status"], lines[-1]["outcome"]) == ("error", 503, "failed")
    assert lines[-1]["code"] == "dependency_unavailable"


async def test_a_call_of_no_route_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = await lines_of("/api/v1/nowhere/planted", capsys)

    assert (line["status"], line["route"], line["action"]) == (404, None, "unknown")
    assert "planted" not in json.dumps(line)


async def test_an_answer_that_broke_off_is_told_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    lines = await lines_of("/api/v1/pipelines/shop/broken", capsys)

    assert [line["event"] for line in lines] == ["request broken off"]
    assert lines[0]["level"] == "error"


async def test_probes_are_silent_unless_debugging(capsys: pytest.CaptureFixture[str]) -> None:
    assert await lines_of("/api/v1/pipelines/shop/probe", capsys) == []
    assert [line["event"] for line in await lines_of("/api/v1/pipelines/shop/probe", capsys, "DEBUG")] == ["request"]
