"""What requests about pipelines have in common: parameters, the answers' form, and a POST that is done once."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final

from fastapi import Body, Depends, Header, Path, Request, Response
from pydantic_core import to_json

from cdc_shared.models.common import PIPELINE_NAME_PATTERN
from control_plane.dependencies import CurrentPrincipal, ThePlatform, Work
from control_plane.models.auth import Principal
from control_plane.models.operation import Operation
from control_plane.models.pipeline import PipelineConfig, PipelineRecord
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

ETAG: Final[dict[str, Any]] = {
    "ETag": {"description": "names the spec in force; give it back in If-Match", "schema": {"type": "string"}}
}
LOCATION: Final[dict[str, Any]] = {"Location": {"description": "its path", "schema": {"type": "string"}}}
ABSENT: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "No such pipeline"}}
REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    **ABSENT,
    409: {"description": "Not possible in the state that the pipeline is in, which `state` names"},
}
MOVED: Final[dict[int | str, dict[str, Any]]] = {202: {"headers": ETAG}, **REFUSED}
ASKED: Final[dict[int | str, dict[str, Any]]] = {202: {"headers": LOCATION}, **REFUSED}


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
        """Make the move; the answer is the pipeline."""

        async def perform() -> Answer:
            record = await self.manager.move(self.connection, name, move, self.by)
            return Answer(202, json_text(pipeline_view(record, self.manager.state(record))), {"ETag": record.etag})

        return await self.once(perform)

    async def ask(self, name: str, asked: Callable[[], Awaitable[Operation]]) -> Response:
        """Ask for an operation; the answer is the operation."""

        async def perform() -> Answer:
            operation = await asked()
            return Answer(202, json_text(operation_view(operation)), operation_headers(name, operation))

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


def pipeline_answer(manager: PipelineManager, record: PipelineRecord, notices: tuple[str, ...] = ()) -> Response:
    """The pipeline, with its ETag."""
    return json_answer(pipeline_view(record, manager.state(record), notices), headers={"ETag": record.etag})


def operation_headers(name: str, operation: Operation) -> dict[str, str]:
    """Where to follow it."""
    return {"Location": f"{PREFIX}/{name}/operations/{operation.id}"}


def json_answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that is not checked against the route's model again: the views make what the models say."""
    return Response(json_text(content), status, dict(headers or {}), "application/json")


def json_text(content: Any) -> str:
    return to_json(content).decode()
