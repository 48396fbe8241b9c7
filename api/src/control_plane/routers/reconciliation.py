"""`/api/v1/pipelines/{name}/reconciliation`: jobs that compare tables with MongoDB, and what they found."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Body, Path, Query, Response
from fastapi.responses import StreamingResponse

from cdc_shared.models.common import CollectionName
from cdc_shared.models.reconciliation import DifferenceKind, JobState, Mode
from cdc_shared.storage.report_files import CONTENT_TYPES, ReportFormat
from control_plane.dependencies import CurrentPrincipal, Reading, ThePlatform
from control_plane.middleware.rbac import guard
from control_plane.models.audit import Action
from control_plane.models.pages import Cursor, Limit, Page, decode_cursor, encode_cursor
from control_plane.models.reconciliation import (
    Difference,
    DifferenceFilter,
    DifferencePosition,
    Job,
    JobDetail,
    NewJob,
    Wanted,
)
from control_plane.permissions import Permission
from control_plane.problems import Problem
from control_plane.repositories import reconciliation_repo
from control_plane.routers.pipeline_requests import LOCATION, Name, Posting, json_text
from control_plane.routes import guarded_router
from control_plane.services import reconciliation_scheduler
from control_plane.services.idempotency import Answer
from control_plane.services.reconciliation_reports import report_file

PREFIX: Final = "/api/v1/pipelines/{name}/reconciliation"
EXAMPLES: Final = [
    {},
    {"collections": ["orders"], "mode": "counts"},
    {
        "mode": "full",
        "options": {"documents_per_s": 5000, "repair": True},
        "notifications": {"channels": [{"kind": "email", "to": ["data@example.com"]}], "on": "differences"},
    },
]
_ABSENT: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "No such job"}}
_STEERED: Final[dict[int | str, dict[str, Any]]] = {
    **_ABSENT,
    409: {"description": "It has ended, or is being cancelled; `state` says how it stands"},
}
_REPORTS: Final = {
    **{each: {"schema": {"type": "string"}} for each in CONTENT_TYPES.values()},
    CONTENT_TYPES["json"]: {"schema": {"type": "object"}, "example": {"format": 1, "outcome": "equal"}},
}
JobId = Annotated[UUID, Path(description="the job")]

router = guarded_router(prefix=PREFIX, tags=["reconciliation"])


@router.post(
    "/jobs",
    status_code=202,
    response_model=Job,
    responses={
        202: {"headers": LOCATION},
        404: {"description": "No such pipeline"},
        409: {"description": "The pipeline was never started, or is being deleted"},
    },
    dependencies=[guard(Permission.RECONCILIATION_RUN, Action.RECONCILIATION_RUN)],
)
async def run_reconciliation(
    name: Name,
    posting: Posting,
    principal: CurrentPrincipal,
    platform: ThePlatform,
    wanted: Annotated[NewJob | None, Body(examples=EXAMPLES)] = None,
) -> Response:
    """Have tables compared with MongoDB: all of the pipeline's, or some collections'. Follow the job at `Location`.

    The pipeline goes on meanwhile, and what is only on its way is no difference.
    """
    asked = wanted or NewJob()
    platform.admission.check_notifications(name, asked.notifications, principal)

    async def perform() -> Answer:
        record = await posting.manager.get(posting.connection, name)
        job = await reconciliation_scheduler.request_job(posting.connection, record, asked, posting.by)
        return Answer(202, json_text(job), {"Location": f"{PREFIX.format(name=name)}/jobs/{job.id}"})

    return await posting.once(perform)


@router.get(
    "/jobs",
    responses={404: {"description": "No such pipeline"}},
    dependencies=[guard(Permission.RECONCILIATION_READ, Action.RECONCILIATION_LIST)],
)
async def list_jobs(
    name: Name,
    platform: ThePlatform,
    reading: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    state: Annotated[JobState | None, Query(description="only jobs in this state")] = None,
    mode: Annotated[Mode | None, Query(description="only jobs of this mode")] = None,
) -> Page[Job]:
    """The pipeline's jobs, the newest first; also of a pipeline that is gone."""
    position = decode_cursor(cursor, int)
    before = int(position[0]) if position else None
    found, following = await reconciliation_scheduler.jobs(reading, name, state, mode, before, limit)
    if not found and before is None:
        await platform.pipelines.get(reading, name)
    return Page(items=found, next=None if following is None else encode_cursor([following]))


@router.get(
    "/jobs/{job}",
    responses=_ABSENT,
    dependencies=[guard(Permission.RECONCILIATION_READ, Action.RECONCILIATION_READ)],
)
async def get_job(name: Name, job: JobId, reading: Reading) -> JobDetail:
    """How a job goes, or went: each of its collections, how far it is, and what was found."""
    return await reconciliation_scheduler.job(reading, name, job)


@router.post(
    "/jobs/{job}/cancel",
    status_code=202,
    response_model=Job,
    responses=_STEERED,
    dependencies=[guard(Permission.RECONCILIATION_RUN, Action.RECONCILIATION_CANCEL)],
)
async def cancel_job(name: Name, job: JobId, posting: Posting) -> Response:
    """End a job where it is. What it has found until then is no verdict."""
    return await posting.once(_steered(name, job, posting, Wanted.CANCEL))


@router.post(
    "/jobs/{job}/pause",
    status_code=202,
    response_model=Job,
    responses=_STEERED,
    dependencies=[guard(Permission.RECONCILIATION_RUN, Action.RECONCILIATION_PAUSE)],
)
async def pause_job(name: Name, job: JobId, posting: Posting) -> Response:
    """Have a job read no further, and keep what it has."""
    return await posting.once(_steered(name, job, posting, Wanted.PAUSE))


@router.post(
    "/jobs/{job}/resume",
    status_code=202,
    response_model=Job,
    responses=_STEERED,
    dependencies=[guard(Permission.RECONCILIATION_RUN, Action.RECONCILIATION_RESUME)],
)
async def resume_job(name: Name, job: JobId, posting: Posting) -> Response:
    """Have a paused job go on where it is."""
    return await posting.once(_steered(name, job, posting, Wanted.RUN))


@router.get(
    "/jobs/{job}/differences",
    responses=_ABSENT,
    dependencies=[guard(Permission.RECONCILIATION_READ, Action.RECONCILIATION_DIFFERENCES)],
)
async def list_differences(
    name: Name,
    job: JobId,
    reading: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    kind: Annotated[DifferenceKind | None, Query(description="only of this kind")] = None,
    database: Annotated[CollectionName | None, Query(description="only of this database")] = None,
    collection: Annotated[CollectionName | None, Query(description="only of this collection")] = None,
) -> Page[Difference]:
    """The keys that are not as they should be, by collection: what is wrong, where, and the row beside the document."""
    if await reconciliation_repo.find_job(reading, name, job) is None:
        raise reconciliation_scheduler.no_job(name)
    position = decode_cursor(cursor, str, str, int)
    after = DifferencePosition(str(position[0]), str(position[1]), int(position[2])) if position else None
    which = DifferenceFilter(kind, database, collection)
    found = await reconciliation_repo.differences(reading, job, which, after, limit + 1)
    page = found[:limit]
    following = None
    if len(found) > limit:
        following = encode_cursor([page[-1].database, page[-1].collection, page[-1].number])
    return Page(items=page, next=following)


@router.get(
    "/jobs/{job}/reports/{database}/{collection:path}",
    response_class=StreamingResponse,
    responses={
        200: {"content": _REPORTS},
        404: {"description": "No such job, no report of the collection, or none in this format (any longer)"},
    },
    dependencies=[guard(Permission.RECONCILIATION_READ, Action.RECONCILIATION_REPORT)],
)
async def get_report(
    name: Name,
    job: JobId,
    database: Annotated[CollectionName, Path(description="the collection's database")],
    collection: Annotated[CollectionName, Path(description="the collection")],
    platform: ThePlatform,
    form: Annotated[ReportFormat, Query(alias="format", description="the HTML is one file, for people")] = "json",
) -> StreamingResponse:
    """The report of a collection, as a file: numbers, the map of the keys, differences with documents side by side."""
    async with platform.database.connection() as connection:  # not held while the store is asked
        if await reconciliation_repo.find_job(connection, name, job) is None:
            raise reconciliation_scheduler.no_job(name)
        stored = await reconciliation_repo.report(connection, job, database, collection)
    if stored is None:
        raise Problem(
            404, "no_report", "the job has no report of this collection: it is written when its run has ended"
        )
    content = await report_file(stored, form, platform.settings.stores, platform.blocking)
    # Never shown in place: whatever a document holds, a browser runs nothing of it with this origin.
    headers = {"Content-Disposition": f'attachment; filename="reconciliation-{stored.run_id}.{form}"'}
    return StreamingResponse(content, media_type=CONTENT_TYPES[form], headers=headers)


def _steered(name: str, job: UUID, posting: Posting, wanted: Wanted) -> Callable[[], Awaitable[Answer]]:
    async def perform() -> Answer:
        found = await reconciliation_scheduler.want(posting.connection, name, job, wanted)
        return Answer(202, json_text(found))

    return perform
