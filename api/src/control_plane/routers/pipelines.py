"""`/api/v1/pipelines`: pipelines, their moves and their operations."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Body, Depends, Header, Path, Query, Request, Response
from pydantic import StringConstraints
from pydantic_core import to_json

from cdc_shared.models.common import PIPELINE_NAME_PATTERN
from control_plane.dependencies import CurrentPrincipal, Reading, ThePlatform, Work
from control_plane.middleware.rbac import guard
from control_plane.models.audit import Action
from control_plane.models.auth import Principal
from control_plane.models.operation import Operation
from control_plane.models.pages import Cursor, Limit, Page, decode_cursor, encode_cursor
from control_plane.models.pipeline import (
    Desired,
    Pipeline,
    PipelineConfig,
    PipelineRecord,
    ResetRequest,
    ResyncRequest,
    State,
)
from control_plane.permissions import Permission
from control_plane.problems import Problem
from control_plane.repositories.pipeline_repo import PipelineFilter
from control_plane.routes import guarded_router
from control_plane.services.idempotency import Answer, digest_of, once
from control_plane.services.lifecycle import Move
from control_plane.services.pipeline_manager import PipelineManager
from control_plane.services.pipeline_view import operation_view, pipeline_view
from control_plane.unit_of_work import UnitOfWork

PREFIX: Final = "/api/v1/pipelines"
EXAMPLE: Final = {
    "name": "shop",
    "source": {"connection": "secret:shop-mongodb", "database": "shop", "include_collections": ["orders", "customers"]},
    "sink": {"root": "s3://lake/delta", "history": False},
    "batch": {"max_seconds": 1},
    "maintenance": {"retention_days": 30},
    "quality": {
        "validation": [{"rule": "required", "path": "/customer_id", "collections": ["orders"]}],
        "transformation": [{"rule": "redact", "path": "/email", "collections": ["customers"]}],
    },
}

_ETAG: Final[dict[str, Any]] = {
    "ETag": {"description": "names the spec in force; give it back in If-Match", "schema": {"type": "string"}}
}
_LOCATION: Final[dict[str, Any]] = {"Location": {"description": "its path", "schema": {"type": "string"}}}
_ABSENT: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "No such pipeline"}}
_REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    **_ABSENT,
    409: {"description": "Not possible in the state that the pipeline is in, which `state` names"},
}
_MOVED: Final[dict[int | str, dict[str, Any]]] = {202: {"headers": _ETAG}, **_REFUSED}
_ASKED: Final[dict[int | str, dict[str, Any]]] = {202: {"headers": _LOCATION}, **_REFUSED}

router = guarded_router(prefix=PREFIX, tags=["pipelines"])

Name = Annotated[str, Path(pattern=PIPELINE_NAME_PATTERN, description="the pipeline")]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=1000,
        description="the ETag of the spec that this change was made from; `*` for any",
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]{1,255}$",
        description="of your choice, for example a UUID: the same request sent again within 24 h is done once",
    ),
]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=63)]
Config = Annotated[PipelineConfig, Body(examples=[EXAMPLE])]


async def _manager(platform: ThePlatform) -> PipelineManager:
    return platform.pipelines


Manager = Annotated[PipelineManager, Depends(_manager)]


class _Posting:
    """One POST: done once under its key, in the request's transaction."""

    def __init__(
        self,
        request: Request,
        work: UnitOfWork,
        principal: Principal,
        manager: PipelineManager,
        idempotency_key: str | None,
    ) -> None:
        self.by = principal.name
        self.connection = work.connection
        self.manager = manager
        self._request = request
        self._principal = principal
        self._key = idempotency_key

    async def once(self, perform: Callable[[], Awaitable[Answer]]) -> Response:
        """Perform, or repeat the answer that was given before."""
        request = self._request
        digest = digest_of(request.method, request.url.path, request.url.query, await request.body())
        answer = await once(self.connection, self._principal.id, self._key, digest, perform)
        headers = dict(answer.headers) | ({"Idempotency-Replayed": "true"} if answer.is_repeated else {})
        return Response(answer.body, answer.status, headers, "application/json")

    async def move(self, name: str, move: Move) -> Response:
        async def perform() -> Answer:
            record = await self.manager.move(self.connection, name, move, self.by)
            return Answer(202, _json(pipeline_view(record, self.manager.state(record))), {"ETag": record.etag})

        return await self.once(perform)

    async def ask(self, name: str, asked: Callable[[], Awaitable[Operation]]) -> Response:
        async def perform() -> Answer:
            operation = await asked()
            return Answer(202, _json(operation_view(operation)), _operation_headers(name, operation))

        return await self.once(perform)


async def _posting(
    request: Request,
    work: Work,
    principal: CurrentPrincipal,
    manager: Manager,
    idempotency_key: IdempotencyKey = None,
) -> _Posting:
    return _Posting(request, work, principal, manager, idempotency_key)


Posting = Annotated[_Posting, Depends(_posting)]


@router.post(
    "",
    status_code=201,
    response_model=Pipeline,
    responses={201: {"headers": _ETAG | _LOCATION}, 409: {"description": "There is one of that name"}},
    dependencies=[guard(Permission.PIPELINES_WRITE, Action.PIPELINE_CREATE)],
)
async def create_pipeline(config: Config, work: Work, principal: CurrentPrincipal, posting: Posting) -> Response:
    """Make a pipeline. It is stopped: validate it, then start it."""
    work.set_resource(config.name)
    if not principal.may_touch(config.name):
        raise Problem(403, "out_of_scope", "this pipeline's name is not among those that you are limited to")

    async def perform() -> Answer:
        record = await posting.manager.create(work.connection, config, posting.by)
        headers = {"ETag": record.etag, "Location": f"{PREFIX}/{record.name}"}
        return Answer(201, _json(pipeline_view(record, posting.manager.state(record))), headers)

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
    return _answer({"items": items, "next": following})


@router.get(
    "/{name}",
    response_model=Pipeline,
    responses={200: {"headers": _ETAG}, **_ABSENT},
    dependencies=[guard(Permission.PIPELINES_READ, Action.PIPELINE_READ)],
)
async def get_pipeline(name: Name, reading: Reading, manager: Manager) -> Response:
    """A pipeline: its spec, what it is wanted to be, and what it is."""
    return _pipeline(manager, await manager.get(reading, name))


@router.put(
    "/{name}",
    response_model=Pipeline,
    responses={
        200: {"headers": _ETAG},
        **_ABSENT,
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
    manager: Manager,
    if_match: IfMatch = None,
) -> Response:
    """Give a pipeline another spec, also while it runs; `notices` say what comes of it.

    Collections that it did not capture before are read by a resync of their own. The same spec again changes nothing.
    """
    change = await manager.replace(work.connection, name, config, if_match, principal.name)
    return _pipeline(manager, change.record, change.notices)


@router.delete(
    "/{name}",
    status_code=202,
    response_model=Operation,
    responses={**_ASKED, 412: {"description": "The spec has changed since"}},
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
    return _answer(operation_view(operation), 202, _operation_headers(name, operation))


@router.post(
    "/{name}/start",
    status_code=202,
    response_model=Pipeline,
    responses=_MOVED,
    dependencies=[guard(Permission.PIPELINES_OPERATE, Action.PIPELINE_START)],
)
async def start_pipeline(name: Name, posting: Posting) -> Response:
    """Have a stopped pipeline run: the first time with a snapshot, later from where it was."""
    return await posting.move(name, Move.START)


@router.post(
    "/{name}/pause",
    status_code=202,
    response_model=Pipeline,
    responses=_MOVED,
    dependencies=[guard(Permission.PIPELINES_OPERATE, Action.PIPELINE_PAUSE)],
)
async def pause_pipeline(name: Name, posting: Posting) -> Response:
    """Have the connector read no more. What Kafka has by then still comes into the tables."""
    return await posting.move(name, Move.PAUSE)


@router.post(
    "/{name}/resume",
    status_code=202,
    response_model=Pipeline,
    responses=_MOVED,
    dependencies=[guard(Permission.PIPELINES_OPERATE, Action.PIPELINE_RESUME)],
)
async def resume_pipeline(name: Name, posting: Posting) -> Response:
    """Have a paused pipeline go on from where it was."""
    return await posting.move(name, Move.RESUME)


@router.post(
    "/{name}/stop",
    status_code=202,
    response_model=Pipeline,
    responses=_MOVED,
    dependencies=[guard(Permission.PIPELINES_OPERATE, Action.PIPELINE_STOP)],
)
async def stop_pipeline(name: Name, posting: Posting) -> Response:
    """Have the connector and the writers end. Tables and offsets stay: a start goes on from there."""
    return await posting.move(name, Move.STOP)


@router.post(
    "/{name}/restart",
    status_code=202,
    response_model=Operation,
    responses=_ASKED,
    dependencies=[guard(Permission.PIPELINES_OPERATE, Action.PIPELINE_RESTART)],
)
async def restart_pipeline(name: Name, posting: Posting) -> Response:
    """Have the connector, its tasks and the writers of a running or paused pipeline begin again where they were."""
    return await posting.ask(name, lambda: posting.manager.restart(posting.connection, name, posting.by))


@router.post(
    "/{name}/resync",
    status_code=202,
    response_model=Operation,
    responses=_ASKED,
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
    responses=_ASKED,
    dependencies=[guard(Permission.PIPELINES_OPERATE, Action.PIPELINE_RESET)],
)
async def reset_pipeline(name: Name, posting: Posting, wanted: ResetRequest | None = None) -> Response:
    """Have a stopped pipeline forget how far it has read, so that its next start begins with a snapshot."""
    asked = wanted or ResetRequest()
    return await posting.ask(name, lambda: posting.manager.reset(posting.connection, name, asked, posting.by))


@router.get(
    "/{name}/operations",
    response_model=Page[Operation],
    responses=_ABSENT,
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
    return _answer({"items": items, "next": encode_cursor([following]) if following is not None else None})


@router.get(
    "/{name}/operations/{operation}",
    response_model=Operation,
    responses={404: {"description": "No such operation"}},
    dependencies=[guard(Permission.PIPELINES_READ, Action.PIPELINE_OPERATIONS)],
)
async def get_operation(name: Name, operation: UUID, reading: Reading, manager: Manager) -> Response:
    """How an operation goes, or went."""
    return _answer(operation_view(await manager.operation(reading, name, operation)))


def _pipeline(manager: PipelineManager, record: PipelineRecord, notices: tuple[str, ...] = ()) -> Response:
    return _answer(pipeline_view(record, manager.state(record), notices), headers={"ETag": record.etag})


def _operation_headers(name: str, operation: Operation) -> dict[str, str]:
    return {"Location": f"{PREFIX}/{name}/operations/{operation.id}"}


def _answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(_json(content), status, dict(headers or {}), "application/json")


def _json(content: Any) -> str:
    return to_json(content).decode()
