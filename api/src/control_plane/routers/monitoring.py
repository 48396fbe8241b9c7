"""Whether the control plane is well, and how pipelines get on: for load balancers, Prometheus and people."""

from datetime import UTC, datetime
from typing import Final, cast

from fastapi import Request, Response

from control_plane.dependencies import CurrentPrincipal, Reading, ThePlatform
from control_plane.middleware.rbac import guard
from control_plane.middleware.request_metrics import RequestMetrics
from control_plane.models.audit import Action
from control_plane.models.monitoring import Health, PipelineHealth, PipelineMetrics, PlatformMetrics, Readiness
from control_plane.permissions import Permission
from control_plane.repositories import pipeline_repo, reconciliation_repo
from control_plane.routers.pipeline_requests import Name
from control_plane.routes import guarded_router
from control_plane.services.prometheus_page import MEDIA_TYPE, prometheus_page

NOT_READY: Final = 503

router = guarded_router(tags=["monitoring"])


@router.get("/health", dependencies=[guard(Permission.PUBLIC, Action.HEALTH)])
async def health() -> Health:
    """Whether the process is alive. Asks nobody else."""
    return Health()


@router.get(
    "/ready",
    dependencies=[guard(Permission.PUBLIC, Action.READY)],
    responses={NOT_READY: {"model": Readiness, "description": "Something that is required is away"}},
)
async def ready(platform: ThePlatform, response: Response) -> Readiness:
    """Whether requests should be sent here, and how each part was found last, a few seconds ago at most.

    Only Postgres is required: without Kafka, Kafka Connect or the object store, what is asked for is kept, and done
    once they are back.
    """
    readiness = platform.monitoring.readiness()
    if readiness.status == "not_ready":
        response.status_code = NOT_READY
    return readiness


@router.get(
    "/metrics",
    dependencies=[guard(Permission.PUBLIC, Action.METRICS)],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def prometheus(request: Request, platform: ThePlatform) -> Response:
    """Requests, parts and pipelines, in Prometheus's text format.

    For whoever reaches the port, as such pages are: it holds names and numbers. A proxy in front of the API for people
    should not pass it on.
    """
    requests = cast(RequestMetrics, request.app.state.request_metrics)
    return Response(prometheus_page(requests, platform.monitoring.collector), media_type=MEDIA_TYPE)


@router.get("/api/v1/metrics", dependencies=[guard(Permission.METRICS_READ, Action.METRICS_READ)])
async def platform_metrics(platform: ThePlatform, principal: CurrentPrincipal, reading: Reading) -> PlatformMetrics:
    """Lag, throughput and errors of all pipelines that one may see, and the parts that they run on."""
    return platform.monitoring.of_platform(await pipeline_repo.names(reading, principal.pipelines), datetime.now(UTC))


@router.get("/api/v1/pipelines/{name}/metrics", dependencies=[guard(Permission.METRICS_READ, Action.PIPELINE_METRICS)])
async def pipeline_metrics(name: Name, platform: ThePlatform, reading: Reading) -> PipelineMetrics:
    """Lag, throughput and errors of a pipeline, of each of its collections and writers."""
    record = await platform.pipelines.get(reading, name)
    return platform.monitoring.of_pipeline(record.name, datetime.now(UTC))


@router.get("/api/v1/pipelines/{name}/status", dependencies=[guard(Permission.PIPELINES_READ, Action.PIPELINE_STATUS)])
async def pipeline_status(name: Name, platform: ThePlatform, reading: Reading) -> PipelineHealth:
    """What a pipeline is, how far its snapshot is, how far behind its tables are, through when they are proved equal to
    MongoDB, and what is wrong."""
    record = await platform.pipelines.get(reading, name)
    verifications = await reconciliation_repo.verifications(reading, {name})
    return platform.monitoring.status(record, platform.pipelines.state(record), verifications, datetime.now(UTC))
