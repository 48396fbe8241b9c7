"""`/api/v1/pipelines/{name}/reconciliation/…`: repairs of what a job found: planned, proposed, approved or rejected."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Body, Path, Query, Response

from cdc_shared.models.reconciliation import RepairState
from control_plane.dependencies import CurrentPrincipal, Reading, ThePlatform, Work
from control_plane.middleware.rbac import guard
from control_plane.models.audit import Action
from control_plane.models.pages import Cursor, Limit, Page, decode_cursor, encode_cursor
from control_plane.models.repairs import NewRepair, Repair, RepairProposal
from control_plane.permissions import Permission
from control_plane.routers.pipeline_requests import LOCATION, Name, Posting, json_text
from control_plane.routers.reconciliation import PREFIX, JobId
from control_plane.routes import guarded_router
from control_plane.services import reconciliation_repairs
from control_plane.services.idempotency import Answer

EXAMPLES: Final = [{}, {"kinds": ["missing", "different"], "max_keys": 500, "dry_run": False}]
_ABSENT: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "No such repair"}}
_DECIDED: Final[dict[int | str, dict[str, Any]]] = {**_ABSENT, 409: {"description": "It is not proposed any longer"}}
RepairId = Annotated[UUID, Path(description="the repair")]

router = guarded_router(prefix=PREFIX, tags=["reconciliation"])


@router.post(
    "/jobs/{job}/repairs",
    response_model=RepairProposal,
    responses={
        201: {"model": RepairProposal, "description": "It waits for approval", "headers": LOCATION},
        404: {"description": "No such job"},
        409: {
            "description": "The job is not completed; there is nothing to repair, or more than `max_keys`; another "
            "repair of the job is not finished"
        },
    },
    dependencies=[guard(Permission.RECONCILIATION_RUN, Action.REPAIR_PROPOSE)],
)
async def propose_repair(
    name: Name, job: JobId, posting: Posting, wanted: Annotated[NewRepair | None, Body(examples=EXAMPLES)] = None
) -> Response:
    """Tell what a repair of the job's differences would do, or, with `dry_run` false, propose it.

    A repair asks the writer to read documents again, as they are by then: it overwrites nothing newer.
    """
    asked = wanted or NewRepair()

    async def perform() -> Answer:
        proposal = await reconciliation_repairs.propose(posting.connection, name, job, asked, posting.by)
        if proposal.repair is None:
            return Answer(200, json_text(proposal))
        location = f"{PREFIX.format(name=name)}/repairs/{proposal.repair.id}"
        return Answer(201, json_text(proposal), {"Location": location})

    return await posting.once(perform)


@router.get(
    "/repairs",
    responses={404: {"description": "No such pipeline"}},
    dependencies=[guard(Permission.RECONCILIATION_READ, Action.REPAIR_LIST)],
)
async def list_repairs(
    name: Name,
    platform: ThePlatform,
    reading: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    state: Annotated[RepairState | None, Query(description="only repairs in this state")] = None,
) -> Page[Repair]:
    """The pipeline's repairs, the newest first; also of a pipeline that is gone."""
    position = decode_cursor(cursor, int)
    before = int(position[0]) if position else None
    found, following = await reconciliation_repairs.repairs(reading, name, state, before, limit)
    if not found and before is None:
        await platform.pipelines.get(reading, name)
    return Page(items=found, next=None if following is None else encode_cursor([following]))


@router.get(
    "/repairs/{repair}",
    responses=_ABSENT,
    dependencies=[guard(Permission.RECONCILIATION_READ, Action.REPAIR_READ)],
)
async def get_repair(name: Name, repair: RepairId, reading: Reading) -> Repair:
    """How a repair stands: what was planned, who decided, how far it is, and what its verification found."""
    return await reconciliation_repairs.repair(reading, name, repair)


@router.post(
    "/repairs/{repair}/approve",
    responses={**_DECIDED, 403: {"description": "Not permitted, or one's own proposal"}},
    dependencies=[guard(Permission.RECONCILIATION_APPROVE, Action.REPAIR_APPROVE)],
)
async def approve_repair(
    name: Name, repair: RepairId, work: Work, principal: CurrentPrincipal, platform: ThePlatform
) -> Repair:
    """Have a proposed repair applied and verified. Who proposed it may not approve it. Approving twice is harmless."""
    own_too = platform.settings.api.repair_self_approval
    return await reconciliation_repairs.approve(work.connection, name, repair, principal.name, own_too=own_too)


@router.post(
    "/repairs/{repair}/reject",
    responses=_DECIDED,
    dependencies=[guard(Permission.RECONCILIATION_RUN, Action.REPAIR_REJECT)],
)
async def reject_repair(name: Name, repair: RepairId, work: Work, principal: CurrentPrincipal) -> Repair:
    """Turn a proposed repair down, or withdraw one's own. Rejecting twice is harmless."""
    return await reconciliation_repairs.reject(work.connection, name, repair, principal.name)
