"""The audit trail over HTTP: what was called is found, exported and verified by those who may, and by nobody else."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from api_app import PASSWORD, Api

from control_plane.permissions import Role

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

AUDIT = "/api/v1/audit"


async def entries(auditor: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await auditor.get(AUDIT, params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_every_call_is_there_with_who_what_when_and_how_it_ended(api: Api) -> None:
    started = datetime.now(UTC)
    anybody, auditor = await api.anybody(), await api.signed_in(Role.AUDITOR)
    analyst = await api.signed_in(Role.ANALYST, name="anna")
    forger = await api.new_client("forged.token.x")
    calls = [
        (anybody, "GET", "/api/v1/pipelines", 401, "refused", "pipeline.list", None, "not_authenticated"),
        (forger, "GET", "/api/v1/auth/me", 401, "refused", "auth.me", None, "invalid_token"),
        (analyst, "GET", "/api/v1/auth/me", 200, "allowed", "auth.me", "anna", None),
        (analyst, "GET", AUDIT, 403, "refused", "audit.list", "anna", "not_permitted"),
        (analyst, "GET", "/api/v1/pipelines/nowhere", 404, "failed", "pipeline.read", "anna", "not_found"),
        (analyst, "GET", "/api/v1/no/such/route", 404, "failed", "unknown", None, "not_found"),
        (analyst, "PATCH", "/api/v1/auth/me", 405, "failed", "unknown", None, "method_not_allowed"),
        (analyst, "POST", "/api/v1/auth/logout", 204, "allowed", "auth.sign_out", "anna", None),
        (analyst, "GET", "/api/v1/auth/me", 401, "refused", "auth.me", None, "session_ended"),
    ]  # fmt: skip
    for n, (client, method, path, status, *_) in enumerate(calls):
        answer = await client.request(method, path, headers={"X-Request-ID": f"call-{n}"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (status, f"call-{n}")

    told = {each["request_id"]: each for each in await entries(auditor, limit=200)}
    for n, (*_, status, outcome, action, user, code) in enumerate(calls):
        entry = told[f"call-{n}"]
        assert (entry["status"], entry["outcome"], entry["action"], entry["user"], entry["code"]) == (
            status,
            outcome,
            action,
            user,
            code,
        )
        assert started <= datetime.fromisoformat(entry["at"]) <= datetime.now(UTC)
        assert entry["address"] == "192.0.2.1"
    assert told["call-2"]["roles"] == ["analyst"]


async def test_passwords_and_tokens_are_in_no_entry(api: Api) -> None:
    anybody, auditor = await api.anybody(), await api.signed_in(Role.AUDITOR)
    tokens = await api.sign_in()
    await anybody.post("/api/v1/auth/token", data={"username": "planted-typed-as-a-name", "password": "planted-pw"})
    await anybody.post("/api/v1/auth/refresh", json={"refresh_token": "planted-refresh"})
    await anybody.get("/api/v1/pipelines", headers={"Authorization": "Bearer planted-token"})
    await anybody.get(f"/api/v1/{tokens['access_token']}?password=planted")
    await (await api.new_client(tokens["access_token"])).get("/api/v1/auth/me")

    trail = json.dumps(await entries(auditor, limit=200))
    exported = (await auditor.get(f"{AUDIT}/export?format=jsonl")).text
    for secret in ("planted", PASSWORD, tokens["access_token"], tokens["refresh_token"]):
        assert secret not in trail
        assert secret not in exported


async def test_pages_follow_each_other_while_entries_come(api: Api) -> None:
    auditor = await api.signed_in(Role.AUDITOR, name="olga")
    for n in range(25):
        await auditor.get("/api/v1/auth/me", headers={"X-Request-ID": f"me-{n}"})

    found: list[str] = []
    cursor: str | None = None
    pages = 0
    while pages == 0 or cursor:
        query = {"limit": "10", "action": "auth.me"} | ({"cursor": cursor} if cursor else {})
        page = (await auditor.get(AUDIT, params=query)).json()
        found += [each["request_id"] for each in page["items"]]
        cursor = page["next"]
        pages += 1
        await auditor.get("/api/v1/auth/me", headers={"X-Request-ID": "meanwhile"})

    assert found == [f"me-{n}" for n in reversed(range(25))]
    assert pages == 3


async def test_filters_narrow_and_nonsense_is_refused(api: Api) -> None:
    auditor = await api.signed_in(Role.AUDITOR, name="olga")
    await auditor.get("/api/v1/pipelines/nowhere")
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

    assert [each["resource"] for each in await entries(auditor, resource="nowhere")] == ["nowhere"]
    assert [each["action"] for each in await entries(auditor, user="OLGA", outcome="failed")] == ["pipeline.read"]
    assert await entries(auditor, **{"from": soon}) == []
    assert len(await entries(auditor, to=soon, action="pipeline.read")) == 1
    for nonsense in (
        {"action": "pipeline.paint"},
        {"outcome": "fine"},
        {"from": "2026-01-01T00:00:00"},  # without a zone
        {"from": soon, "to": soon},
        {"limit": "201"},
        {"limit": "0"},
        {"cursor": "x"},
        {"cursor": "W1tdXQ"},
        {"user": "a\0b"},
        {"usr": "olga"},
    ):
        answer = await auditor.get(AUDIT, params=nonsense)
        assert answer.status_code == 422, (nonsense, answer.text)
        assert answer.json()["code"] in ("invalid_request", "invalid_cursor")


@pytest.mark.parametrize("fmt", ["csv", "jsonl"])
async def test_an_export_is_a_file_of_all_that_matches(api: Api, fmt: str) -> None:
    auditor = await api.signed_in(Role.AUDITOR, name="olga")
    for n in range(5):
        await auditor.get("/api/v1/auth/me", headers={"X-Request-ID": f"me-{n}"})

    answer = await auditor.get(f"{AUDIT}/export", params={"format": fmt, "action": "auth.me"})

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith({"csv": "text/csv", "jsonl": "application/jsonl"}[fmt])
    assert f'.{fmt}"' in answer.headers["content-disposition"]
    lines = (
        list(csv.DictReader(io.StringIO(answer.text))) if fmt == "csv" else map(json.loads, answer.text.splitlines())
    )
    assert [line["request_id"] for line in lines] == [f"me-{n}" for n in range(5)]
    assert [each["action"] for each in await entries(auditor, action="audit.export")] == ["audit.export"]


async def test_the_chain_is_verified_over_http(api: Api) -> None:
    auditor = await api.signed_in(Role.AUDITOR)
    told = (await auditor.get(f"{AUDIT}/verify")).json()
    assert told["intact"] is True
    assert told["checked"] == told["entries"] > 0

    await api.database.execute(
        "ALTER TABLE audit_logs DISABLE TRIGGER append_only; UPDATE audit_logs SET user_name = 'eve' WHERE id = 1;"
        "ALTER TABLE audit_logs ENABLE ALWAYS TRIGGER append_only"
    )

    told = (await auditor.get(f"{AUDIT}/verify")).json()
    assert (told["intact"], told["first_broken"]) == (False, 1)
    assert (await auditor.get(f"{AUDIT}/verify?after=1")).json()["intact"] is True
    assert (await auditor.get(f"{AUDIT}/verify?after=999999")).status_code == 422


@pytest.mark.parametrize("path", [AUDIT, f"{AUDIT}/export", f"{AUDIT}/verify"])
async def test_only_auditors_and_admins_read_it(shared_api: Api, path: str) -> None:
    assert (await (await shared_api.anybody()).get(path)).status_code == 401
    assert (await (await shared_api.signed_in(Role.OPERATOR)).get(path)).status_code == 403
    assert (await (await shared_api.signed_in(Role.ANALYST)).get(path)).status_code == 403
    assert (await (await shared_api.signed_in(Role.AUDITOR)).get(path)).status_code == 200
    assert (await (await shared_api.admin()).get(path)).status_code == 200
