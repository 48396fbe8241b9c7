"""One span a request, in the caller's trace, named for the route."""

from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from cdc_shared.tracing.otel_config import configure_tracing
from control_plane.middleware.request_context import RequestContextMiddleware, draft_of
from control_plane.middleware.tracing import TracingMiddleware
from control_plane.models.audit import Action
from control_plane.problems import Problem, install

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
router = APIRouter(prefix="/pipelines")


@router.get("/{name}")
async def read(name: str, request: Request) -> str:
    draft_of(request.scope).action = Action.PIPELINE_READ
    return name


@router.get("/{name}/{status}")
async def end(name: str, status: int) -> None:
    if status == 500:
        raise RuntimeError("planted-value")
    raise Problem(status, "some_code", "planted-value")


async def span_of(path: str, **headers: str) -> ReadableSpan:
    spans = InMemorySpanExporter()
    tracing = configure_tracing("control-plane", None, spans)
    app = FastAPI()
    install(app)
    app.include_router(router, prefix="/api/v1")
    app.add_middleware(TracingMiddleware, tracing=tracing)
    app.add_middleware(RequestContextMiddleware)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        await client.get(path, headers=headers)
    tracing.shutdown()
    (span,) = spans.get_finished_spans()
    return span


def told(span: ReadableSpan) -> str:
    """Everything that leaves the process with the span."""
    return str(span.to_json())


async def test_a_span_goes_on_with_the_callers_trace() -> None:
    span = await span_of("/api/v1/pipelines/shop", traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01")

    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, PARENT_ID)
    assert span.kind is SpanKind.SERVER


async def test_it_is_named_for_the_route_and_tells_the_outcome() -> None:
    span = await span_of("/api/v1/pipelines/planted-name?q=planted", **{"X-Request-ID": "call-1"})

    assert span.name == "GET /api/v1/pipelines/{name}"
    attributes: dict[str, Any] = dict(span.attributes or {})
    assert attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/api/v1/pipelines/{name}",
        "cdc.request_id": "call-1",
        "cdc.action": "pipeline.read",
        "cdc.outcome": "allowed",
    }
    assert "planted" not in told(span)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v1/pipelines/shop/409", 409, StatusCode.UNSET),
        ("/api/v1/pipelines/shop/503", 503, StatusCode.ERROR),
        ("/api/v1/nowhere", 404, StatusCode.UNSET),
    ],
)
async def test_only_what_the_server_failed_at_is_an_error(path: str, status: int, code: StatusCode) -> None:
    span = await span_of(path)

    assert (span.attributes or {})["http.response.status_code"] == status
    assert span.status.status_code is code
    assert "planted" not in told(span)


async def test_an_error_that_nobody_expected_ends_the_span_without_its_message() -> None:
    span = await span_of("/api/v1/pipelines/shop/500")

    assert span.status.status_code is StatusCode.ERROR
    assert "planted" not in told(span)


@pytest.mark.parametrize("broken", ["", "x", "00-0-0-01", f"00-{'0' * 32}-{PARENT_ID}-01"])
async def test_a_broken_traceparent_begins_a_trace_of_its_own(broken: str) -> None:
    span = await span_of("/api/v1/pipelines/shop", traceparent=broken)

    assert span.parent is None
