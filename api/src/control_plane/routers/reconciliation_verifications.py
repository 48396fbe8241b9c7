"""What is verified: "verified through T" of every table, of one pipeline and of all that one may see."""

from control_plane.database import Connection
from control_plane.dependencies import CurrentPrincipal, Reading, ThePlatform
from control_plane.middleware.rbac import guard
from control_plane.models.audit import Action
from control_plane.models.pages import Cursor, Limit, Page, decode_cursor, encode_cursor
from control_plane.models.reconciliation import Verification
from control_plane.permissions import Permission
from control_plane.repositories import reconciliation_repo
from control_plane.routers.pipeline_requests import Name
from control_plane.routers.reconciliation import PREFIX
from control_plane.routes import guarded_router

router = guarded_router(tags=["reconciliation"])


@router.get(
    f"{PREFIX}/verifications",
    responses={404: {"description": "No such pipeline"}},
    dependencies=[guard(Permission.RECONCILIATION_READ, Action.RECONCILIATION_VERIFICATIONS)],
)
async def list_verifications(
    name: Name, platform: ThePlatform, reading: Reading, limit: Limit = 50, cursor: Cursor = None
) -> Page[Verification]:
    """Through when each of the pipeline's tables is verified, and what the last job found; those never compared are not
    there."""
    await platform.pipelines.get(reading, name)
    return await _page(reading, frozenset({name}), limit, cursor)


@router.get(
    "/api/v1/reconciliation/verifications",
    dependencies=[guard(Permission.RECONCILIATION_READ, Action.RECONCILIATION_VERIFICATIONS)],
)
async def list_all_verifications(
    principal: CurrentPrincipal, reading: Reading, limit: Limit = 50, cursor: Cursor = None
) -> Page[Verification]:
    """The same of all pipelines that one may see."""
    return await _page(reading, principal.pipelines, limit, cursor)


async def _page(
    connection: Connection, pipelines: frozenset[str] | None, limit: int, cursor: str | None
) -> Page[Verification]:
    position = decode_cursor(cursor, str, str, str)
    after = [str(each) for each in position] if position else None
    found = await reconciliation_repo.verifications(connection, pipelines, after, limit + 1)
    page = found[:limit]
    following = None
    if len(found) > limit:
        following = encode_cursor([page[-1].pipeline, page[-1].database, page[-1].collection])
    return Page(items=page, next=following)
