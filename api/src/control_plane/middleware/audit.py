"""Every call leaves an audit entry: with its changes when the route stored it, else by itself, before the answer.

The answer's first byte waits until the entry is stored, and when it cannot be, the caller is told 503 instead. Health
probes and the scraping of metrics are left out: they come every few seconds, change nothing, tell nothing of anybody,
and must be answered while Postgres is away. Where they are refused, that is audited.
"""

import asyncio
import re
import time
from contextlib import suppress
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cdc_shared.logging.structured_logger import get_logger
from control_plane.middleware.request_context import draft_of
from control_plane.models.audit import Action, Outcome
from control_plane.problems import problem_of, problem_response
from control_plane.services.audit_trail import AuditUnavailable

PROBES: Final = frozenset({Action.HEALTH, Action.READY, Action.METRICS})
CLIENT_CLOSED_REQUEST: Final = 499
"""What proxies log where a caller went away before its request was whole; nobody receives it."""
_WORD: Final = re.compile(r"(?=.{0,32}$)[a-z._-]*(?:[0-9]{1,3}[a-z._-]*){0,2}")
"""A segment of a path as names and mistyped ones are: tokens and generated passwords have capitals or many digits."""
_MAX_PATH_CHARS: Final = 200

log = get_logger(__name__)


class AuditMiddleware:
    """Pure ASGI, inside of `RequestContextMiddleware`. Nothing escapes it but an answer that broke off half-way."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _AuditedAnswer(scope, receive, send)
        try:
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            await answer.note_disconnect()
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of a Rust extension is no Exception
            if answer.started:
                raise  # the server closes the connection: the caller sees that the answer is not whole
            if problem_of(error).status == 500:
                log.exception("unexpected error")
            await problem_response(Request(scope), error)(scope, receive, answer.send)


class _AuditedAnswer:
    """Passes an answer on once its entry is stored; drops it for a 503 when it cannot be."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started = False
        self._replaced = False
        self._scope = scope
        self._receive = receive
        self._send = send

    async def send(self, message: Message) -> None:
        if self._replaced:
            return  # the rest of an answer that was dropped
        if message["type"] == "http.response.start":
            try:
                await self._store(message["status"])
            except AuditUnavailable as error:
                self._replaced = self.started = True
                await problem_response(Request(self._scope), error)(self._scope, self._receive, self._send)
                return
            self.started = True
        await self._send(message)

    async def note_disconnect(self) -> None:
        """Store the entry of a call whose caller is gone; where it cannot be, nobody is there to be told."""
        if not self.started:
            draft_of(self._scope).code = "client_disconnected"
            with suppress(AuditUnavailable):
                await self._store(CLIENT_CLOSED_REQUEST)

    async def _store(self, status: int) -> None:
        draft = draft_of(self._scope)
        if draft.stored and status < 400:
            return
        if draft.action is Action.UNKNOWN:
            draft.resource = _shown_path(self._scope["path"])
        entry = draft.entry(status, time.monotonic())
        if draft.action in PROBES and entry.outcome is not Outcome.REFUSED:
            return
        await self._scope["app"].state.platform.audit.record(entry)
        draft.stored = True


def _shown_path(path: str) -> str:
    """The path of a call that no route took, without segments that may be tokens or passwords."""
    segments = (each if _WORD.fullmatch(each) else "…" for each in path.split("/"))
    return "/".join(segments)[:_MAX_PATH_CHARS]
