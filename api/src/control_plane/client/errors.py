"""What the API refused, as typed errors: one class for each way that callers react to."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import httpx

from cdc_shared.errors import CdcError, Transient


class FieldError(NamedTuple):
    """One thing that is wrong with a request."""

    field: str
    """Where, as `spec.source.database`; empty when it is the request as a whole."""
    message: str


class ApiError(CdcError):
    """The API answered with a problem (RFC 9457). `code` is stable: programs compare it, people read `detail`."""

    def __init__(
        self,
        detail: str,
        *,
        status: int = 0,
        code: str = "",
        request_id: str = "",
        errors: Sequence[FieldError] = (),
        retry_after_s: float | None = None,
    ) -> None:
        """`status` 0: there was no answer at all."""
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code
        self.request_id = request_id
        """Finds the request in the API's log and in the audit trail."""
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s
        self.was_sent = True
        """False: the request itself never reached the API."""

    def __str__(self) -> str:
        where = "".join(f"\n  {error.field}: {error.message}" for error in self.errors if error.field)
        return f"{self.detail}{where}"

    @classmethod
    def of(cls, response: httpx.Response) -> "ApiError":
        """The error that an answer of status 400 or more stands for. Its body must have been read."""
        body = _problem(response)
        kind = _KINDS.get(response.status_code, ApiError)
        return kind(
            str(body.get("detail") or body.get("title") or f"the API answered {response.status_code}"),
            status=response.status_code,
            code=str(body.get("code", "")),
            request_id=str(body.get("request_id", "")),
            errors=_field_errors(body.get("errors")),
            retry_after_s=_seconds(response.headers.get("Retry-After")),
        )

    @classmethod
    def no_answer(cls, error: httpx.TransportError, url: str) -> "Unavailable":
        """The error of a request to which nothing came back."""
        why = "does not answer in time" if isinstance(error, httpx.TimeoutException) else f"does not answer ({error})"
        unavailable = Unavailable(f"the control plane at {url} {why}")
        unavailable.was_sent = not isinstance(error, _NEVER_SENT)
        return unavailable


class Unauthorized(ApiError):
    """401: signed out, expired, revoked, or a wrong name or password."""


class Forbidden(ApiError):
    """403: signed in, but without the permission, or limited to other pipelines."""


class NotFound(ApiError):
    """404: there is no such thing."""


class Conflict(ApiError):
    """409: its state does not allow it now, or there is one of that name already; `code` tells."""


class Stale(ApiError):
    """412: somebody else changed it since it was read. Read it again and decide."""


class Invalid(ApiError):
    """400 and 422: what was sent cannot be used; `errors` names the fields."""


class Unavailable(ApiError, Transient):
    """429, 502, 503, 504 or no answer: may succeed when tried again, after `retry_after_s` where the API said so."""

    @property
    def did_nothing(self) -> bool:
        """Whether it is certain that the request has changed nothing."""
        return not self.was_sent or self.status == httpx.codes.TOO_MANY_REQUESTS


_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


_KINDS: Final[Mapping[int, type[ApiError]]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: Stale,
    422: Invalid,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    """The problem of an answer; empty for what is none, as a proxy's page."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _field_errors(errors: object) -> list[FieldError]:
    if not isinstance(errors, list):
        return []
    return [
        FieldError(str(each.get("field", "")), str(each.get("message", "")))
        for each in errors
        if isinstance(each, dict)
    ]


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdecimal() else None
