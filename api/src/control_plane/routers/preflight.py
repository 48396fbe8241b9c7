"""`/api/v1/pipelines/validate` and `/api/v1/pipelines/{name}/validate`: would it run?"""

from typing import Annotated, Any, Final

from fastapi import Depends, Request

from control_plane.dependencies import CurrentPrincipal, ThePlatform
from control_plane.middleware.rbac import guard
from control_plane.models.audit import Action
from control_plane.models.preflight import PreflightReport
from control_plane.permissions import Permission
from control_plane.routers.pipeline_requests import PREFIX, Config, Name
from control_plane.routes import guarded_router
from control_plane.services.lifecycle import config_of
from control_plane.services.preflight import Preflight

_EXAMPLE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "What every check found; `valid` is false when one has failed",
        "content": {
            "application/json": {
                "example": {
                    "pipeline": "shop",
                    "valid": False,
                    "checks": [
                        {
                            "name": "source_reachable",
                            "outcome": "ok",
                            "message": "MongoDB 8.0.4 answers",
                            "duration_ms": 12.3,
                        },
                        {
                            "name": "oplog_window",
                            "outcome": "failed",
                            "message": "the oplog holds about 7.5 hours of changes; a connector that is away for "
                            "longer needs a new snapshot; …",
                            "duration_ms": 8.1,
                        },
                    ],
                }
            }
        },
    }
}

router = guarded_router(prefix=PREFIX, tags=["pipelines"])


async def _preflight(platform: ThePlatform) -> Preflight:
    return platform.preflight


ThePreflight = Annotated[Preflight, Depends(_preflight)]


@router.post(
    "/validate", responses=_EXAMPLE, dependencies=[guard(Permission.PIPELINES_WRITE, Action.PIPELINE_VALIDATE)]
)
async def validate_spec(
    config: Config, request: Request, principal: CurrentPrincipal, platform: ThePlatform, preflight: ThePreflight
) -> PreflightReport:
    """Check whether a pipeline with this spec would run. Nothing is made or changed; it takes some seconds.

    The source, Kafka, Kafka Connect and the place for the tables are asked, from here and, for the source, from Kafka
    Connect too.
    """
    request.state.unit.set_resource(config.name)  # not by `Work`: checks take seconds, and no transaction that long
    platform.admission.check(config, principal)
    return await preflight.report(config.spec())


@router.post(
    "/{name}/validate",
    responses={**_EXAMPLE, 404: {"description": "No such pipeline"}},
    dependencies=[guard(Permission.PIPELINES_OPERATE, Action.PIPELINE_VALIDATE)],
)
async def validate_pipeline(name: Name, platform: ThePlatform, preflight: ThePreflight) -> PreflightReport:
    """Check whether a pipeline would run as it is stored now. Nothing is changed; it takes some seconds."""
    async with platform.database.connection() as connection:
        record = await platform.pipelines.get(connection, name)
    return await preflight.report(config_of(record).spec())
