"""What a route asks of its caller: one permission, and a pipeline within the caller's scope."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Security, params

from control_plane.middleware.auth import bearer
from control_plane.models.audit import Action
from control_plane.models.auth import Principal
from control_plane.permissions import Permission
from control_plane.problems import Problem

PIPELINE_PARAMETER = "name"
"""The path parameter that names a pipeline."""


class Guard:
    """A route's permission and action. `GuardedRoute` enforces it, before the body is read; see `guard`."""

    def __init__(self, permission: Permission, action: Action) -> None:
        self.permission = permission
        self.action = action

    @property
    def is_public(self) -> bool:
        return self.permission is Permission.PUBLIC

    def check(self, principal: Principal, path: Mapping[str, Any]) -> None:
        """Raises `Problem` 403 unless the principal may."""
        if principal.must_change_password and self.permission is not Permission.SELF:
            raise Problem(403, "password_must_be_changed", "change the password at POST /api/v1/auth/password first")
        if not principal.may(self.permission):
            raise Problem(403, "not_permitted", f"this needs the permission {self.permission}; ask an admin for it")
        pipeline = path.get(PIPELINE_PARAMETER)
        if pipeline is not None and not principal.may_touch(pipeline):
            raise Problem(403, "out_of_scope", "this pipeline is not among those that you are limited to")


class _PublicGuard(Guard):
    async def __call__(self) -> None:
        """Nothing to do: a marker that the route finds."""


class _SignedInGuard(Guard):
    async def __call__(self, _token: Annotated[str | None, Security(bearer)]) -> None:
        """Nothing to do: a marker that the route finds, and OpenAPI's note that one must be signed in."""


def guard(permission: Permission, action: Action) -> params.Depends:
    """What every route declares: `dependencies=[guard(Permission.…, Action.…)]`."""
    kind = _PublicGuard if permission is Permission.PUBLIC else _SignedInGuard
    depends: params.Depends = Depends(kind(permission, action))
    return depends
