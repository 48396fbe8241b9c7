"""What an attacker tries: each test is an attempt that once succeeded, or that must never come to."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from api_app import ADMIN, PASSWORD, Api

from control_plane.permissions import Permission, Role

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

PIPELINES = "/api/v1/pipelines"
TOKEN = "/api/v1/auth/token"  # nosec B105
HASH = {"rule": "hash", "path": "/email"}


def spec(name: str, connection: str, **parts: Any) -> dict[str, Any]:
    return {"name": name, "source": {"connection": connection, "database": "shop"}, **parts}


def told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


async def test_no_other_spelling_of_a_name_gives_guesses_that_are_counted_by_themselves(api: Api) -> None:
    """Postgres makes an i of U+0130 and a k of U+212A: 2 ** n names of a user, each with its own free guesses."""
    anybody = await api.anybody()
    await api.user(Role.ADMIN, name="kiki")
    for name, alias in ((ADMIN, "adm\u0130n"), ("kiki", "\u212aiki")):
        assert told(await anybody.post(TOKEN, data={"username": alias, "password": PASSWORD}))[0] == 401
        assert (await anybody.post(TOKEN, data={"username": name.upper(), "password": PASSWORD})).status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/pipelines/", "/api/v1/auth/me/", "/api/v1/admin/users/"])
async def test_nobody_is_sent_to_another_host(api: Api, path: str) -> None:
    """A redirect takes its host from the caller and its scheme from the last hop: a token would go there."""
    answer = await (await api.admin()).get(path, headers={"Host": "evil.example"})
    assert told(answer) == (404, "not_found")
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    "query",
    [{"user": "a\0b"}, {"resource": "\0"}, {"to": "9999-12-31T23:59:59-14:00"}, {"from": "0001-01-01T00:00:00+14:00"}],
)
async def test_an_export_is_refused_before_it_begins_or_comes_whole(api: Api, query: dict[str, str]) -> None:
    auditor = await api.signed_in(Role.AUDITOR)
    answer = await auditor.get("/api/v1/audit/export", params=query)
    assert told(answer) == (422, "invalid_request")


async def test_no_spec_and_no_rule_names_a_secret_of_the_platform(api: Api) -> None:
    operator = await api.signed_in(Role.OPERATOR)
    own = [
        api.settings.api.signing_keys,
        api.settings.data_key.reference,
        *("env:POSTGRES_DSN", "env:API_ADMIN_PASSWORD", "env:CDC_SECRETS_KEY"),
        *("env:AWS_SECRET_ACCESS_KEY", "env:AWS_WEB_IDENTITY_TOKEN_FILE", "env:PGPASSWORD"),
    ]
    made = await operator.post(PIPELINES, json=spec("shop", "secret:shop-mongodb"))
    assert made.status_code == 201, made.text
    match = {"If-Match": made.headers["etag"]}
    for reference in own:
        rules = {"transformation": [HASH | {"key": reference}]}
        for answer in (
            await operator.post(PIPELINES, json=spec("crm", reference)),
            await operator.post(PIPELINES, json=spec("crm", "secret:crm", quality=rules)),
            await operator.post(f"{PIPELINES}/validate", json=spec("crm", reference)),
            await operator.put(f"{PIPELINES}/shop", json=spec("shop", reference), headers=match),
            await operator.put(f"{PIPELINES}/shop/rules", json=rules, headers=match),
            await operator.post(f"{PIPELINES}/shop/rules/dry-run", json={"collection": "orders", "rules": rules}),
        ):
            assert told(answer) == (422, "reserved_secret"), (reference, answer.request.url)


@pytest.mark.parametrize("root", ["/", "/etc", "file:///etc", "file:///%2e%2e/etc"])
async def test_no_spec_has_the_platform_look_into_its_own_disk(api: Api, root: str) -> None:
    """A pipeline `etc` with the root `/` listed what lies in that directory."""
    operator = await api.signed_in(Role.OPERATOR)
    wanted = spec("etc", "secret:shop-mongodb", sink={"root": root})
    for path in (PIPELINES, f"{PIPELINES}/validate"):
        assert told(await operator.post(path, json=wanted)) == (422, "root_not_allowed")


@pytest.mark.parametrize("kind", ["user", "machine"])
async def test_who_is_limited_to_a_pipeline_reads_no_other_source_and_writes_nowhere_else(api: Api, kind: str) -> None:
    """Else a pipeline of one's own, over the secret of another, shows what the other one holds."""
    operator = await api.signed_in(Role.OPERATOR)
    shop = spec("shop", "env:SHOP", sink={"root": "s3://lake/shops"})
    made = await operator.post(PIPELINES, json=shop)
    assert made.status_code == 201, made.text
    limited = (
        await api.signed_in(Role.OPERATOR, pipelines=["shop", "crm"])
        if kind == "user"
        else await api.machine(Permission.PIPELINES_WRITE, Permission.RULES_WRITE, pipelines=["shop", "crm"])
    )
    match = {"If-Match": made.headers["etag"]}
    payroll = {"transformation": [HASH | {"key": "secret:payroll/mask"}]}
    for answer in (
        await limited.post(PIPELINES, json=spec("crm", "secret:payroll-mongodb")),
        await limited.post(PIPELINES, json=spec("crm", "secret:crm-payroll")),
        await limited.post(PIPELINES, json=spec("crm", "env:SHOP")),
        await limited.post(PIPELINES, json=spec("crm", "secret:crm", sink={"root": "s3://lake/payroll"})),
        await limited.post(f"{PIPELINES}/validate", json=spec("crm", "secret:payroll-mongodb")),
        await limited.put(f"{PIPELINES}/shop", json=spec("shop", "secret:payroll-mongodb"), headers=match),
        await limited.put(f"{PIPELINES}/shop", json=shop | {"sink": {"root": "s3://lake/payroll"}}, headers=match),
        await limited.put(f"{PIPELINES}/shop/rules", json=payroll, headers=match),
        await limited.post(f"{PIPELINES}/shop/rules/dry-run", json={"collection": "orders", "rules": payroll}),
    ):
        assert told(answer) == (403, "out_of_scope"), (answer.request.url, answer.text)

    assert (await limited.post(PIPELINES, json=spec("crm", "secret:crm/mongodb"))).status_code == 201
    kept = shop | {"quality": {"transformation": [HASH | {"key": "secret:shop/mask"}]}}
    changed = await limited.put(f"{PIPELINES}/shop", json=kept, headers=match)
    assert changed.status_code == 200, changed.text
