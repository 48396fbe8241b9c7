"""One span a request, which goes on with the caller's trace (W3C `traceparent`). Costs nothing while tracing is off."""

from opentelemetry.trace import Span, SpanKind, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cdc_shared.errors import shown
from cdc_shared.tracing.otel_config import Tracing
from control_plane.middleware.request_context import draft_of, route_of
from control_plane.models.audit import outcome_of


class TracingMiddleware:
    """Pure ASGI, inside of `RequestContextMiddleware`. Names and attributes follow OpenTelemetry's HTTP conventions."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._tracing.enabled:
            await self._app(scope, receive, send)
            return
        headers = [(name.decode("latin-1"), value) for name, value in scope["headers"]]
        with self._tracing.tracer.start_as_current_span(
            scope["method"],
            self._tracing.extract_context(headers),
            kind=SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _describe(span, scope, message["status"])
                await send(message)

            try:
                await self._app(scope, receive, answer)
            except Exception as error:
                span.set_status(StatusCode.ERROR, shown(error))
                raise


def _describe(span: Span, scope: Scope, status: int) -> None:
    """No path and no query, which may hold anything; a client's mistake is no error of the server."""
    draft = draft_of(scope)
    span.set_attribute("http.request.method", scope["method"])
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("cdc.request_id", draft.request_id)
    span.set_attribute("cdc.action", draft.action.value)
    span.set_attribute("cdc.outcome", outcome_of(status).value)
    if route := route_of(scope):
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute("http.route", route)
    if status >= 500:
        span.set_status(StatusCode.ERROR, draft.code or "")
