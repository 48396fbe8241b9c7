"""How every request of a route goes: who calls, may they, then the endpoint, then changes and audit entry at once."""

import re
from collections.abc import Callable, Coroutine
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from cdc_shared.models.common import PIPELINE_NAME_PATTERN
from control_plane.middleware.auth import authenticate
from control_plane.middleware.rate_limits import PASSWORD_ACTIONS, RateLimits
from control_plane.middleware.rbac import PIPELINE_PARAMETER, Guard
from control_plane.models.audit import AuditDraft
from control_plane.platform import Platform
from control_plane.unit_of_work import UnitOfWork


class UnguardedRoute(TypeError):
    """A route was declared without its permission."""


class GuardedRoute(APIRoute):
    """A route that authenticates and authorises before it reads the body, and commits before it answers."""

    @property
    def guard(self) -> Guard:
        """What the route declares. Raises `UnguardedRoute` unless it is exactly one."""
        declared: list[object] = [each.dependency for each in self.dependencies]
        guards = [each for each in declared if isinstance(each, Guard)]
        if len(guards) != 1:
            raise UnguardedRoute(f"{self.path} declares {len(guards)} guards: give it dependencies=[guard(…)]")
        return guards[0]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = super().get_route_handler()
        guard = self.guard

        async def handle(request: Request) -> Response:
            platform = cast(Platform, request.app.state.platform)
            draft = cast(AuditDraft, request.state.audit)
            draft.action = guard.action
            draft.resource = _pipeline(request)
            limits = cast(RateLimits, request.app.state.rate_limits)
            if guard.action in PASSWORD_ACTIONS:
                limits.count_password(draft.address)
            if not guard.is_public:
                draft.principal = await authenticate(request, platform.auth)
                limits.count_call(draft.principal)
                guard.check(draft.principal, request.path_params)
            async with UnitOfWork(platform.database, platform.audit, draft) as unit:
                request.state.unit = unit
                response = await endpoint(request)
                if response.status_code < 400:
                    await unit.commit(response.status_code)
            return response

        return handle


def _pipeline(request: Request) -> str | None:
    """The pipeline that the path names. What is no pipeline's name goes into no record: it may be a secret."""
    name: str | None = request.path_params.get(PIPELINE_PARAMETER)
    return name if name is None or re.fullmatch(PIPELINE_NAME_PATTERN, name) else "…"


def guarded_router(prefix: str = "", tags: list[str] | None = None) -> APIRouter:
    """A router all of whose routes are guarded."""
    return APIRouter(prefix=prefix, tags=list(tags or ()), route_class=GuardedRoute)
