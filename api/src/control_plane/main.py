"""The application: its services, its middleware from the outermost in, its routers."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from anyio import to_thread
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from cdc_shared.tracing.otel_config import Tracing, configure_tracing
from control_plane import problems
from control_plane.assembly import open_platform
from control_plane.middleware.audit import AuditMiddleware
from control_plane.middleware.body_limit import BodyLimitMiddleware
from control_plane.middleware.logging import LoggingMiddleware
from control_plane.middleware.rate_limits import RateLimitMiddleware, RateLimits
from control_plane.middleware.request_context import RequestContextMiddleware
from control_plane.middleware.request_metrics import RequestMetrics, RequestMetricsMiddleware
from control_plane.middleware.security_headers import SecurityHeadersMiddleware
from control_plane.middleware.tracing import TracingMiddleware
from control_plane.platform import Platform
from control_plane.routers import (
    admin,
    audit,
    auth,
    data_quality,
    dead_letters,
    monitoring,
    pipeline_moves,
    pipelines,
    preflight,
    query,
    reconciliation,
    reconciliation_repairs,
    reconciliation_schedules,
    reconciliation_verifications,
)
from control_plane.settings import Settings

SERVICE: Final = "control-plane"
VERSION: Final = "0.1.0"
TITLE: Final = "CDC control plane"

CORS_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
CORS_HEADERS: Final = ("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "X-Request-ID")
CORS_EXPOSED: Final = ("ETag", "Location", "Retry-After", "X-Request-ID")

OpenPlatform = Callable[[], AbstractAsyncContextManager[Platform]]


def create_app(settings: Settings, platform: OpenPlatform | None = None) -> FastAPI:
    """The application; it opens its services when it starts. `platform` takes their place in tests."""
    opened = platform or (lambda: open_platform(settings))

    tracing = configure_tracing(SERVICE, settings.tracing.otlp_endpoint)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with opened() as services:
                app.state.platform = services
                yield
        finally:
            await to_thread.run_sync(tracing.shutdown)

    app = FastAPI(
        title=TITLE,
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # a redirect names the host and the scheme that the caller, or the last proxy, came by
    )
    problems.install(app)
    app.state.rate_limits = RateLimits(settings.api.rate_limit, settings.api.auth_rate_limit)
    _add_routers(app)
    _add_middleware(app, tracing, settings)
    return app


def _add_routers(app: FastAPI) -> None:
    """Every router is a `routes.guarded_router`."""
    for each in (
        auth,
        admin,
        audit,
        pipelines,
        pipeline_moves,
        preflight,
        data_quality,
        dead_letters,
        reconciliation,
        reconciliation_repairs,
        reconciliation_schedules,
        reconciliation_verifications,
        query,
        monitoring,
    ):
        app.include_router(each.router)


def _add_middleware(app: FastAPI, tracing: Tracing, settings: Settings) -> None:
    """What is added last is outermost."""
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.api.max_body_bytes)
    app.add_middleware(RateLimitMiddleware, limits=app.state.rate_limits)
    if settings.api.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.api.cors_origins,
            allow_methods=CORS_METHODS,
            allow_headers=CORS_HEADERS,
            expose_headers=CORS_EXPOSED,
        )
    app.add_middleware(AuditMiddleware)
    app.add_middleware(LoggingMiddleware)
    app.add_middleware(TracingMiddleware, tracing=tracing)
    app.add_middleware(RequestContextMiddleware)
    app.state.request_metrics = RequestMetrics()
    app.add_middleware(RequestMetricsMiddleware, metrics=app.state.request_metrics)
    app.add_middleware(SecurityHeadersMiddleware)
