"""Every call leaves an audit entry: with its changes when the route stored it, else by itself, before the answer."""

import time
import uuid
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.models.audit import AuditDraft
from control_plane.problems import problem_response


class AuditMiddleware:
    """Pure ASGI. Puts an `AuditDraft` into `scope["state"]["audit"]`; holds the answer's start until it is stored."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        draft = AuditDraft(datetime.now(UTC), str(uuid.uuid4()), client[0] if client else None, time.monotonic())
        scope.setdefault("state", {})["audit"] = draft

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and not draft.stored:
                platform = scope["app"].state.platform
                await platform.audit.record(draft.entry(message["status"], time.monotonic()))
                draft.stored = True
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception as error:
            await problem_response(Request(scope), error)(scope, receive, answer)
