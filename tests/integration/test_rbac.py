"""Who may call what, on the running application: every route, as nobody and as every role, and the audit of it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from typing import Any

import httpx
import pytest
from api_app import ADMIN, Api
from api_routes import ServedRoute, served_routes

from control_plane.middleware.rbac import Guard
from control_plane.permissions import GRANTS, Permission, Role
from control_plane.routes import GuardedRoute

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

USERS = "/api/v1/admin/users"
FORGED = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.eyJzdWIiOiJhZG1pbiJ9."  # alg=none, sub=admin


def guarded(api: Api) -> list[tuple[ServedRoute, Guard]]:
    """The routes that need a sign-in, and what they ask for."""
    found = []
    for each in served_routes(api.app):
        assert isinstance(each.route, GuardedRoute)
        if not each.route.guard.is_public:
            found.append((each, each.route.guard))
    return found


async def call(
    client: httpx.AsyncClient, routes: Iterable[ServedRoute], pipeline: str = "nowhere"
) -> list[tuple[ServedRoute, httpx.Response]]:
    """Call routes, all at once, without a body: it is not looked at before the caller is."""
    routes = list(routes)
    answers = await asyncio.gather(*(client.request(each.method, each.url(pipeline)) for each in routes))
    return list(zip(routes, answers, strict=True))


def told(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a problem."""
    return answer.status_code, answer.json()["code"]


async def audited(api: Api, **columns: Any) -> int:
    where = " AND ".join(f"{name} = ${n}" for n, name in enumerate(columns, 1))
    return int(await api.database.fetch_value(f"SELECT count(*) FROM audit_logs WHERE {where}", *columns.values()))


async def test_without_a_good_token_every_route_is_closed_and_every_try_is_audited(api: Api) -> None:
    ended = await api.signed_in(Role.ADMIN)
    assert (await ended.post("/api/v1/auth/logout")).status_code == 204
    routes = guarded(api)
    clients = {
        "not_authenticated": await api.anybody(),
        "invalid_token": await api.new_client(FORGED),
        "session_ended": ended,
    }
    for expected, client in clients.items():
        for route, answer in await call(client, [each for each, _ in routes]):
            assert told(answer) == (401, expected), route
            assert answer.headers["www-authenticate"] == "Bearer"
        rows = await api.database.fetch(
            "SELECT action, outcome FROM audit_logs WHERE code = $1 AND status = 401", expected
        )
        assert sorted(row["action"] for row in rows) == sorted(guard.action.value for _, guard in routes)
        assert {row["outcome"] for row in rows} == {"refused"}


@pytest.mark.parametrize("role", [*Role, None])
async def test_a_role_is_refused_every_route_that_it_was_not_granted_and_it_is_audited(
    shared_api: Api, role: Role | None
) -> None:
    """And is let in where it may: whatever then happens to a call without a body, it is neither 401 nor 403."""
    roles = [role] if role else []
    walker = f"walker-{role or 'nobody'}"
    client = await shared_api.signed_in(*roles, name=walker)
    grants = GRANTS[role] if role else {Permission.SELF}
    asked = {route: guard.permission for route, guard in guarded(shared_api)}
    refused = [route for route, permission in asked.items() if permission not in grants]
    for route, answer in await call(client, refused):
        assert told(answer) == (403, "not_permitted"), route
        assert asked[route].value in answer.json()["detail"]
    let_in = [each for each in asked if each not in refused and each.method == "GET" and "{name}" in each.path]
    for route, answer in await call(client, let_in):
        assert answer.status_code not in (401, 403), route
    assert await audited(shared_api, user_name=walker, status=403, outcome="refused") == len(refused)
    assert bool(refused) == (role is not Role.ADMIN)
    assert bool(let_in) == (role is not None)


async def test_a_service_token_has_the_permissions_that_it_was_given_and_no_other(shared_api: Api) -> None:
    machine = await shared_api.machine(Permission.METRICS_READ)
    granted = {Permission.METRICS_READ, Permission.SELF}
    refused = [each for each, guard in guarded(shared_api) if guard.permission not in granted]
    assert len(refused) > 10
    for route, answer in await call(machine, refused):
        assert told(answer) == (403, "not_permitted"), route


@pytest.mark.parametrize("kind", ["user", "machine"])
async def test_who_is_limited_to_some_pipelines_is_refused_every_route_of_others(api: Api, kind: str) -> None:
    if kind == "user":
        client = await api.signed_in(Role.OPERATOR, pipelines=["shop", "crm"])
    else:
        rights = GRANTS[Role.OPERATOR] - {Permission.PUBLIC, Permission.SELF}
        client = await api.machine(*rights, pipelines=["shop", "crm"])
    of_a_pipeline = [
        route for route, guard in guarded(api) if "{name}" in route.path and guard.permission in GRANTS[Role.OPERATOR]
    ]
    assert len(of_a_pipeline) > 10
    for other in ("payroll", "shop2", "Shop", "shop%20", "%73hop2"):
        for route, answer in await call(client, of_a_pipeline, other):
            assert told(answer) == (403, "out_of_scope"), (route, other)
    for route, answer in await call(client, [each for each in of_a_pipeline if each.method == "GET"], "shop"):
        assert answer.status_code not in (401, 403), route
    assert await audited(api, code="out_of_scope", resource="payroll") == len(of_a_pipeline)


async def test_rights_that_are_taken_or_given_count_from_the_next_call_on(api: Api) -> None:
    admin = await api.admin()
    client = await api.signed_in(Role.ANALYST, name="ada")
    user = f"{USERS}/{(await client.get('/api/v1/auth/me')).json()['id']}"
    assert (await client.get(USERS)).status_code == 403
    assert (await admin.patch(user, json={"roles": ["admin"]})).status_code == 200
    assert (await client.get(USERS)).status_code == 200
    assert (await admin.patch(user, json={"roles": ["operator"], "pipelines": ["shop"]})).status_code == 200
    assert (await client.get(USERS)).status_code == 403
    assert (await client.get("/api/v1/pipelines/payroll")).json()["code"] == "out_of_scope"
    assert await audited(api, action="user.change", user_name=ADMIN, resource="ada", outcome="allowed") == 2


async def test_nobody_but_an_admin_gives_rights(api: Api) -> None:
    operator = await api.signed_in(Role.OPERATOR)
    me = (await operator.get("/api/v1/auth/me")).json()["id"]
    for method, path, body in (
        ("POST", USERS, {"name": "mine", "roles": ["admin"]}),
        ("PATCH", f"{USERS}/{me}", {"roles": ["admin"]}),
        ("POST", f"{USERS}/{me}/reset-password", None),
        ("POST", "/api/v1/admin/service-tokens", {"name": "mine", "permissions": ["pipelines:write"]}),
    ):
        assert (await operator.request(method, path, json=body)).status_code == 403
    assert await api.database.fetch_value("SELECT count(*) FROM users") == 2
    assert await api.database.fetch_value("SELECT count(*) FROM service_tokens") == 0


async def test_the_last_admin_stays(api: Api) -> None:
    admin = await api.admin()
    me = f"{USERS}/{(await admin.get('/api/v1/auth/me')).json()['id']}"
    for answer in (await admin.post(f"{me}/disable"), await admin.patch(me, json={"roles": ["operator"]})):
        assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
    assert (await admin.get(me)).json()["roles"] == ["admin"]
    await api.user(Role.ADMIN, name="disabled", disabled=True)
    assert (await admin.post(f"{me}/disable")).status_code == 409, "an admin who cannot sign in is none"


async def test_admins_who_remove_each_other_at_the_same_moment_do_not_both_succeed(api: Api) -> None:
    clients = [await api.admin(), await api.signed_in(Role.ADMIN), await api.signed_in(Role.ADMIN)]
    ids = [(await each.get("/api/v1/auth/me")).json()["id"] for each in clients]
    for _ in range(3):
        await asyncio.gather(
            *(
                clients[n].post(f"{USERS}/{ids[(n + 1) % 3]}/disable")
                if n % 2
                else clients[n].patch(f"{USERS}/{ids[(n + 1) % 3]}", json={"roles": ["analyst"]})
                for n in range(3)
            )
        )
    left = await api.database.fetch_value(
        "SELECT count(*) FROM users u JOIN user_roles r ON r.user_id = u.id WHERE r.role = 'admin' AND NOT disabled"
    )
    assert left >= 1


async def test_what_is_refused_leaves_nothing_behind(api: Api) -> None:
    """A change whose call fails is rolled back with it: the role that would have gone is still there."""
    admin = await api.admin()
    before = await api.database.fetch("SELECT * FROM users ORDER BY id")
    me = f"{USERS}/{(await admin.get('/api/v1/auth/me')).json()['id']}"
    assert (await admin.patch(me, json={"roles": ["analyst"], "pipelines": []})).status_code == 409
    assert (await admin.post(USERS, json={"name": ADMIN, "roles": ["analyst"]})).status_code == 409
    assert await api.database.fetch("SELECT * FROM users ORDER BY id") == before
    assert await api.database.fetch_value("SELECT string_agg(role, ',') FROM user_roles") == "admin"
    assert uuid.UUID(me.rpartition("/")[2]) == before[0]["id"]
