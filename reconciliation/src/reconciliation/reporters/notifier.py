"""Tells people of a job's end: by mail, in Slack, by webhook.

A channel that fails hurts neither the job nor the other channels.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from cdc_shared.errors import CdcError, Transient, shown
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.reconciliation import Channel, EmailChannel, Notifications, SlackChannel, WebhookChannel
from cdc_shared.security.references import resolve_reference
from cdc_shared.security.secret_provider import Secret, SecretProvider
from reconciliation.reporters import messages
from reconciliation.reporters.mail_sender import send_mail
from reconciliation.reporters.news import JobNews, is_news
from reconciliation.reporters.notification_settings import NotificationSettings
from reconciliation.reporters.webhook_sender import AskedToWait, open_client, post_json, signature_headers

FIRST_WAIT_S: Final = 1.0
MAX_WAIT_S: Final = 30.0
GIVE_UP_AFTER_S: Final = 180.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one message. `error`: why it was given up; None when it was taken."""

    kind: str
    attempts: int
    error: str | None


class Notifier:
    """Sends each message with retries, all channels at once. Used from one event loop; `close` when it is over."""

    def __init__(
        self,
        settings: NotificationSettings,
        providers: Mapping[str, SecretProvider],
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`providers` resolve what channels and settings refer to, for each message again: secrets are replaced."""
        self._settings = settings
        self._providers = providers
        self._http = open_client(transport)
        self._sleep = sleep
        self._clock = clock

    async def tell(self, notifications: Notifications, news: JobNews) -> Sequence[Delivery]:
        """Send the news to every channel, if it is news to them. Raises nothing: failures are logged and returned.

        Takes at most about `GIVE_UP_AFTER_S`; cancelled, it leaves off.
        """
        if not notifications.channels or not is_news(notifications.on, news):
            return []
        return await asyncio.gather(*(self._deliver(channel, news) for channel in notifications.channels))

    async def close(self) -> None:
        """Let the connections go."""
        await self._http.aclose()

    async def _deliver(self, channel: Channel, news: JobNews) -> Delivery:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Transient),
            wait=_wait_s,
            stop=stop_after_delay(GIVE_UP_AFTER_S),
            sleep=self._sleep,
            reraise=True,
        )
        told = {"job": news.job_id, "pipeline": news.pipeline, "channel": channel.kind}
        error: str | None = None
        try:
            await retrying(self._send, channel, news)
        except CdcError as failed:
            error = str(failed)
            log.error("a notification was not delivered", **told, reason=error)
        except Exception as failed:
            error = shown(failed)
            log.exception("a notification was not delivered", **told)
        else:
            log.info("told of a job's end", **told)
        return Delivery(channel.kind, int(retrying.statistics.get("attempt_number", 1)), error)

    async def _send(self, channel: Channel, news: JobNews) -> None:
        link = self._settings.api_url
        match channel:
            case EmailChannel():
                mail = messages.email(news, self._settings.smtp_from, channel.to, link)
                await send_mail(mail, self._settings, await self._secret(self._settings.smtp_password))
            case SlackChannel():
                url = await self._address(channel.url)
                await post_json(self._http, channel.url, url, messages.slack_message(news, link), {})
            case WebhookChannel():
                url = await self._address(channel.url)
                body = messages.webhook_body(news, link)
                secret = await self._secret(self._settings.webhook_secret)
                headers = signature_headers(secret, f"{news.job_id}.{news.state.value}", int(self._clock()), body)
                await post_json(self._http, channel.url, url, body, headers)

    async def _address(self, reference: str) -> Secret:
        return await asyncio.to_thread(resolve_reference, reference, self._providers)

    async def _secret(self, reference: str | None) -> Secret | None:
        return None if reference is None else await self._address(reference)


_BACKOFF: Final = wait_exponential_jitter(initial=FIRST_WAIT_S, max=MAX_WAIT_S)


def _wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(_BACKOFF(state), error.wait_s) if isinstance(error, AskedToWait) else _BACKOFF(state)
