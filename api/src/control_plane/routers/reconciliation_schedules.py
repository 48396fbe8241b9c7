"""`/api/v1/pipelines/{name}/reconciliation/schedules`: what is compared by itself, and when."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Body, Path, Response

from cdc_shared.models.reconciliation import ScheduleConfig
from control_plane.dependencies import CurrentPrincipal, Reading, ThePlatform, Work
from control_plane.middleware.rbac import guard
from control_plane.models.audit import Action
from control_plane.models.pages import Cursor, Limit, Page, decode_cursor, encode_cursor
from control_plane.models.reconciliation_schedules import Schedule
from control_plane.permissions import Permission
from control_plane.problems import Problem
from control_plane.repositories import reconciliation_schedule_repo
from control_plane.routers.pipeline_requests import LOCATION, IfMatch, Name, Posting, json_text
from control_plane.routers.reconciliation import PREFIX
from control_plane.routes import guarded_router
from control_plane.services import reconciliation_scheduler
from control_plane.services.idempotency import Answer
from control_plane.services.preconditions import ANY_VERSION

EXAMPLES: Final = [
    {"cron": "0 2 * * *", "time_zone": "Europe/Berlin", "mode": "incremental"},
    {
        "cron": "0 4 * * sun",
        "mode": "full",
        "collections": ["orders"],
        "overlap": "skip",
        "notifications": {"channels": [{"kind": "slack", "url": "secret:shop/slack"}], "on": "changed"},
    },
]
ETAG: Final[dict[str, Any]] = {
    "ETag": {"description": "names the config in force; give it back in If-Match", "schema": {"type": "string"}}
}
_ABSENT: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "No such schedule"}}
_HELD: Final[dict[int | str, dict[str, Any]]] = {
    **_ABSENT,
    412: {"description": "The schedule has changed since"},
    428: {"description": "Without If-Match"},
}
Config = Annotated[ScheduleConfig, Body(examples=EXAMPLES)]
ScheduleId = Annotated[UUID, Path(description="the schedule")]

router = guarded_router(prefix=f"{PREFIX}/schedules", tags=["reconciliation"])


@router.post(
    "",
    status_code=201,
    response_model=Schedule,
    responses={
        201: {"headers": ETAG | LOCATION},
        404: {"description": "No such pipeline"},
        409: {"description": "The pipeline is being deleted"},
    },
    dependencies=[guard(Permission.RECONCILIATION_SCHEDULE, Action.SCHEDULE_CREATE)],
)
async def create_schedule(
    name: Name, config: Config, posting: Posting, principal: CurrentPrincipal, platform: ThePlatform
) -> Response:
    """Have tables compared at the times of a cron expression. Times that a time zone skips or repeats are due once."""
    platform.admission.check_notifications(name, config.notifications, principal)
    now = platform.auth.clock()

    async def perform() -> Answer:
        record = await posting.manager.get(posting.connection, name)
        made = await reconciliation_scheduler.create_schedule(posting.connection, record, config, posting.by, now)
        location = f"{PREFIX.format(name=name)}/schedules/{made.id}"
        return Answer(201, json_text(made), {"ETag": made.etag, "Location": location})

    return await posting.once(perform)


@router.get("", responses=_ABSENT, dependencies=[guard(Permission.RECONCILIATION_READ, Action.SCHEDULE_LIST)])
async def list_schedules(
    name: Name, platform: ThePlatform, reading: Reading, limit: Limit = 50, cursor: Cursor = None
) -> Page[Schedule]:
    """The pipeline's schedules, with the next times at which each is due."""
    await platform.pipelines.get(reading, name)
    after = _position(cursor)
    found, has_more = await reconciliation_scheduler.schedules(reading, name, after, limit, platform.auth.clock())
    return Page(items=found, next=encode_cursor([str(found[-1].id)]) if has_more else None)


@router.get(
    "/{schedule}",
    responses={200: {"headers": ETAG}, **_ABSENT},
    dependencies=[guard(Permission.RECONCILIATION_READ, Action.SCHEDULE_READ)],
)
async def get_schedule(
    name: Name, schedule: ScheduleId, platform: ThePlatform, reading: Reading, response: Response
) -> Schedule:
    """A schedule, with the next times at which it is due."""
    found = await reconciliation_scheduler.schedule(reading, name, schedule, platform.auth.clock())
    response.headers["ETag"] = found.etag
    return found


@router.put(
    "/{schedule}",
    responses={200: {"headers": ETAG}, **_HELD},
    dependencies=[guard(Permission.RECONCILIATION_SCHEDULE, Action.SCHEDULE_CHANGE)],
)
async def replace_schedule(
    name: Name,
    schedule: ScheduleId,
    config: Config,
    work: Work,
    principal: CurrentPrincipal,
    platform: ThePlatform,
    response: Response,
    if_match: IfMatch = None,
) -> Schedule:
    """Give a schedule another config. Jobs that it has made already stay as they are."""
    record = await platform.pipelines.get(work.connection, name)
    held = await reconciliation_scheduler.held_schedule(work.connection, name, schedule, if_match)
    platform.admission.check_notifications(name, config.notifications, principal, held.config.notifications)
    changed = await reconciliation_scheduler.replace_schedule(
        work.connection, record, held, config, principal.name, platform.auth.clock()
    )
    response.headers["ETag"] = changed.etag
    return changed


@router.delete(
    "/{schedule}",
    status_code=204,
    responses={**_ABSENT, 412: {"description": "The schedule has changed since"}},
    dependencies=[guard(Permission.RECONCILIATION_SCHEDULE, Action.SCHEDULE_DELETE)],
)
async def delete_schedule(name: Name, schedule: ScheduleId, work: Work, if_match: IfMatch = None) -> None:
    """Take a schedule away. Jobs that it has made stay."""
    held = await reconciliation_scheduler.held_schedule(
        work.connection, name, schedule, ANY_VERSION if if_match is None else if_match
    )
    await reconciliation_schedule_repo.remove(work.connection, held.id)


def _position(cursor: str | None) -> UUID | None:
    position = decode_cursor(cursor, str)
    if position is None:
        return None
    try:
        return UUID(str(position[0]))
    except ValueError:
        raise Problem(
            422, "invalid_cursor", "cursor is not one that a page gave as its `next`; leave it out to start"
        ) from None
