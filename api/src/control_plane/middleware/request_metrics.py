"""Counts and times the requests, for `/metrics`. By the routes' templates: a path would be a series for each name."""

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.middleware.request_context import route_of

SECONDS_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
NO_ROUTE: Final = "none"
NO_ANSWER: Final = "none"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD: Final = "other"
"""A caller may send any word as its method."""


class RequestMetrics:
    """The metrics of all requests of one application, and of its process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "cdc_api_requests_total",
            "Requests, by route and status; status none: broken off before the answer.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "cdc_api_request_seconds",
            "Seconds from a request's beginning until its answer is whole.",
            ("method", "route"),
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.open = Gauge("cdc_api_requests_open", "Requests that are being answered.", registry=registry)


class RequestMetricsMiddleware:
    """Pure ASGI. Outermost: an answer that another middleware gave is counted too."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = NO_ANSWER

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        started_s = time.perf_counter()
        self._metrics.open.inc()
        try:
            await self._app(scope, receive, answer)
        finally:
            self._metrics.open.dec()
            method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
            route = route_of(scope) or NO_ROUTE
            self._metrics.requests.labels(method, route, status).inc()
            self._metrics.seconds.labels(method, route).observe(time.perf_counter() - started_s)
