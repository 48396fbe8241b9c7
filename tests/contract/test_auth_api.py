"""What the endpoints of signing in and of users promise: statuses, fields, codes."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest
from api_app import ADMIN, PASSWORD, Api
from jose import jwt

from control_plane.permissions import GRANTS, Permission, Role

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

AUTH = "/api/v1/auth"
USERS = "/api/v1/admin/users"
SERVICE_TOKENS = "/api/v1/admin/service-tokens"
NEW_PASSWORD = "another-Long-passphrase-8"
PROBLEM = {"type", "title", "status", "code", "detail", "request_id"}


def expect(answer: httpx.Response, status: int, code: str | None = None) -> Any:
    """The body of an answer of this status; problems have their shape, their code, and repeat no secret."""
    assert answer.status_code == status, answer.text
    if code is None:
        return answer.json() if answer.content else None
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body.keys() - {"errors"} == PROBLEM
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert PASSWORD not in answer.text
    assert NEW_PASSWORD not in answer.text
    return body


async def test_sign_in_gives_tokens_as_oauth_2_says(api: Api) -> None:
    anybody = await api.anybody()
    form = {"grant_type": "password", "username": ADMIN.upper(), "password": PASSWORD, "scope": ""}
    answer = await anybody.post(f"{AUTH}/token", data=form)
    tokens = expect(answer, 200)
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "refresh_token", "must_change_password"}
    assert tokens["token_type"] == "bearer"
    assert tokens["expires_in"] == 600
    assert answer.headers["cache-control"] == "no-store"
    header = jwt.get_unverified_header(tokens["access_token"])
    assert (header["alg"], header["typ"]) == ("ES256", "at+jwt")

    for form, code in (
        ({"username": ADMIN, "password": "wrong"}, "invalid_credentials"),
        ({"username": "nobody", "password": PASSWORD}, "invalid_credentials"),
    ):
        refused = await anybody.post(f"{AUTH}/token", data=form)
        expect(refused, 401, code)
        assert refused.headers["www-authenticate"] == "Bearer"
    for form in ({}, {"username": ADMIN}, {"username": ADMIN, "password": PASSWORD, "grant_type": "client_credentials"},
                 {"username": ADMIN, "password": PASSWORD, "role": "admin"}):  # fmt: skip
        expect(await anybody.post(f"{AUTH}/token", data=form), 422, "invalid_request")
    expect(await anybody.post(f"{AUTH}/token", json={"username": ADMIN, "password": PASSWORD}), 422, "invalid_request")
    expect(await anybody.get(f"{AUTH}/token"), 405, "method_not_allowed")


async def test_me_refresh_and_logout(api: Api) -> None:
    tokens = await api.sign_in()
    admin = await api.new_client(tokens["access_token"])
    me = expect(await admin.get(f"{AUTH}/me"), 200)
    assert me["name"] == ADMIN
    assert me["kind"] == "user"
    assert me["roles"] == ["admin"]
    assert set(me["permissions"]) == {each.value for each in Permission}
    assert me["pipelines"] is None
    assert me["must_change_password"] is False

    anybody = await api.anybody()
    expect(await anybody.post(f"{AUTH}/refresh", json={"refresh_token": "nonsense"}), 401, "invalid_refresh_token")
    expect(await anybody.post(f"{AUTH}/refresh", json={}), 422, "invalid_request")
    renewed = expect(await anybody.post(f"{AUTH}/refresh", json={"refresh_token": tokens["refresh_token"]}), 200)
    assert renewed.keys() == tokens.keys()
    assert renewed["refresh_token"] != tokens["refresh_token"]

    out = await admin.post(f"{AUTH}/logout")
    assert (out.status_code, out.content) == (204, b"")
    expect(await admin.get(f"{AUTH}/me"), 401, "session_ended")
    for path in ("me", "logout", "password"):
        expect(await anybody.request("GET" if path == "me" else "POST", f"{AUTH}/{path}"), 401, "not_authenticated")
    for scheme in ("Basic YWRtaW46YWRtaW4=", "Bearer", "Bearer  ", "bearer x y", "Token abc"):
        refused = await anybody.get(f"{AUTH}/me", headers={"Authorization": scheme})
        assert refused.status_code == 401


async def test_change_of_password(api: Api) -> None:
    user = await api.signed_in(Role.ANALYST)
    path = f"{AUTH}/password"
    expect(
        await user.post(path, json={"current_password": "wrong", "new_password": NEW_PASSWORD}), 403, "wrong_password"
    )
    for weak in ("short", PASSWORD, "password123456", "aaaaaaaaaaaaaaaa"):
        expect(await user.post(path, json={"current_password": PASSWORD, "new_password": weak}), 422, "weak_password")
    expect(await user.post(path, json={"new_password": NEW_PASSWORD}), 422, "invalid_request")
    done = await user.post(path, json={"current_password": PASSWORD, "new_password": NEW_PASSWORD})
    assert done.status_code == 204


async def test_users(api: Api) -> None:
    admin = await api.admin()
    answer = await admin.post(USERS, json={"name": "Maria", "roles": ["operator"], "pipelines": ["shop"]})
    maria = expect(answer, 201)
    assert answer.headers["location"] == f"{USERS}/{maria['id']}"
    password = maria.pop("password")
    assert len(password) >= 20
    assert maria["must_change_password"] is True
    assert set(maria["permissions"]) == {each.value for each in GRANTS[Role.OPERATOR]}
    assert expect(await admin.get(answer.headers["location"]), 200) == maria
    assert maria["pipelines"] == ["shop"]

    given = expect(await admin.post(USERS, json={"name": "otto", "roles": ["auditor"], "password": NEW_PASSWORD}), 201)
    assert given["password"] is None
    for body, status, code in (
        ({"name": "MARIA", "roles": ["analyst"]}, 409, "name_taken"),
        ({"name": "weak", "roles": ["analyst"], "password": "weak"}, 422, "weak_password"),
        ({"name": "none", "roles": []}, 422, "invalid_request"),
        ({"name": "king", "roles": ["king"]}, 422, "invalid_request"),
        ({"name": "a b", "roles": ["analyst"]}, 422, "invalid_request"),
        ({"name": "more", "roles": ["analyst"], "is_admin": True}, 422, "invalid_request"),
        ({"name": "both", "roles": ["admin"], "pipelines": ["shop"]}, 422, "scope_not_possible"),
        ({"name": "both", "roles": ["auditor"], "pipelines": []}, 422, "scope_not_possible"),
    ):
        expect(await admin.post(USERS, json=body), status, code)

    changed = expect(await admin.patch(f"{USERS}/{maria['id']}", json={"roles": ["analyst", "operator"]}), 200)
    assert (changed["roles"], changed["pipelines"]) == (["analyst", "operator"], ["shop"])
    changed = expect(await admin.patch(f"{USERS}/{maria['id']}", json={"pipelines": None}), 200)
    assert (changed["roles"], changed["pipelines"]) == (["analyst", "operator"], None)
    assert expect(await admin.post(f"{USERS}/{maria['id']}/disable"), 200)["disabled"] is True
    assert expect(await admin.post(f"{USERS}/{maria['id']}/enable"), 200)["disabled"] is False
    reset = expect(await admin.post(f"{USERS}/{maria['id']}/reset-password"), 200)
    assert reset.keys() == {"password"}
    assert reset["password"] != password
    for method, path in (("GET", ""), ("POST", "/disable"), ("POST", "/enable"), ("POST", "/reset-password")):
        expect(await admin.request(method, f"{USERS}/{uuid.uuid4()}{path}"), 404, "not_found")
    expect(await admin.patch(f"{USERS}/{uuid.uuid4()}", json={}), 404, "not_found")
    expect(await admin.get(f"{USERS}/maria"), 422, "invalid_request")

    names, cursor = [], None
    while True:
        page = expect(await admin.get(USERS, params={"limit": 2} | ({"cursor": cursor} if cursor else {})), 200)
        names += [each["name"] for each in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert names == ["admin", "Maria", "otto"]
    expect(await admin.get(USERS, params={"cursor": "bm9uc2Vuc2U"}), 422, "invalid_cursor")
    roles = {each["name"]: each["permissions"] for each in expect(await admin.get("/api/v1/admin/roles"), 200)}
    assert {Role(name): frozenset(map(Permission, rights)) for name, rights in roles.items()} == dict(GRANTS)


async def test_service_tokens(api: Api) -> None:
    admin = await api.admin()
    wanted = {"name": "deploy", "permissions": ["pipelines:read"], "pipelines": ["shop"], "expires_in_days": 7}
    made = expect(await admin.post(SERVICE_TOKENS, json=wanted), 201)
    token = made.pop("token")
    assert token.startswith(made["prefix"])
    assert len(token) > len(made["prefix"]) + 30
    for body, status, code in (
        (wanted, 409, "name_taken"),
        (wanted | {"name": "x", "permissions": []}, 422, "invalid_request"),
        (wanted | {"name": "x", "permissions": ["users:manage"]}, 422, "invalid_request"),
        (wanted | {"name": "x", "permissions": ["self"]}, 422, "invalid_request"),
        (wanted | {"name": "x", "permissions": ["audit:read"]}, 422, "invalid_request"),
        (wanted | {"name": "x", "expires_in_days": 367}, 422, "invalid_request"),
        (wanted | {"name": "x", "expires_in_days": 0}, 422, "invalid_request"),
    ):
        expect(await admin.post(SERVICE_TOKENS, json=body), status, code)

    machine = await api.new_client(token)
    me = expect(await machine.get(f"{AUTH}/me"), 200)
    assert (me["kind"], me["name"], me["roles"], me["pipelines"]) == ("service", "deploy", [], ["shop"])
    assert me["permissions"] == ["pipelines:read", "public", "self"]
    for path, body in (("logout", None), ("password", {"current_password": "x", "new_password": NEW_PASSWORD})):
        expect(await machine.post(f"{AUTH}/{path}", json=body), 403, "users_only")
    listed = expect(await admin.get(SERVICE_TOKENS), 200)["items"]
    assert [each | {"last_used_at": None} for each in listed] == [made]
    assert listed[0]["last_used_at"] is not None
    assert token not in str(listed)

    revoked = expect(await admin.post(f"{SERVICE_TOKENS}/{made['id']}/revoke"), 200)
    assert revoked["revoked_at"] is not None
    assert expect(await admin.post(f"{SERVICE_TOKENS}/{made['id']}/revoke"), 200) == revoked
    expect(await machine.get(f"{AUTH}/me"), 401, "token_revoked")
    expect(await admin.post(f"{SERVICE_TOKENS}/{uuid.uuid4()}/revoke"), 404, "not_found")
    expect(await admin.post(SERVICE_TOKENS, json=wanted), 201)  # its name is free again
    pages = expect(await admin.get(SERVICE_TOKENS, params={"limit": 1}), 200)
    rest = expect(await admin.get(SERVICE_TOKENS, params={"limit": 1, "cursor": pages["next"]}), 200)
    assert (pages["items"][0]["id"], rest["next"]) == (made["id"], None)
