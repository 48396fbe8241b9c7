"""The client's connection: it signs in by itself, renews, reads pages, repeats what may be repeated, tells errors."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs

import httpx
import pytest
from pydantic import BaseModel

from cdc_shared.errors import Transient
from control_plane.client.connection import Connection
from control_plane.client.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Stale,
    Unauthorized,
    Unavailable,
)
from control_plane.client.session import Password, ServiceToken

pytestmark = pytest.mark.unit

URL = "http://api.test"
TOKEN_LIFE_S = 600


class FakeApi:
    """Signs `ann` in, renews with rotation and ends a session whose refresh token is used twice; else asks `answer`."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self.answer = answer
        self.now_s = 1000.0
        self.slept: list[float] = []
        self.sign_ins = 0
        self.renewals = 0
        self.reused = 0
        self.valid: set[str] = set()
        self.refresh = ""
        self._made = 0
        self._lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            if request.url.path == "/api/v1/auth/token":
                return self._sign_in(parse_qs(request.content.decode()))
            if request.url.path == "/api/v1/auth/refresh":
                return self._renew(json.loads(request.content)["refresh_token"])
            if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.valid:
                return problem(401, "token_expired", "sign in again")
        return self.answer(request)

    def connection(self, credentials: Password | ServiceToken | None = None) -> Connection:
        return Connection(
            URL,
            credentials or Password("ann", "hunter2"),
            transport=httpx.MockTransport(self),
            clock=lambda: self.now_s,
            sleep=self._sleep,
        )

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    def _sign_in(self, form: dict[str, list[str]]) -> httpx.Response:
        if form["username"] != ["ann"] or form["password"] != ["hunter2"]:
            return problem(401, "wrong_credentials", "the name or the password is wrong")
        self.sign_ins += 1
        return self._tokens()

    def _renew(self, refresh: str) -> httpx.Response:
        if refresh != self.refresh:
            self.reused += 1
            return problem(401, "session_ended", "sign in again")
        self.renewals += 1
        return self._tokens()

    def _tokens(self) -> httpx.Response:
        self._made += 1
        access, self.refresh = f"access-{self._made}", f"refresh-{self._made}"
        self.valid = {access}
        return httpx.Response(
            200,
            json={
                "access_token": access,
                "refresh_token": self.refresh,
                "token_type": "bearer",
                "expires_in": TOKEN_LIFE_S,
            },
        )


def problem(status: int, code: str, detail: str, **more: object) -> httpx.Response:
    body = {"type": "about:blank", "title": "", "status": status, "code": code, "detail": detail, "request_id": "r-1"}
    return httpx.Response(status, json={**body, **more})


def fine(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"word": "yes"})


def test_it_signs_in_once_and_renews_before_the_token_expires() -> None:
    api = FakeApi(fine)
    with api.connection() as connection:
        connection.request("GET", "/api/v1/pipelines")
        connection.request("GET", "/api/v1/pipelines")
        assert (api.sign_ins, api.renewals) == (1, 0)

        api.now_s += TOKEN_LIFE_S - 5  # still valid, but not when the request arrives
        connection.request("GET", "/api/v1/pipelines")

    assert (api.sign_ins, api.renewals) == (1, 1)


def test_a_token_revoked_early_is_renewed_and_the_request_sent_again() -> None:
    api = FakeApi(fine)
    with api.connection() as connection:
        connection.request("GET", "/x")
        api.valid.clear()

        assert connection.request("POST", "/x", json={"a": 1}).status_code == 200

    assert api.renewals == 1


def test_a_session_that_has_ended_is_signed_in_anew() -> None:
    api = FakeApi(fine)
    with api.connection() as connection:
        connection.request("GET", "/x")
        api.valid.clear()
        api.refresh = "gone"

        assert connection.request("GET", "/x").status_code == 200

    assert api.sign_ins == 2


def test_threads_renew_once_and_never_use_a_refresh_token_twice() -> None:
    api = FakeApi(fine)
    with api.connection() as connection, ThreadPoolExecutor(8) as pool:
        connection.request("GET", "/x")
        for _ in range(20):
            api.valid.clear()
            answers = list(pool.map(lambda _: connection.request("GET", "/x").status_code, range(8)))
            assert answers == [200] * 8

    assert api.renewals == 20
    assert (api.sign_ins, api.reused) == (1, 0)


def test_a_wrong_password_is_told_and_not_repeated() -> None:
    api = FakeApi(fine)
    wrong = pytest.raises(Unauthorized, match="the name or the password is wrong")
    with api.connection(Password("ann", "guess")) as connection, wrong as caught:
        connection.request("GET", "/x")

    assert caught.value.code == "wrong_credentials"
    assert api.slept == []


def test_a_sign_in_that_has_to_wait_is_repeated_before_a_change_that_was_not_sent_yet() -> None:
    api = FakeApi(fine)
    busy = [problem(503, "dependency_unavailable", "try again")]
    inner = api.__call__

    def at_first_busy(request: httpx.Request) -> httpx.Response:
        return busy.pop() if busy else inner(request)

    connection = Connection(
        URL,
        Password("ann", "hunter2"),
        transport=httpx.MockTransport(at_first_busy),
        clock=lambda: 0.0,
        sleep=api.slept.append,
    )
    with connection:
        assert connection.request("POST", "/x").status_code == 200
    assert len(api.slept) == 1


def test_a_service_token_is_sent_as_it_is_and_its_refusal_is_told() -> None:
    api = FakeApi(fine)
    api.valid = {"cdc_1234"}
    with api.connection(ServiceToken("cdc_1234")) as connection:
        assert connection.request("GET", "/x").status_code == 200
        api.valid = set()
        with pytest.raises(Unauthorized):
            connection.request("GET", "/x")

    assert api.sign_ins == api.renewals == 0


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (412, Stale),
        (418, ApiError),
        (500, ApiError),
        (422, Invalid),
    ],
)
def test_a_problem_is_an_error_of_its_kind_with_what_the_api_said(status: int, kind: type[ApiError]) -> None:
    errors = [{"field": "body.source.database", "message": "is missing"}]
    api = FakeApi(lambda _: problem(status, "a_code", "what is wrong", errors=errors))
    with api.connection() as connection, pytest.raises(kind) as caught:
        connection.request("POST", "/x")

    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code, error.request_id) == (status, "a_code", "r-1")
    assert str(error) == "what is wrong\n  body.source.database: is missing"
    assert not isinstance(error, Transient)


def test_a_page_of_a_proxy_is_an_error_as_well() -> None:
    api = FakeApi(lambda _: httpx.Response(502, text="<html>bad gateway</html>"))
    with api.connection() as connection, pytest.raises(Unavailable, match="answered 502"):
        connection.request("POST", "/x")


def test_what_only_reads_is_repeated_while_the_api_is_away_and_then_told() -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("connection reset", request=request)

    api = FakeApi(away)
    with api.connection() as connection, pytest.raises(Unavailable, match=r"api\.test does not answer \(connection"):
        connection.request("GET", "/x")

    assert 20 < sum(api.slept) <= 30
    assert api.slept[:3] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    ("status", "headers", "repeated"),
    [
        (503, {}, False),  # it may have been done
        (503, {"Idempotency-Key": "k"}, True),
        (429, {}, True),  # it was not even looked at
    ],
)
def test_a_change_is_repeated_only_where_that_cannot_do_it_twice(
    status: int, headers: dict[str, str], repeated: bool
) -> None:
    answers = [problem(status, "later", "try again"), httpx.Response(201, json={})]
    answers[0].headers["Retry-After"] = "7"
    api = FakeApi(lambda _: answers.pop(0))
    with api.connection() as connection:
        if repeated:
            assert connection.request("POST", "/x", headers=headers).status_code == 201
            assert api.slept == [7.0]
        else:
            with pytest.raises(Unavailable):
                connection.request("POST", "/x", headers=headers)


def test_a_change_that_was_never_sent_is_repeated() -> None:
    tries = []

    def starting(request: httpx.Request) -> httpx.Response:
        tries.append(request)
        if len(tries) < 3:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(201, json={})

    api = FakeApi(starting)
    with api.connection() as connection:
        assert connection.request("POST", "/x").status_code == 201
    assert len(tries) == 3


class Word(BaseModel):
    word: str


def test_a_list_is_read_page_by_page_as_it_is_needed() -> None:
    asked: list[httpx.QueryParams] = []

    def pages(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params)
        number = int(request.url.params.get("cursor", "0"))
        following = str(number + 1) if number < 2 else None
        return httpx.Response(200, json={"items": [{"word": f"{number}a"}, {"word": f"{number}b"}], "next": following})

    api = FakeApi(pages)
    with api.connection() as connection:
        words = connection.items(Word, "/x", state="failed", user=None)
        assert [next(words).word, next(words).word] == ["0a", "0b"]
        assert len(asked) == 1
        assert [each.word for each in words] == ["1a", "1b", "2a", "2b"]

    assert dict(asked[0]) == {"limit": "200", "state": "failed"}
    assert dict(asked[2]) == {"limit": "200", "state": "failed", "cursor": "2"}


def test_secrets_are_not_shown() -> None:
    assert "hunter2" not in repr(Password("ann", "hunter2"))
    assert "cdc_1234" not in repr(ServiceToken("cdc_1234"))
