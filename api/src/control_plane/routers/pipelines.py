"""`/api/v1/pipelines`: made, listed, read, replaced, deleted."""

from typing import Annotated

from fastapi import Query, Response
from pydantic import StringConstraints

from control_plane.dependencies import CurrentPrincipal, Reading, ThePlatform, Work
from control_plane.middleware.rbac import guard
from control_plane.models.audit import Action
from control_plane.models.operation import Operation
from control_plane.models.pages import Cursor, Limit, Page, decode_cursor, encode_cursor
from control_plane.models.pipeline import Desired, Pipeline, State
from control_plane.permissions import Permission
from control_plane.repositories.pipeline_repo import PipelineFilter
from control_plane.routers.pipeline_requests import (
    ABSENT,
    ASKED,
    ETAG,
    LOCATION,
    PREFIX,
    Config,
    IfMatch,
    Manager,
    Name,
    Posting,
    json_answer,
    json_text,
    operation_headers,
    pipeline_answer,
)
from control_plane.routes import guarded_router
from control_plane.services.idempotency import Answer
from control_plane.services.pipeline_view import operation_view, pipeline_view

router = guarded_router(prefix=PREFIX, tags=["pipelines"])

ShortText = Annotated[str, StringConstraints(min_length=1, max_length=63)]


@router.post(
    "",
    status_code=201,
    response_model=Pipeline,
    responses={201: {"headers": ETAG | LOCATION}, 409: {"description": "There is one of that name"}},
    dependencies=[guard(Permission.PIPELINES_WRITE, Action.PIPELINE_CREATE)],
)
async def create_pipeline(
    config: Config, work: Work, principal: CurrentPrincipal, platform: ThePlatform, posting: Posting
) -> Response:
    """Make a pipeline. It is stopped: validate it, then start it."""
    work.set_resource(config.name)
    platform.admission.check(config, principal)

    async def perform() -> Answer:
        record = await posting.manager.create(work.connection, config, posting.by)
        headers = {"ETag": record.etag, "Location": f"{PREFIX}/{record.name}"}
        return Answer(201, json_text(pipeline_view(record, posting.manager.state(record))), headers)

    return await posting.once(perform)


@router.get("", response_model=Page[Pipeline], dependencies=[guard(Permission.PIPELINES_READ, Action.PIPELINE_LIST)])
async def list_pipelines(
    reading: Reading,
    principal: CurrentPrincipal,
    manager: Manager,
    limit: Limit = 50,
    cursor: Cursor = None,
    state: Annotated[State | None, Query(description="only pipelines in this state")] = None,
    desired: Annotated[Desired | None, Query(description="only pipelines that are wanted to be this")] = None,
    database: Annotated[ShortText | None, Query(description="only pipelines of this source database")] = None,
    text: Annotated[ShortText | None, Query(description="part of the name")] = None,
) -> Response:
    """The pipelines that you may see, by name."""
    position = decode_cursor(cursor, str)
    after = str(position[0]) if position else None
    which = PipelineFilter(principal.pipelines, text, desired, database)
    records, has_more = await manager.page(reading, which, state, after, limit)
    following = encode_cursor([records[-1].name]) if has_more else None
    items = [pipeline_view(record, manager.state(record)) for record in records]
    return json_answer({"items": items, "next": following})


@router.get(
    "/{name}",
    response_model=Pipeline,
    responses={200: {"headers": ETAG}, **ABSENT},
    dependencies=[guard(Permission.PIPELINES_READ, Action.PIPELINE_READ)],
)
async def get_pipeline(name: Name, reading: Reading, manager: Manager) -> Response:
    """A pipeline: its spec, what it is wanted to be, and what it is."""
    return pipeline_answer(manager, await manager.get(reading, name))


@router.put(
    "/{name}",
    response_model=Pipeline,
    responses={
        200: {"headers": ETAG},
        **ABSENT,
        409: {"description": "A part that is fixed from the first start on, or the pipeline is being deleted"},
        412: {"description": "The spec has changed since"},
        428: {"description": "Without If-Match"},
    },
    dependencies=[guard(Permission.PIPELINES_WRITE, Action.PIPELINE_CHANGE)],
)
async def replace_pipeline(
    name: Name,
    config: Config,
    work: Work,
    principal: CurrentPrincipal,
    platform: ThePlatform,
    manager: Manager,
    if_match: IfMatch = None,
) -> Response:
    """Give a pipeline another spec, also while it runs; `notices` say what comes of it.

    Collections that it did not capture before are read by a resync of their own. The same spec again changes nothing.
    """
    platform.admission.check(config, principal, (await manager.get(work.connection, name)).spec)
    change = await manager.replace(work.connection, name, config, if_match, principal.name)
    return pipeline_answer(manager, change.record, change.notices)


@router.delete(
    "/{name}",
    status_code=202,
    response_model=Operation,
    responses={**ASKED, 412: {"description": "The spec has changed since"}},
    dependencies=[guard(Permission.PIPELINES_WRITE, Action.PIPELINE_DELETE)],
)
async def delete_pipeline(
    name: Name,
    work: Work,
    principal: CurrentPrincipal,
    manager: Manager,
    if_match: IfMatch = None,
    keep_tables: Annotated[bool, Query(description="leave the Delta tables where they are")] = True,
    keep_offsets: Annotated[
        bool, Query(description="let Connect remember how far it has read, for a pipeline of the same name")
    ] = False,
    force: Annotated[bool, Query(description="also one that is not stopped")] = False,
) -> Response:
    """Take a stopped pipeline down: its connector, its spec, its topics. Follow the operation that is answered.

    Once it has succeeded there is no such pipeline any more; its operations stay. If it fails it may be asked again.
    """
    operation = await manager.delete(
        work.connection,
        name,
        if_match,
        principal.name,
        keep_tables=keep_tables,
        keep_offsets=keep_offsets,
        force=force,
    )
    return json_answer(operation_view(operation), 202, operation_headers(name, operation))
