"""What is known of a request from its first moment: an id, when it came, from where. Outermost, so that all have it."""

import re
import time
import uuid
from datetime import UTC, datetime
from typing import Final, cast

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.models.audit import AuditDraft

REQUEST_ID_HEADER: Final = "X-Request-ID"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestContextMiddleware:
    """Puts an `AuditDraft` into `scope["state"]["audit"]` and the request's id on its log lines and its answer.

    The caller's own `X-Request-ID` is kept when it is a plain word, so that a call can be followed through systems.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        client = scope.get("client")
        draft = AuditDraft(datetime.now(UTC), request_id, client[0] if client else None, time.monotonic())
        scope.setdefault("state", {})["audit"] = draft

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, answer)


def draft_of(scope: Scope) -> AuditDraft:
    """What is known so far of the request of this scope."""
    return cast(AuditDraft, scope["state"]["audit"])


def route_of(scope: Scope) -> str | None:
    """The template of the route that took the request, such as `/api/v1/pipelines/{name}`; None: no route did."""
    included = scope.get("fastapi", {}).get("effective_route_context")  # knows the prefixes; the route only its own
    path = getattr(included or scope.get("route"), "path", None)
    return path if isinstance(path, str) else None
