"""Channels are tried again when that may help, given up when not, and never say their secrets."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import httpx
import pytest
from structlog.testing import capture_logs

from cdc_shared.models.reconciliation import EmailChannel, JobState, Mode, Notifications, SlackChannel, WebhookChannel
from cdc_shared.security.references import EnvironmentProvider
from reconciliation.reporters.news import JobNews
from reconciliation.reporters.notification_settings import NotificationSettings
from reconciliation.reporters.notifier import GIVE_UP_AFTER_S, Notifier

pytestmark = pytest.mark.unit

SECRET_PATH = "T000/B000/very-secret"
ENVIRON = {
    "SLACK": f"https://hooks.example.com/services/{SECRET_PATH}",
    "HOOK": "https://hook.example.com/x",
    "NO_URL": f"mongodb://user:{SECRET_PATH}@host/db",
    "BAD_URL": f"https://host:{SECRET_PATH}",
    "SIGN": "whsec_" + base64.b64encode(b"0123456789abcdef").decode(),
}
NEWS = JobNews("job-1", "shop", Mode.FULL, JobState.FAILED, "ann", datetime(2026, 1, 1, tzinfo=UTC), error="away")
Answer = Callable[[httpx.Request], httpx.Response]


class Receiver:
    """Answers with these, one after another, the last one again and again; notes what came and how long was waited."""

    def __init__(self, *answers: int | Exception, headers: Mapping[str, str] | None = None) -> None:
        self.answers = list(answers)
        self.headers = headers or {}
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, headers=self.headers, text=SECRET_PATH)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


def tell(receiver: Receiver, *channels, settings: NotificationSettings | None = None, environ=ENVIRON):
    async def run():
        notifier = Notifier(
            settings or NotificationSettings(),
            {"env": EnvironmentProvider(environ)},
            transport=httpx.MockTransport(receiver),
            sleep=receiver.sleep,
            clock=lambda: 1_700_000_000.9,
        )
        try:
            return await notifier.tell(Notifications(channels=channels), NEWS)
        finally:
            await notifier.close()

    return asyncio.run(run())


SLACK = SlackChannel(url="env:SLACK")
HOOK = WebhookChannel(url="env:HOOK")


@pytest.mark.parametrize(
    "first",
    [500, 503, 429, 408, httpx.ConnectError("x"), httpx.ReadTimeout("x"), httpx.RemoteProtocolError("x")],
)
def test_what_may_pass_is_tried_again(first: int | Exception) -> None:
    receiver = Receiver(first, first, 200)
    (delivery,) = tell(receiver, SLACK)
    assert delivery.error is None
    assert delivery.attempts == 3
    assert receiver.waits == sorted(receiver.waits)
    assert receiver.waits[0] >= 1


@pytest.mark.parametrize("answer", [400, 401, 403, 404, 410, 301])
def test_what_will_not_pass_is_given_up_at_once(answer: int) -> None:
    receiver = Receiver(answer)
    (delivery,) = tell(receiver, SLACK)
    assert delivery.error
    assert str(answer) in delivery.error
    assert len(receiver.requests) == 1


def test_a_receiver_may_ask_for_time() -> None:
    receiver = Receiver(429, 200, headers={"Retry-After": "17"})
    assert tell(receiver, SLACK)[0].error is None
    assert receiver.waits == [17]


def test_a_dead_receiver_is_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver(503)
    now = [0.0]

    async def sleep(seconds: float) -> None:
        receiver.waits.append(seconds)
        now[0] += seconds

    receiver.sleep = sleep
    monkeypatch.setattr("tenacity.time.monotonic", lambda: now[0])
    (delivery,) = tell(receiver, SLACK)
    assert delivery.error
    assert "503" in delivery.error
    assert GIVE_UP_AFTER_S <= sum(receiver.waits) < 2 * GIVE_UP_AFTER_S
    assert 5 < delivery.attempts < 20


@pytest.mark.parametrize("answer", [200, 404, 500, httpx.ConnectError(f"https://{SECRET_PATH}")])
@pytest.mark.parametrize("reference", ["env:SLACK", "env:NO_URL", "env:BAD_URL", "env:ABSENT"])
def test_no_secret_is_in_an_error_or_a_log_line(answer, reference: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    receiver = Receiver(answer, 404)
    with capture_logs() as lines:
        deliveries = tell(receiver, SlackChannel(url=reference), WebhookChannel(url=reference))
    for text in (repr(deliveries), repr(lines), caplog.text):
        assert SECRET_PATH not in text
        assert "very-secret" not in text
    if reference != "env:SLACK":
        assert all(each.error for each in deliveries)
        assert not receiver.requests


def test_one_failing_channel_does_not_keep_the_others_from_it() -> None:
    receiver = Receiver(200)
    found = tell(receiver, SlackChannel(url="env:ABSENT"), EmailChannel(to=("a@example.com",)), HOOK)
    assert [each.error is None for each in found] == [False, False, True]
    assert found[1].error == "no mail server is configured: set SMTP_HOST"


def test_a_webhook_is_signed_as_the_specification_says() -> None:
    receiver = Receiver(200)
    assert tell(receiver, HOOK, settings=NotificationSettings(webhook_secret="env:SIGN"))[0].error is None
    (request,) = receiver.requests
    signed = b"job-1.failed.1700000000." + request.content
    expected = base64.b64encode(hmac.new(b"0123456789abcdef", signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    assert request.headers["webhook-id"] == "job-1.failed"
    assert request.headers["webhook-timestamp"] == "1700000000"
    assert json.loads(request.content)["error"] == "away"
    assert request.headers["content-type"] == "application/json"


def test_without_a_secret_there_is_no_signature() -> None:
    receiver = Receiver(200)
    tell(receiver, HOOK)
    assert "webhook-signature" not in receiver.requests[0].headers


def test_nobody_is_told_what_is_no_news() -> None:
    receiver = Receiver(200)
    assert tell(receiver) == []
    assert receiver.requests == []
