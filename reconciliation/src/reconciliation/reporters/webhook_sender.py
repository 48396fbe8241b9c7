"""JSON by HTTP, to addresses that are secrets: no error and no log line says them."""

import base64
import binascii
import hashlib
import hmac
import json
import logging
from collections.abc import Mapping
from typing import Any, Final

import httpx

from cdc_shared.errors import Fatal, Transient
from cdc_shared.security.secret_provider import Secret

HTTP_TIMEOUT_S: Final = 15.0
MAX_RETRY_AFTER_S: Final = 60.0
_TRY_AGAIN: Final = frozenset({408, 425, 429})
_ENCODED_SECRET: Final = "whsec_"  # nosec B105 # how such a secret begins
_ADDRESS_LOGGERS: Final = ("httpx", "httpcore")


class AskedToWait(Transient):
    """The receiver has too much to do, and says for how long (`wait_s`)."""

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


def open_client(transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """Return a client for `post_json`. The libraries' log lines with the addresses are turned off."""
    for name in _ADDRESS_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    return httpx.AsyncClient(
        timeout=HTTP_TIMEOUT_S,
        follow_redirects=False,
        headers={"User-Agent": "cdc-reconciliation"},
        transport=transport,
    )


async def post_json(
    client: httpx.AsyncClient, reference: str, url: Secret, body: Mapping[str, Any], headers: Mapping[str, str]
) -> None:
    """Post the body; any 2xx is success. `reference` is what errors name in place of the URL.

    Raises `Transient` (also `AskedToWait`) or `Fatal`.
    """
    content = json.dumps(body).encode()
    try:
        response = await client.post(
            url.reveal(), content=content, headers={"Content-Type": "application/json", **headers}
        )
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise Fatal(f"what {reference} holds is no URL of a webhook: it begins with https://") from None
    except httpx.TimeoutException:
        raise Transient(f"the webhook at {reference} did not answer within {HTTP_TIMEOUT_S:.0f} s") from None
    except (httpx.HTTPError, ValueError) as error:  # ValueError: a host or a header that cannot be sent
        kind = Transient if isinstance(error, httpx.TransportError) else Fatal
        raise kind(f"the webhook at {reference} cannot be reached ({type(error).__name__})") from None
    _check(response, reference)


def signature_headers(secret: Secret | None, message_id: str, at_s: int, body: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of the Standard Webhooks specification: id, time, and with a secret the signature.

    The id is the same when a message is sent again, so that a receiver can tell. A secret that begins with `whsec_` is
    base64, as that specification has it; another one is taken as it is. Raises `Fatal` when it is no base64.
    """
    headers = {"webhook-id": message_id, "webhook-timestamp": str(at_s)}
    if secret is not None:
        signed = f"{message_id}.{at_s}.{json.dumps(body)}".encode()
        digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def _key(secret: Secret) -> bytes:
    text = secret.reveal()
    if not text.startswith(_ENCODED_SECRET):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(_ENCODED_SECRET), validate=True)
    except binascii.Error:
        raise Fatal(
            "the secret that RECONCILIATION_WEBHOOK_SECRET refers to begins with whsec_ and is no base64"
        ) from None


def _check(response: httpx.Response, reference: str) -> None:
    status = response.status_code
    if response.is_success:
        return
    what = f"the webhook at {reference} answers {status}"
    if status in _TRY_AGAIN or status >= 500:
        wait_s = _retry_after_s(response)
        raise Transient(what) if wait_s is None else AskedToWait(what, wait_s)
    if response.is_redirect:
        raise Fatal(f"{what}, a redirect: have the reference hold the address that it leads to")
    raise Fatal(f"{what}: check that the webhook still exists, and what it accepts")


def _retry_after_s(response: httpx.Response) -> float | None:
    try:
        return min(MAX_RETRY_AFTER_S, max(0.0, float(response.headers["Retry-After"])))
    except (KeyError, ValueError):
        return None
