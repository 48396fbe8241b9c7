"""Bodies that are too large are refused as they arrive: no more of one is held than is allowed.

FastAPI's own `max_body_size` works outside of all middleware: what it refuses would be neither audited nor a problem.
"""

from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_DIGITS: Final = 20
"""Of a length that is looked at. Python refuses to read a number of thousands; so many are too large in any case."""


class BodyLimitMiddleware:
    """Pure ASGI. The body is refused when it is read, so that who may not call at all is told that first."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")[:MAX_DIGITS]
        received = int(declared) if declared.isdecimal() and int(declared) > self._max_bytes else 0

        async def limited() -> Message:
            nonlocal received
            if received <= self._max_bytes:
                message = await receive()
                received += len(message.get("body", b""))
                if received <= self._max_bytes:
                    return message
            # Of Starlette's kind: FastAPI makes 400 of any other that arises while it reads a body.
            raise HTTPException(413, f"the body is too large: {self._max_bytes} bytes are allowed (API_MAX_BODY_BYTES)")

        await self._app(scope, limited, send)
