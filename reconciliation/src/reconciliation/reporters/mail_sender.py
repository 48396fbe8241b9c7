"""Mail by SMTP."""

import ssl
from email.message import EmailMessage
from typing import Final

import aiosmtplib

from cdc_shared.errors import CdcError, Fatal, Transient
from cdc_shared.logging.redaction import redact_text
from cdc_shared.security.secret_provider import Secret
from reconciliation.reporters.notification_settings import NotificationSettings
from reconciliation.reporters.visible_text import shortened, visible

SMTP_TIMEOUT_S: Final = 15.0
"""For connecting, and for each answer."""
_ANSWER_LENGTH: Final = 200


async def send_mail(mail: EmailMessage, settings: NotificationSettings, password: Secret | None) -> None:
    """Hand the mail to the server. Raises `Transient` or `Fatal`; neither says the password.

    Raises `Fatal` as well when the server took it for some of the recipients only: the message says for whom not.
    """
    if settings.smtp_host is None:
        raise Fatal("no mail server is configured: set SMTP_HOST")
    server = f"the mail server {settings.smtp_host}:{settings.port}"
    try:
        refused, _ = await aiosmtplib.send(
            mail,
            hostname=settings.smtp_host,
            port=settings.port,
            username=settings.smtp_user,
            password=password.reveal() if password else None,
            use_tls=settings.smtp_security == "tls",
            start_tls=settings.smtp_security == "starttls",
            timeout=SMTP_TIMEOUT_S,
        )
    except (aiosmtplib.SMTPException, OSError) as error:
        raise _told(error, server) from None  # not its chain: it may hold what was sent
    if refused:
        raise Fatal(f"{server} refused {', '.join(sorted(refused))}; the other recipients have the mail")


def _told(error: Exception, server: str) -> CdcError:
    if _is_untrusted(error):
        return Fatal(f"the certificate of {server} is not trusted: install its CA, or correct SMTP_HOST")
    match error:
        case aiosmtplib.SMTPAuthenticationError():
            kind = Transient if error.code < 500 else Fatal
            return kind(f"{server} refuses the sign-in ({error.code}): check SMTP_USER and SMTP_PASSWORD")
        case aiosmtplib.SMTPRecipientsRefused():
            names = ", ".join(sorted(each.recipient for each in error.recipients))
            kind = Transient if all(each.code < 500 for each in error.recipients) else Fatal
            return kind(f"{server} refuses the recipients {names}")
        case aiosmtplib.SMTPConnectError() | aiosmtplib.SMTPTimeoutError() | aiosmtplib.SMTPServerDisconnected():
            return Transient(f"{server} does not answer, or not in the way of SMTP_SECURITY")
        case aiosmtplib.SMTPResponseException():
            kind = Transient if error.code < 500 else Fatal
            return kind(f"{server} does not take the mail: {error.code} {_answer(error.message)}")
        case OSError():
            return Transient(f"{server} does not answer")
    # The library's own words: what the server does not offer, STARTTLS or a sign-in.
    return Fatal(f"{server}: {_answer(str(error))} Check SMTP_SECURITY and SMTP_USER.")


def _answer(text: str) -> str:
    return shortened(redact_text(visible(text)), _ANSWER_LENGTH)


def _is_untrusted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
