"""`/api/v1/pipelines/{name}/…`: moves of a pipeline, and operations, which take longer than a request."""

from typing import Annotated
from uuid import UUID

from fastapi import Body, Response

from control_plane.dependencies import Reading
from control_plane.middleware.rbac import guard
from control_plane.models.audit import Action
from control_plane.models.operation import Operation
from control_plane.models.pages import Cursor, Limit, Page, decode_cursor, encode_cursor
from control_plane.models.pipeline import Pipeline, ResetRequest, ResyncRequest
from control_plane.permissions import Permission
from control_plane.routers.pipeline_requests import (
    ABSENT,
    ASKED,
    MOVED,
    PREFIX,
    Manager,
    Name,
    Posting,
    json_answer,
)
from control_plane.routes import guarded_router
from control_plane.services.lifecycle import Move
from control_plane.services.pipeline_view import operation_view

router = guarded_router(prefix=PREFIX, tags=["pipelines"])


@router.post(
    "/{name}/start",
    status_code=202,
    response_model=Pipeline,
    responses=MOVED,
    dependencies=[guard(Permission.PIPELINES_OPERATE, Action.PIPELINE_START)],
)
async def start_pipeline(name: Name, posting: Posting) -> Response:
    """Have a stopped pipeline run: the first time with a snapshot, later from where it was."""
    return await posting.move(name, Move.START)


@router.post(
    "/{name}/pause",
    status_code=202,
    response_model=Pipeline,
    responses=MOVED,
    dependencies=[guard(Permission.PIPELINES_OPERATE, Action.PIPELINE_PAUSE)],
)
async def pause_pipeline(name: Name, posting: Posting) -> Response:
    """Have the connector read no more. What Kafka has by then still comes into the tables."""
    return await posting.move(name, Move.PAUSE)


@router.post(
    "/{name}/resume",
    status_code=202,
    response_model=Pipeline,
    responses=MOVED,
    dependencies=[guard(Permission.PIPELINES_OPERATE, Action.PIPELINE_RESUME)],
)
async def resume_pipeline(name: Name, posting: Posting) -> Response:
    """Have a paused pipeline go on from where it was."""
    return await posting.move(name, Move.RESUME)


@router.post(
    "/{name}/stop",
    status_code=202,
    response_model=Pipeline,
    responses=MOVED,
    dependencies=[guard(Permission.PIPELINES_OPERATE, Action.PIPELINE_STOP)],
)
async def stop_pipeline(name: Name, posting: Posting) -> Response:
    """Have the connector and the writers end. Tables and offsets stay: a start goes on from there."""
    return await posting.move(name, Move.STOP)


@router.post(
    "/{name}/restart",
    status_code=202,
    response_model=Operation,
    responses=ASKED,
    dependencies=[guard(Permission.PIPELINES_OPERATE, Action.PIPELINE_RESTART)],
)
async def restart_pipeline(name: Name, posting: Posting) -> Response:
    """Have the connector, its tasks and the writers of a running or paused pipeline begin again where they were."""
    return await posting.ask(name, lambda: posting.manager.restart(posting.connection, name, posting.by))


@router.post(
    "/{name}/resync",
    status_code=202,
    response_model=Operation,
    responses=ASKED,
    dependencies=[guard(Permission.PIPELINES_OPERATE, Action.PIPELINE_RESYNC)],
)
async def resync_pipeline(
    name: Name,
    posting: Posting,
    wanted: Annotated[
        ResyncRequest | None,
        Body(examples=[{}, {"collections": ["orders"]}, {"collections": ["orders"], "filter": {"status": "open"}}]),
    ] = None,
) -> Response:
    """Read documents of a running pipeline again, after which the tables equal the source whatever was missed.

    The whole pipeline, or some collections, by a new snapshot; of one collection also what matches a filter.
    """
    asked = wanted or ResyncRequest()
    return await posting.ask(name, lambda: posting.manager.resync(posting.connection, name, asked, posting.by))


@router.post(
    "/{name}/reset",
    status_code=202,
    response_model=Operation,
    responses=ASKED,
    dependencies=[guard(Permission.PIPELINES_OPERATE, Action.PIPELINE_RESET)],
)
async def reset_pipeline(name: Name, posting: Posting, wanted: ResetRequest | None = None) -> Response:
    """Have a stopped pipeline forget how far it has read, so that its next start begins with a snapshot."""
    asked = wanted or ResetRequest()
    return await posting.ask(name, lambda: posting.manager.reset(posting.connection, name, asked, posting.by))


@router.get(
    "/{name}/operations",
    response_model=Page[Operation],
    responses=ABSENT,
    dependencies=[guard(Permission.PIPELINES_READ, Action.PIPELINE_OPERATIONS)],
)
async def list_operations(
    name: Name, reading: Reading, manager: Manager, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """Restarts, resyncs, resets and deletions, the newest first; also of a pipeline that is gone."""
    position = decode_cursor(cursor, int)
    before = int(position[0]) if position else None
    operations, following = await manager.operations(reading, name, before, limit)
    items = [operation_view(each) for each in operations]
    return json_answer({"items": items, "next": encode_cursor([following]) if following is not None else None})


@router.get(
    "/{name}/operations/{operation}",
    response_model=Operation,
    responses={404: {"description": "No such operation"}},
    dependencies=[guard(Permission.PIPELINES_READ, Action.PIPELINE_OPERATIONS)],
)
async def get_operation(name: Name, operation: UUID, reading: Reading, manager: Manager) -> Response:
    """How an operation goes, or went."""
    return json_answer(operation_view(await manager.operation(reading, name, operation)))
