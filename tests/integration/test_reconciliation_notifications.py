"""News of reconciliation arrive: at a real SMTP server with STARTTLS and a sign-in, and at real HTTP servers.

Both fail first. The parts are started here; the running stack is not needed.
"""

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cdc_shared.models.reconciliation import (
    DifferenceKind,
    EmailChannel,
    JobState,
    Mode,
    Notifications,
    Outcome,
    SlackChannel,
    WebhookChannel,
)
from cdc_shared.security.references import EnvironmentProvider
from reconciliation.reporters.news import CollectionNews, JobNews, Verdict
from reconciliation.reporters.notification_settings import NotificationSettings
from reconciliation.reporters.notifier import Delivery, Notifier

pytestmark = pytest.mark.integration

PASSWORD = "correct horse battery staple"
WRONG = CollectionNews(
    "shop",
    "orders",
    JobState.COMPLETED,
    Verdict(Outcome.DIFFERENCES, {DifferenceKind.MISSING: 50}),
    Verdict(Outcome.EQUAL),
)
NEWS = JobNews(
    "0b7e", "shop", Mode.FULL, JobState.COMPLETED, "schedule nightly", datetime(2026, 1, 31, tzinfo=UTC), (WRONG,)
)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(autouse=True)
def _give_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciliation.reporters.notifier.GIVE_UP_AFTER_S", 10.0)


class Mailbox:
    """Takes mail after so many refusals for the moment."""

    def __init__(self, busy_times: int) -> None:
        self.busy_times = busy_times
        self.mails: list[EmailMessage] = []
        self.tries = 0
        self.was_encrypted: list[bool] = []

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, _: Any
    ) -> str:
        if address.startswith("nobody"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.tries += 1
        if self.tries <= self.busy_times:
            return "451 busy, try again"
        self.was_encrypted.append(session.ssl is not None)
        assert isinstance(envelope.content, bytes)
        self.mails.append(BytesParser(policy=policy.default).parsebytes(envelope.content))
        return "250 taken"


@contextmanager
def mail_server(mailbox: Mailbox, certificate: Path | None) -> Iterator[int]:
    """Serve; with a certificate it demands STARTTLS and a sign-in. Yields the port."""
    demands: dict[str, Any] = {}
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)

        def signs_in(*arguments: Any) -> AuthResult:
            given = arguments[-1]
            assert isinstance(given, LoginPassword)
            return AuthResult(success=given.password == PASSWORD.encode(), handled=False)

        demands = {
            "tls_context": context,
            "require_starttls": True,
            "authenticator": signs_in,
            "auth_required": True,
        }
    server = Controller(mailbox, hostname="127.0.0.1", port=free_port(), **demands)
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1 that nobody trusts until told to."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(minutes=5))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


class Hook(ThreadingHTTPServer):
    """Answers with these codes, one after another, then with 200; keeps what it took."""

    daemon_threads = True

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.bodies: list[Any] = []
        self.paths: list[str] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.paths.append(self.path)
                code = hook.codes.pop(0) if hook.codes else 200
                if code == 200:
                    hook.bodies.append(json.loads(body))
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Not on the screen."""

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/T0/B0/secret"


@pytest.fixture
def hook() -> Iterator[Callable[..., Hook]]:
    made: list[Hook] = []

    def make(*codes: int) -> Hook:
        made.append(Hook(*codes))
        return made[-1]

    yield make
    for each in made:
        each.shutdown()
        each.server_close()


def tell(channels: Sequence[Any], settings: NotificationSettings, environ: dict[str, str]) -> Sequence[Delivery]:
    async def run() -> Sequence[Delivery]:
        notifier = Notifier(settings, {"env": EnvironmentProvider(environ)}, sleep=lambda _: asyncio.sleep(0))
        try:
            return await notifier.tell(Notifications(channels=tuple(channels)), NEWS)
        finally:
            await notifier.close()

    return asyncio.run(run())


def smtp(port: int, **more: Any) -> NotificationSettings:
    known = {"smtp_host": "127.0.0.1", "smtp_port": port, "smtp_from": "cdc@example.com", **more}
    return NotificationSettings(**known)


SIGNED_IN = {"smtp_user": "cdc", "smtp_password": "env:MAIL"}
TO = EmailChannel(to=("ann@example.com", "bob@example.com"))


def test_a_mail_arrives_encrypted_and_signed_in_after_the_server_was_busy(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    mailbox = Mailbox(busy_times=2)
    with mail_server(mailbox, certificate) as port:
        (delivery,) = tell([TO], smtp(port, **SIGNED_IN), {"MAIL": PASSWORD})
    assert delivery == Delivery("email", 3, None)
    (mail,) = mailbox.mails
    assert mailbox.was_encrypted == [True]
    assert mail["Subject"] == "[reconciliation] shop: differences"
    assert mail["To"] == "ann@example.com, bob@example.com"
    assert "- shop.orders: 50 missing (before: equal)" in mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]


def test_a_wrong_password_is_not_tried_twice_and_not_told(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    mailbox = Mailbox(0)
    with mail_server(mailbox, certificate) as port:
        (delivery,) = tell([TO], smtp(port, **SIGNED_IN), {"MAIL": "not-the-password"})
    assert delivery.attempts == 1
    assert delivery.error
    assert "refuses the sign-in (535)" in delivery.error
    assert "not-the-password" not in delivery.error
    assert mailbox.mails == []


def test_a_server_that_is_not_trusted_gets_no_password(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with mail_server(Mailbox(0), certificate) as port:
        (delivery,) = tell([TO], smtp(port, **SIGNED_IN), {"MAIL": PASSWORD})
    assert delivery.attempts == 1
    assert delivery.error
    assert "is not trusted" in delivery.error


def test_a_server_without_starttls_gets_nothing(certificate: Path) -> None:
    mailbox = Mailbox(0)
    with mail_server(mailbox, None) as port:
        (delivery,) = tell([TO], smtp(port), {})
        assert delivery.error
        assert "STARTTLS extension not supported" in delivery.error
        (plain,) = tell([TO], smtp(port, smtp_security="none"), {})
    assert plain.error is None
    assert len(mailbox.mails) == 1


def test_refused_recipients_are_named_and_the_others_have_the_mail() -> None:
    mailbox = Mailbox(0)
    with mail_server(mailbox, None) as port:
        settings = smtp(port, smtp_security="none")
        some = EmailChannel(to=("ann@example.com", "nobody@example.com"))
        none = EmailChannel(to=("nobody@example.com",))
        first, second = tell([some, none], settings, {})
    assert first.error
    assert "nobody@example.com; the other recipients have the mail" in first.error
    assert second.error
    assert "refuses the recipients nobody@example.com" in second.error
    assert len(mailbox.mails) == 1


def test_slack_and_a_webhook_that_fail_first_get_the_message(hook: Callable[..., Hook]) -> None:
    slack, webhook = hook(500, 429), hook(503)
    environ = {"SLACK": slack.url, "HOOK": webhook.url}
    channels = [SlackChannel(url="env:SLACK"), WebhookChannel(url="env:HOOK")]
    assert tell(channels, NotificationSettings(), environ) == [Delivery("slack", 3, None), Delivery("webhook", 2, None)]
    (message,), (event,) = slack.bodies, webhook.bodies
    assert message["blocks"][0]["text"]["text"] == ":red_circle: *shop*: differences"
    assert event["collections"][0]["differences"] == {"missing": 50}
    assert slack.paths == ["/services/T0/B0/secret"] * 3


def test_nobody_listens(hook: Callable[..., Hook], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciliation.reporters.notifier.GIVE_UP_AFTER_S", 0.0)
    port = free_port()
    environ = {"HOOK": f"http://127.0.0.1:{port}/secret"}
    first, second = tell([WebhookChannel(url="env:HOOK"), TO], smtp(port, smtp_security="none"), environ)
    assert first.error == "the webhook at env:HOOK cannot be reached (ConnectError)"
    assert second.error
    assert "does not answer" in second.error
