"""The audit trail: read, exported, verified."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query
from fastapi.responses import StreamingResponse

from control_plane.dependencies import Reading, ThePlatform
from control_plane.middleware.rbac import guard
from control_plane.models.audit import (
    Action,
    AuditExportQuery,
    AuditLog,
    AuditPageQuery,
    AuditQuery,
    AuditVerification,
)
from control_plane.models.pages import Page, decode_cursor, encode_cursor
from control_plane.permissions import Permission
from control_plane.repositories import audit_repo
from control_plane.repositories.audit_repo import AuditFilter
from control_plane.routes import guarded_router
from control_plane.services import audit_verification
from control_plane.services.audit_export import begun, export, log_of

MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}

router = guarded_router(prefix="/api/v1/audit", tags=["audit"])


@router.get("", dependencies=[guard(Permission.AUDIT_READ, Action.AUDIT_LIST)])
async def list_audit_logs(query: Annotated[AuditPageQuery, Query()], reading: Reading) -> Page[AuditLog]:
    """Calls, the newest first."""
    position = decode_cursor(query.cursor, int)
    before = int(position[0]) if position else None
    entries = await audit_repo.newest(reading, _filter(query), before, query.limit + 1)
    page = [log_of(each) for each in entries[: query.limit]]
    return Page(items=page, next=encode_cursor([page[-1].id]) if len(entries) > query.limit else None)


@router.get(
    "/export",
    dependencies=[guard(Permission.AUDIT_READ, Action.AUDIT_EXPORT)],
    response_class=StreamingResponse,
    responses={200: {"content": {each: {"schema": {"type": "string"}} for each in MEDIA_TYPES.values()}}},
)
async def export_audit_logs(query: Annotated[AuditExportQuery, Query()], platform: ThePlatform) -> StreamingResponse:
    """Calls, the oldest first, as CSV or as JSON lines; whatever there is when the export begins."""
    async with platform.database.connection() as connection:
        head, _ = await audit_repo.ends(connection)
    name = f"audit-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{query.format}"
    return StreamingResponse(
        await begun(export(platform.database, _filter(query), head.entries, query.format)),
        media_type=MEDIA_TYPES[query.format],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.get("/verify", dependencies=[guard(Permission.AUDIT_READ, Action.AUDIT_VERIFY)])
async def verify_audit_logs(
    platform: ThePlatform,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="`next` of the answer before")] = 0,
) -> AuditVerification:
    """Check that no entry was altered, removed or slipped in; of a long trail a part, `next` says where to go on."""
    return await audit_verification.verify(platform.database, after)


def _filter(query: AuditQuery) -> AuditFilter:
    return AuditFilter(query.user, query.action, query.resource, query.outcome, query.since, query.until)
