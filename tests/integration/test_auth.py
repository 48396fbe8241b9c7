"""Signing in on real Postgres: sessions that end, refresh tokens that are good once, guesses that are slowed down."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import stat
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from api_app import ADMIN, PASSWORD, Api, open_api, settings_for
from api_database import TrialDatabase
from stack_endpoints import Stack

from cdc_shared.errors import Fatal
from cdc_shared.logging.structured_logger import configure_logging
from cdc_shared.security import crypto
from cdc_shared.security.encrypted_file import EncryptedFileProvider
from control_plane.permissions import Permission, Role
from control_plane.services import key_ring, login_guard
from control_plane.services.auth_service import REFRESH_LIFETIME, SESSION_LIFETIME, AuthService
from control_plane.services.passwords import Passwords
from control_plane.services.signing_keys import generate_key

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

AUTH = "/api/v1/auth"
ADMIN_API = "/api/v1/admin"
NEW_PASSWORD = "another-Long-passphrase-8"
OUTSIDER = "198.51.100.9"
TIMED_TURNS = 40


async def sign_in(client: httpx.AsyncClient, name: str, password: str) -> httpx.Response:
    return await client.post(f"{AUTH}/token", data={"username": name, "password": password})


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post(f"{AUTH}/refresh", json={"refresh_token": token})


def code(answer: httpx.Response) -> str:
    return f"{answer.status_code} {answer.json().get('code', '')}".strip()


def later(api: Api, by: timedelta) -> None:
    """Let the API's clock go on."""
    before = api.platform.auth.clock
    api.platform.auth.clock = lambda: before() + by


async def audited(api: Api, action: str) -> list[tuple[str, int, str | None, str | None]]:
    """Outcome, status, code and user of every entry with this action, in the order of the chain."""
    rows = await api.database.fetch(
        "SELECT outcome, status, code, user_name FROM audit_logs WHERE action = $1 ORDER BY id", action
    )
    return [(row["outcome"], row["status"], row["code"], row["user_name"]) for row in rows]


async def test_a_session_lives_by_its_refresh_tokens_and_ends_with_logout(api: Api) -> None:
    anybody = await api.anybody()
    tokens = [await api.sign_in()]
    for _ in range(3):
        tokens.append((await refresh(anybody, tokens[-1]["refresh_token"])).json())
    for each in tokens:
        assert (await (await api.new_client(each["access_token"])).get(f"{AUTH}/me")).status_code == 200
    assert (await (await api.new_client(tokens[-1]["access_token"])).post(f"{AUTH}/logout")).status_code == 204
    for each in tokens:
        assert code(await (await api.new_client(each["access_token"])).get(f"{AUTH}/me")) == "401 session_ended"
    assert code(await refresh(anybody, tokens[-1]["refresh_token"])) == "401 invalid_refresh_token"
    assert (
        await audited(api, "auth.me")
        == [("allowed", 200, None, ADMIN)] * 4 + [("refused", 401, "session_ended", None)] * 4
    )
    assert (await audited(api, "auth.sign_out")) == [("allowed", 204, None, ADMIN)]


async def test_a_refresh_token_that_comes_twice_ends_its_session_and_no_other(api: Api) -> None:
    anybody = await api.anybody()
    stolen, other = await api.sign_in(), await api.sign_in()
    renewed = (await refresh(anybody, stolen["refresh_token"])).json()
    assert code(await refresh(anybody, stolen["refresh_token"])) == "401 invalid_refresh_token"
    for each in (stolen, renewed):
        assert code(await (await api.new_client(each["access_token"])).get(f"{AUTH}/me")) == "401 session_ended"
    assert code(await refresh(anybody, renewed["refresh_token"])) == "401 invalid_refresh_token"
    assert (await refresh(anybody, other["refresh_token"])).status_code == 200
    assert await api.database.fetch_value("SELECT revoked_why FROM sessions WHERE revoked_at IS NOT NULL") == (
        "refresh_reused"
    )


async def test_of_many_who_use_one_refresh_token_at_once_one_gets_through_and_the_session_ends(api: Api) -> None:
    anybody = await api.anybody()
    tokens = await api.sign_in()
    answers = await asyncio.gather(*(refresh(anybody, tokens["refresh_token"]) for _ in range(12)))
    assert sorted(each.status_code for each in answers) == [200] + [401] * 11
    winner = next(each.json() for each in answers if each.status_code == 200)
    assert code(await (await api.new_client(winner["access_token"])).get(f"{AUTH}/me")) == "401 session_ended"


async def test_a_session_ends_when_nobody_refreshes_it_and_at_the_latest_after_its_lifetime(api: Api) -> None:
    anybody = await api.anybody()
    idle, busy = await api.sign_in(), await api.sign_in()
    for _ in range(SESSION_LIFETIME // (REFRESH_LIFETIME / 2) - 1):
        later(api, REFRESH_LIFETIME / 2)
        answer = await refresh(anybody, busy["refresh_token"])
        assert answer.status_code == 200
        busy = answer.json()
    assert code(await refresh(anybody, idle["refresh_token"])) == "401 invalid_refresh_token"
    later(api, REFRESH_LIFETIME / 2)
    assert code(await refresh(anybody, busy["refresh_token"])) == "401 invalid_refresh_token"
    later(api, timedelta(seconds=1))
    await sign_in(anybody, ADMIN, PASSWORD)
    assert await api.database.fetch_value("SELECT count(*) FROM sessions") == 1, "what is over was not cleaned away"


async def test_guesses_are_slowed_down_for_known_and_unknown_names_alike(api: Api) -> None:
    guesser = await api.new_client(address=OUTSIDER)
    heard: dict[str, list[str]] = {}
    for name in (ADMIN, "nobody-of-this-name"):
        heard[name] = [code(await sign_in(guesser, name, f"guess-{n}")) for n in range(8)]
    assert heard[ADMIN] == heard["nobody-of-this-name"]
    assert heard[ADMIN] == ["401 invalid_credentials"] * 5 + ["429 too_many_attempts"] * 3
    blocked = await sign_in(guesser, ADMIN, PASSWORD)
    assert code(blocked) == "429 too_many_attempts", "the right password ends no block"
    assert 1 <= int(blocked.headers["retry-after"]) <= 2
    assert (await sign_in(await api.anybody(), ADMIN, PASSWORD)).status_code == 200, "from elsewhere it goes on"
    later(api, timedelta(seconds=3))
    assert (await sign_in(guesser, ADMIN, PASSWORD)).status_code == 200
    assert code(await sign_in(guesser, ADMIN, "guess")) == "401 invalid_credentials", "it counts from the start again"
    assert set(await audited(api, "auth.sign_in")) == {
        ("refused", 401, "invalid_credentials", ADMIN),
        ("refused", 401, "invalid_credentials", None),
        ("refused", 429, "too_many_attempts", ADMIN),
        ("refused", 429, "too_many_attempts", None),
        ("allowed", 200, None, ADMIN),
    }


async def test_many_guesses_at_the_same_moment_are_no_way_around_the_block(api: Api) -> None:
    stopped = api.platform.auth.clock()  # however long the machine takes: all come at the same moment
    api.platform.auth.clock = lambda: stopped
    guesser = await api.new_client(address=OUTSIDER)
    guesses = [f"guess-{n}" for n in range(40)] + [PASSWORD]
    answers = await asyncio.gather(*(sign_in(guesser, ADMIN, each) for each in guesses))
    heard = [code(each) for each in answers]
    assert set(heard) == {"401 invalid_credentials", "429 too_many_attempts"}
    assert heard.count("401 invalid_credentials") <= login_guard.PAIR.free + 1
    failures = await api.database.fetch_value("SELECT max(failures) FROM login_failures WHERE subject LIKE 'pair:%'")
    assert failures == login_guard.PAIR.free + 1


async def test_many_names_tried_from_one_address_block_the_address(api: Api) -> None:
    guesser, colleague = await api.new_client(address=OUTSIDER), await api.new_client(address="198.51.100.10")
    heard = [code(await sign_in(guesser, f"user-{n}", "Summer-of-2026")) for n in range(login_guard.ADDRESS.free + 3)]
    assert heard[-1] == "429 too_many_attempts"
    assert heard.count("401 invalid_credentials") == login_guard.ADDRESS.free + 1
    assert code(await sign_in(guesser, ADMIN, PASSWORD)) == "429 too_many_attempts"
    assert (await sign_in(colleague, ADMIN, PASSWORD)).status_code == 200


async def test_a_name_that_many_addresses_guess_at_is_slowed_down_and_never_locked_out(api: Api) -> None:
    for n in range(login_guard.NAME.free + 1):
        assert code(await sign_in(await api.new_client(address=f"203.0.113.{n}"), ADMIN, "x")) == (
            "401 invalid_credentials"
        )
    blocked = await sign_in(await api.anybody(), ADMIN, PASSWORD)
    assert code(blocked) == "429 too_many_attempts"
    assert int(blocked.headers["retry-after"]) <= login_guard.NAME.cap_s
    later(api, timedelta(seconds=login_guard.NAME.cap_s))
    assert (await sign_in(await api.anybody(), ADMIN, PASSWORD)).status_code == 200


async def test_nobody_is_kept_out_of_where_they_have_signed_in_before(api: Api) -> None:
    """Who has some addresses (one IPv6 customer has 256 networks) could fail again whenever the name is free."""
    home, elsewhere = await api.new_client(address="2001:db8:1::7"), await api.new_client(address="2001:db8:2::7")
    assert (await sign_in(home, ADMIN, PASSWORD)).status_code == 200
    for n in range(login_guard.NAME.free + 1):
        await sign_in(await api.new_client(address=f"203.0.113.{n}"), ADMIN, "x")
    assert code(await sign_in(elsewhere, ADMIN, PASSWORD)) == "429 too_many_attempts"
    for _ in range(login_guard.PAIR.free + 1):
        assert code(await sign_in(home, ADMIN, "x")) == "401 invalid_credentials"
    assert code(await sign_in(home, ADMIN, PASSWORD)) == "429 too_many_attempts", "guesses from there count as any"
    later(api, timedelta(seconds=3))
    same_network = await api.new_client(address="2001:db8:1::8")
    assert (await sign_in(same_network, ADMIN.upper(), PASSWORD)).status_code == 200


@pytest.fixture
async def costly(stack: Stack, database: TrialDatabase, tmp_path: Path) -> AsyncIterator[Api]:
    """The application with passwords that take as long as the product's."""
    async with open_api(settings_for(stack, database, tmp_path), database, Passwords()) as opened:
        yield opened


async def test_an_unknown_user_takes_as_long_as_a_wrong_password(
    costly: Api, measured: Callable[[str, float, str], None]
) -> None:
    """Whoever measures cannot tell which names there are."""
    await costly.user(Role.ANALYST, name="disabled", disabled=True)
    tried = {ADMIN: "wrong", "nobody": "wrong", "disabled": PASSWORD}
    fastest = dict.fromkeys(tried, float("inf"))  # the fastest of several: without the machine's other work
    for turn in range(TIMED_TURNS):
        await costly.database.execute("TRUNCATE login_failures")
        client = await costly.new_client(address=OUTSIDER)
        for name, password in tried.items():
            start = time.perf_counter()
            assert code(await sign_in(client, name, password)) == "401 invalid_credentials"
            fastest[name] = min(fastest[name], time.perf_counter() - start)
        if turn >= 3 and max(fastest.values()) < 1.25 * min(fastest.values()):
            break
    measured("sign-in refused", 1000 * max(fastest.values()), "ms")
    assert max(fastest.values()) < 1.25 * min(fastest.values()), fastest


async def test_a_changed_password_ends_the_other_sessions_and_is_the_only_one(api: Api) -> None:
    name = await api.user(Role.OPERATOR)
    here, there = await api.sign_in(name), await api.sign_in(name)
    client, other = await api.new_client(here["access_token"]), await api.new_client(there["access_token"])
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert (await client.post(f"{AUTH}/password", json=body)).status_code == 204
    assert (await client.get(f"{AUTH}/me")).status_code == 200
    assert code(await other.get(f"{AUTH}/me")) == "401 session_ended"
    anybody = await api.anybody()
    assert code(await refresh(anybody, there["refresh_token"])) == "401 invalid_refresh_token"
    assert (await refresh(anybody, here["refresh_token"])).status_code == 200
    assert code(await sign_in(anybody, name, PASSWORD)) == "401 invalid_credentials"
    assert (await sign_in(anybody, name, NEW_PASSWORD)).status_code == 200


async def test_whoever_has_a_session_cannot_guess_the_password_with_it(api: Api) -> None:
    client = await api.signed_in(Role.OPERATOR)
    heard = []
    for n in range(7):
        body = {"current_password": f"guess-{n}", "new_password": NEW_PASSWORD}
        heard.append(code(await client.post(f"{AUTH}/password", json=body)))
    assert heard == ["403 wrong_password"] * 5 + ["429 too_many_attempts"] * 2


async def test_of_two_changes_of_a_password_at_once_one_is_made(api: Api) -> None:
    client = await api.signed_in(Role.OPERATOR)
    bodies = [{"current_password": PASSWORD, "new_password": NEW_PASSWORD + str(n)} for n in range(2)]
    answers = await asyncio.gather(*(client.post(f"{AUTH}/password", json=each) for each in bodies))
    assert sorted(each.status_code for each in answers) in ([204, 409], [204, 403])


async def test_a_reset_password_is_temporary(api: Api) -> None:
    name = await api.user(Role.OPERATOR)
    before = await api.new_client((await api.sign_in(name))["access_token"])
    user = (await before.get(f"{AUTH}/me")).json()["id"]
    admin = await api.admin()
    temporary = (await admin.post(f"{ADMIN_API}/users/{user}/reset-password")).json()["password"]
    assert code(await before.get(f"{AUTH}/me")) == "401 session_ended"
    assert code(await sign_in(await api.anybody(), name, PASSWORD)) == "401 invalid_credentials"
    tokens = await api.sign_in(name, temporary)
    assert tokens["must_change_password"] is True
    client = await api.new_client(tokens["access_token"])
    assert code(await client.get("/api/v1/pipelines")) == "403 password_must_be_changed"
    body = {"current_password": temporary, "new_password": NEW_PASSWORD}
    assert (await client.post(f"{AUTH}/password", json=body)).status_code == 204
    assert (await client.get("/api/v1/pipelines")).status_code == 200


async def test_a_disabled_user_is_out_at_once_and_can_come_back(api: Api) -> None:
    name = await api.user(Role.OPERATOR)
    tokens = await api.sign_in(name)
    client = await api.new_client(tokens["access_token"])
    user = (await client.get(f"{AUTH}/me")).json()["id"]
    admin, anybody = await api.admin(), await api.anybody()
    assert (await admin.post(f"{ADMIN_API}/users/{user}/disable")).status_code == 200
    assert code(await client.get(f"{AUTH}/me")) == "401 session_ended"
    assert code(await refresh(anybody, tokens["refresh_token"])) == "401 invalid_refresh_token"
    assert code(await sign_in(anybody, name, PASSWORD)) == "401 invalid_credentials"
    assert (await admin.post(f"{ADMIN_API}/users/{user}/enable")).status_code == 200
    assert code(await client.get(f"{AUTH}/me")) == "401 session_ended", "what had ended comes back"
    assert (await sign_in(anybody, name, PASSWORD)).status_code == 200


async def test_a_service_token_expires_and_its_use_is_noted(api: Api) -> None:
    machine = await api.machine(Permission.PIPELINES_READ)
    assert (await machine.get("/api/v1/pipelines")).status_code == 200
    used = await api.database.fetch_value("SELECT last_used_at FROM service_tokens")
    assert abs(api.platform.auth.clock() - used) < timedelta(seconds=30)
    later(api, timedelta(days=90, seconds=1))
    assert code(await machine.get("/api/v1/pipelines")) == "401 token_expired"
    assert code(await (await api.new_client("cdcs_" + "x" * 43)).get("/api/v1/pipelines")) == "401 invalid_token"


@pytest.fixture
def service_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The log as the running service writes it."""
    root = logging.getLogger()
    handlers, level, hooks = root.handlers, root.level, (sys.excepthook, threading.excepthook)
    configure_logging("control-plane")
    monkeypatch.setattr(logging.getLogger("httpx"), "disabled", True)  # the test's own client
    written = io.StringIO()
    for handler in root.handlers:
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(written)
    yield written
    root.handlers, root.level = handlers, level
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    structlog.reset_defaults()


async def test_no_password_and_no_token_is_stored_or_logged_as_it_is(
    api: Api, service_log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = "Planted-in-the-name-field-1"
    anybody = await api.anybody()
    await sign_in(anybody, planted, PASSWORD)  # a password typed where the name belongs
    name = await api.user(Role.OPERATOR)
    tokens = await api.sign_in(name)
    client = await api.new_client(tokens["access_token"])
    renewed = (await refresh(anybody, tokens["refresh_token"])).json()
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert (await client.post(f"{AUTH}/password", json=body)).status_code == 204
    machine = await api.machine(Permission.PIPELINES_READ)
    await machine.get("/api/v1/pipelines")
    await anybody.get(f"/api/v1/{tokens['refresh_token']}")  # in a path, by mistake
    with monkeypatch.context() as broken:  # an error that nobody foresaw, with the secret in its text and in its frames

        async def fail(_self: AuthService, name: str, password: str, _address: str | None) -> None:
            raise RuntimeError(f"{name} {password}")

        broken.setattr(AuthService, "check_password", fail)
        failed = await sign_in(client, name, PASSWORD)
        assert code(failed) == "500 internal_error"
        assert PASSWORD not in failed.text
    secrets = [planted, PASSWORD, NEW_PASSWORD, machine.headers["authorization"].removeprefix("Bearer ")]
    for each in (tokens, renewed):
        secrets += [each["access_token"], each["access_token"].rpartition(".")[2], each["refresh_token"]]
    tables = await api.database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {"users", "audit_logs", "login_failures", "service_tokens"} <= {row["tablename"] for row in tables}
    logged = service_log.getvalue()
    assert "auth.sign_in" in logged
    assert "unexpected error" in logged
    stored = ""
    for row in tables:
        rows = await api.database.fetch(f'SELECT t::text FROM "{row["tablename"]}" t')
        stored += "\n".join(each[0] for each in rows)
    assert name in stored
    for secret in secrets:
        assert secret.lower() not in stored.lower()
        assert secret.lower() not in logged.lower()


async def test_a_sign_in_limit_of_its_own_guards_the_passwords(
    stack: Stack, database: TrialDatabase, tmp_path: Path
) -> None:
    settings = settings_for(stack, database, tmp_path, auth_rate_limit="3/minute")
    async with open_api(settings, database) as api:
        anybody, other = await api.anybody(), await api.new_client(address=OUTSIDER)
        heard = [code(await sign_in(anybody, ADMIN, PASSWORD)) for _ in range(4)]
        assert heard == ["200"] * 3 + ["429 too_many_requests"]
        assert (await sign_in(other, ADMIN, PASSWORD)).status_code == 200
        assert (await anybody.get(f"{AUTH}/me")).status_code == 401, "other calls go on"
        assert ("refused", 429, "too_many_requests", None) in await audited(api, "auth.sign_in")


async def test_a_user_and_an_address_have_their_limits(stack: Stack, database: TrialDatabase, tmp_path: Path) -> None:
    settings = settings_for(stack, database, tmp_path, rate_limit="10/minute")
    async with open_api(settings, database) as api:
        token = (await api.sign_in())["access_token"]
        heard = []
        for n in range(12):
            client = await api.new_client(token, address=f"203.0.113.{n}")
            heard.append(code(await client.get(f"{AUTH}/me")))
        assert heard == ["200"] * 10 + ["429 too_many_requests"] * 2, "one user from many addresses"
        anybody = await api.new_client(address=OUTSIDER)
        heard = [code(await anybody.get("/nowhere")) for _ in range(12)]
        assert heard == ["404 not_found"] * 10 + ["429 too_many_requests"] * 2
        refused = await api.database.fetch("SELECT count(*) FROM audit_logs WHERE status = 429")
        assert refused[0][0] == 4


async def test_the_signing_key_is_replaced_while_two_processes_run_and_nobody_is_signed_out(
    stack: Stack, database: TrialDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_ring, "REREAD_AFTER_S", 0.0)
    settings = settings_for(stack, database, tmp_path)
    async with open_api(settings, database) as one, open_api(settings, database) as two:
        before = (await one.sign_in())["access_token"]
        assert (await (await two.new_client(before)).get(f"{AUTH}/me")).status_code == 200, "they share the key"
        keeper = _keeper(settings.secrets)
        old = keeper.get("api-signing-keys").reveal()
        keeper.put("api-signing-keys", generate_key() + old)
        after = (await two.sign_in())["access_token"]
        assert before.partition(".")[0] != after.partition(".")[0], "the newest signs"
        for token in (before, after):
            for each in (one, two):
                assert (await (await each.new_client(token)).get(f"{AUTH}/me")).status_code == 200
        keeper.put("api-signing-keys", generate_key())
        assert code(await (await one.new_client(before)).get(f"{AUTH}/me")) == "401 invalid_token"


def _keeper(secrets: Any) -> EncryptedFileProvider:
    return EncryptedFileProvider(secrets.file, crypto.decode_key(secrets.key.get_secret_value(), "the test"))


async def test_several_first_starts_at_once_make_one_admin_and_one_key(
    stack: Stack, empty_database: TrialDatabase, tmp_path: Path
) -> None:
    database, file = empty_database, tmp_path / "private" / "admin-password"
    settings = settings_for(stack, database, tmp_path, admin_password=None, admin_password_file=file)

    async with AsyncExitStack() as running:
        started = await asyncio.gather(*(running.enter_async_context(open_api(settings, database)) for _ in range(3)))
        assert await database.fetch_value("SELECT count(*) FROM users") == 1
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        password = file.read_text().strip()
        assert len(password) >= 20
        for each in started:
            token = (await each.sign_in(ADMIN, password))["access_token"]
            for other in started:
                assert (await (await other.new_client(token)).get(f"{AUTH}/me")).status_code == 200

    file.unlink()
    async with open_api(settings, database) as again:
        assert not file.exists(), "there was an admin already"
        assert (await again.sign_in(ADMIN, password))["access_token"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"admin_password": "changeme"}, "API_ADMIN_PASSWORD is not good enough"),
        ({"admin_password": None}, "API_ADMIN_PASSWORD_FILE"),
        ({"signing_keys": "env:NO_SUCH_KEY"}, "NO_SUCH_KEY"),
    ],
)
async def test_a_first_start_without_good_secrets_is_refused_with_the_remedy(
    stack: Stack, database: TrialDatabase, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(Fatal, match=re.escape(said)) as refused:
        async with open_api(settings_for(stack, database, tmp_path, **options), database):
            pass
    assert "changeme" not in str(refused.value)
    assert await database.fetch_value("SELECT count(*) FROM users") == 0
