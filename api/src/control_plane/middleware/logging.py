"""One structured line a request, once it is answered: what was asked, by whom, how it ended, how long it took.

No path and no query: the route's template says what was called, the audited resource on what.
"""

import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cdc_shared.logging.structured_logger import get_logger
from control_plane.middleware.audit import PROBES
from control_plane.middleware.request_context import draft_of, route_of
from control_plane.models.audit import Outcome, outcome_of

BROKEN_OFF: Final = 0
"""The status of a call that ended without an answer."""

log = get_logger("control_plane.requests")


class LoggingMiddleware:
    """Pure ASGI, inside of `RequestContextMiddleware`. Probes are logged with the level DEBUG."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = BROKEN_OFF

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        whole = False
        try:
            await self._app(scope, receive, answer)
            whole = True
        finally:
            _log(scope, status, whole)


def _log(scope: Scope, status: int, whole: bool) -> None:
    draft = draft_of(scope)
    if status >= 500 or not whole:
        write = log.error
    elif draft.action in PROBES:
        write = log.debug
    else:
        write = log.info
    who = draft.principal
    write(
        "request" if whole else "request broken off",
        method=scope["method"],
        route=route_of(scope),
        action=draft.action.value,
        resource=draft.resource,
        status=status,
        outcome=(Outcome.FAILED if status == BROKEN_OFF else outcome_of(status)).value,
        code=draft.code,
        user=who.name if who else None,
        address=draft.address,
        duration_ms=round((time.monotonic() - draft.started_s) * 1000, 3),
    )
