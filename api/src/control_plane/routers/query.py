"""`/api/v1/query`: SQL on the tables, now or as they were."""

import asyncio
from typing import Any, Final

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from cdc_shared.analytics.bounded_answer import BoundedFormat
from control_plane.dependencies import CurrentPrincipal, ThePlatform
from control_plane.middleware.rbac import guard
from control_plane.middleware.request_context import draft_of
from control_plane.models.audit import Action
from control_plane.models.query import Query, QueryAnswer
from control_plane.permissions import Permission
from control_plane.routes import guarded_router
from control_plane.services.lake_queries import Answered

MEDIA_TYPES: Final = {
    BoundedFormat.JSON: "application/json",
    BoundedFormat.ARROW: "application/vnd.apache.arrow.stream",
}
MAX_AUDITED_CHARS: Final = 500
LOOK_S: Final = 0.5
"""Between looks whether the caller is still there."""
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The answer, in the format that was asked for",
        "headers": {
            "X-Row-Count": {"description": "Rows in the answer", "schema": {"type": "integer"}},
            "X-Truncated": {
                "description": "Whether there are more rows than were asked for",
                "schema": {"type": "string", "enum": ["true", "false"]},
            },
        },
        "content": {MEDIA_TYPES[BoundedFormat.ARROW]: {"schema": {"type": "string", "format": "binary"}}},
    },
    404: {"description": "No such table, or none that you may read"},
    503: {"description": "Too many queries run, or the object store does not answer"},
}

router = guarded_router(prefix="/api/v1/query", tags=["query"])


@router.post(
    "",
    response_model=QueryAnswer,
    responses=_ANSWERS,
    dependencies=[guard(Permission.TABLES_QUERY, Action.QUERY)],
)
async def query_tables(
    query: Query, request: Request, principal: CurrentPrincipal, platform: ThePlatform
) -> StreamingResponse:
    """Ask the tables of the pipelines that you may touch, as `pipeline.database.collection`, in DuckDB's SQL.

    One statement, and it reads: SELECT, FROM, WITH, VALUES, DESCRIBE, SUMMARIZE, a PIVOT that names its values. It
    sees one version of each table, whatever is committed meanwhile. Masked fields are masked, as in the tables.
    """
    answered = await _while_connected(request, asyncio.create_task(platform.queries.ask(query, principal)))
    read = " ".join(f"{name}@{version}" for name, version in answered.result.tables.items())
    draft_of(request.scope).resource = read[:MAX_AUDITED_CHARS] or None
    headers = {"X-Row-Count": str(answered.result.rows), "X-Truncated": str(answered.result.truncated).lower()}
    return StreamingResponse(answered.chunks(), media_type=MEDIA_TYPES[query.format], headers=headers)


async def _while_connected(request: Request, asking: asyncio.Task[Answered]) -> Answered:
    """The answer; when the caller goes away, the query ends."""
    try:
        while not (await asyncio.wait({asking}, timeout=LOOK_S))[0]:
            if await request.is_disconnected():
                raise ClientDisconnect
        return await asking
    finally:
        asking.cancel()
