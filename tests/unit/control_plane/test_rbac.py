"""Who may do what: the table of grants, the guard of a route, and that no route is without one."""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from uuid import UUID

import pytest
from api_app import settings_for
from api_database import TrialDatabase
from api_routes import served_routes
from fastapi import APIRouter, FastAPI
from stack_endpoints import Stack

from control_plane.main import create_app
from control_plane.middleware.rbac import Guard, guard
from control_plane.models.audit import Action
from control_plane.models.auth import Principal
from control_plane.permissions import GLOBAL, GRANTS, OF_EVERYONE, OF_PEOPLE, Permission, Role, granted
from control_plane.problems import Problem
from control_plane.routes import GuardedRoute, UnguardedRoute, guarded_router

pytestmark = pytest.mark.unit

MAY: dict[Permission, str] = {
    Permission.PUBLIC: "admin operator analyst auditor",
    Permission.SELF: "admin operator analyst auditor",
    Permission.PIPELINES_READ: "admin operator analyst auditor",
    Permission.PIPELINES_WRITE: "admin operator",
    Permission.PIPELINES_OPERATE: "admin operator",
    Permission.RULES_WRITE: "admin operator",
    Permission.DEAD_LETTERS_READ: "admin operator",
    Permission.DEAD_LETTERS_REVEAL: "admin",
    Permission.DEAD_LETTERS_REPLAY: "admin operator",
    Permission.DEAD_LETTERS_DISCARD: "admin operator",
    Permission.RECONCILIATION_READ: "admin operator analyst auditor",
    Permission.RECONCILIATION_RUN: "admin operator",
    Permission.RECONCILIATION_SCHEDULE: "admin operator",
    Permission.RECONCILIATION_APPROVE: "admin",
    Permission.TABLES_QUERY: "admin operator analyst",
    Permission.METRICS_READ: "admin operator analyst auditor",
    Permission.AUDIT_READ: "admin auditor",
    Permission.USERS_MANAGE: "admin",
    Permission.SERVICE_TOKENS_MANAGE: "admin",
}
"""The table once more, by hand: a grant that is changed is changed on purpose."""

ON_PURPOSE_PUBLIC = {"/health", "/ready", "/metrics", "/api/v1/auth/token", "/api/v1/auth/refresh"}


def principal(*roles: Role, pipelines: frozenset[str] | None = None, must_change: bool = False) -> Principal:
    return Principal(UUID(int=1), "ada", "user", frozenset(roles), granted(roles), pipelines, UUID(int=2), must_change)


@pytest.mark.parametrize("permission", Permission)
def test_each_permission_belongs_to_exactly_these_roles(permission: Permission) -> None:
    assert {role for role in Role if permission in GRANTS[role]} == {Role(each) for each in MAY[permission].split()}


def test_roles_add_up_and_no_role_is_no_right() -> None:
    assert granted([]) == OF_EVERYONE
    both = granted([Role.ANALYST, Role.AUDITOR])
    assert both == GRANTS[Role.ANALYST] | GRANTS[Role.AUDITOR]
    assert OF_PEOPLE | GLOBAL < GRANTS[Role.ADMIN] == set(Permission)
    assert {Permission.RECONCILIATION_APPROVE} == OF_PEOPLE - GLOBAL


@pytest.mark.parametrize("permission", sorted(set(Permission) - OF_EVERYONE))
@pytest.mark.parametrize("role", Role)
def test_a_guard_lets_through_who_has_the_permission_and_nobody_else(role: Role, permission: Permission) -> None:
    asked = Guard(permission, Action.ME)
    if permission in GRANTS[role]:
        asked.check(principal(role), {})
    else:
        with pytest.raises(Problem, match=str(permission)) as refused:
            asked.check(principal(role), {})
        assert (refused.value.status, refused.value.code) == (403, "not_permitted")


def test_a_scope_of_pipelines_is_kept() -> None:
    asked = Guard(Permission.PIPELINES_READ, Action.PIPELINE_READ)
    limited = principal(Role.OPERATOR, pipelines=frozenset({"shop"}))
    asked.check(limited, {"name": "shop"})
    asked.check(limited, {})  # a list, which leaves out the others itself
    asked.check(principal(Role.OPERATOR), {"name": "other"})
    with pytest.raises(Problem) as refused:
        asked.check(limited, {"name": "other"})
    assert (refused.value.status, refused.value.code) == (403, "out_of_scope")
    with pytest.raises(Problem):
        asked.check(principal(Role.OPERATOR, pipelines=frozenset()), {"name": "shop"})


def test_whoever_must_change_the_password_may_do_that_alone() -> None:
    must = principal(Role.ADMIN, must_change=True)
    Guard(Permission.SELF, Action.CHANGE_PASSWORD).check(must, {})
    for permission in set(Permission) - OF_EVERYONE:
        with pytest.raises(Problem) as refused:
            Guard(permission, Action.ME).check(must, {})
        assert refused.value.code == "password_must_be_changed"


@pytest.mark.parametrize("guards", [0, 2])
def test_a_route_without_its_one_guard_cannot_be_declared(guards: int) -> None:
    router = guarded_router()

    async def endpoint() -> None: ...

    with pytest.raises(UnguardedRoute, match="/open"):
        router.get("/open", dependencies=[guard(Permission.SELF, Action.ME)] * guards)(endpoint)


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """The whole application, not started."""
    nothing: dict[str, Any] = dict.fromkeys((each.name for each in fields(Stack)), "http://nowhere:1")
    return create_app(
        settings_for(Stack(**nothing | {"kafka": "nowhere:1"}), TrialDatabase(""), tmp_path_factory.mktemp("api"))
    )


def test_every_route_declares_its_permission_and_its_action(application: FastAPI) -> None:
    """The walk: a route of any other kind, or one that was mounted past the routers, fails it."""
    routes = served_routes(application)
    assert len(routes) > 30
    for each in routes:
        assert isinstance(each.route, GuardedRoute), f"{each} is not made by guarded_router()"
        declared = each.route.guard
        assert isinstance(declared.permission, Permission)
        assert declared.action is not Action.UNKNOWN, f"{each} has no action"
    public = {each.path for each in routes if isinstance(each.route, GuardedRoute) and each.route.guard.is_public}
    assert public <= ON_PURPOSE_PUBLIC, f"public by mistake: {public - ON_PURPOSE_PUBLIC}"


def test_the_walk_finds_a_route_that_was_added_past_the_guards() -> None:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    inner, outer = APIRouter(), APIRouter(prefix="/deep")
    inner.get("/open")(lambda: None)
    outer.include_router(inner)
    app.include_router(outer)
    app.mount("/mounted", FastAPI())
    found = served_routes(app)
    assert {each.path for each in found} == {"/deep/open", "/mounted/{path}"}
    assert not any(isinstance(each.route, GuardedRoute) for each in found)


def test_whatever_changes_something_needs_more_than_to_read(application: FastAPI) -> None:
    """Analysts and auditors have nothing that they could change but their own account and session."""
    reading = {
        "POST /api/v1/pipelines/validate",
        "POST /api/v1/pipelines/{name}/validate",
        "POST /api/v1/query",
    }
    for each in served_routes(application):
        if each.method in ("GET", "HEAD") or str(each) in reading or not isinstance(each.route, GuardedRoute):
            continue
        needed = each.route.guard.permission
        own = needed in OF_EVERYONE and each.path.startswith("/api/v1/auth/")
        assert own or needed not in GRANTS[Role.ANALYST] | GRANTS[Role.AUDITOR], str(each)
