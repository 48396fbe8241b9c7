"""Requests to the API: problems become errors, what may be repeated is repeated, lists are read page by page."""

import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx
from pydantic import BaseModel

from control_plane.client.errors import ApiError, Unavailable
from control_plane.client.session import Password, PasswordAuth, ServiceToken, ServiceTokenAuth

REQUEST_TIMEOUT_S: Final = 60.0
RETRY_FOR_S: Final = 30.0
FIRST_WAIT_S: Final = 0.25
MAX_WAIT_S: Final = 5.0
PAGE_SIZE: Final = 200
_THIS_MACHINE: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_CHANGES_NOTHING: Final = frozenset({"GET", "HEAD"})

M = TypeVar("M", bound=BaseModel)


class Connection:
    """One signed-in user of one control plane. Threads may share it. Close it when done."""

    def __init__(
        self,
        base_url: str,
        credentials: Password | ServiceToken,
        *,
        transport: httpx.BaseTransport | None = None,
        retry_for_s: float = RETRY_FOR_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`transport` takes the network's place in tests. Nothing is sent before the first request."""
        self.base_url = base_url.rstrip("/")
        self.session = PasswordAuth(self.base_url, credentials, clock) if isinstance(credentials, Password) else None
        auth = ServiceTokenAuth(credentials) if isinstance(credentials, ServiceToken) else self.session
        self._http = httpx.Client(
            base_url=self.base_url,
            auth=auth,
            transport=transport,
            timeout=REQUEST_TIMEOUT_S,
            # The environment's proxies lead elsewhere than to this machine.
            trust_env=httpx.URL(self.base_url).host not in _THIS_MACHINE,
        )
        self._retry_for_s = retry_for_s
        self._clock = clock
        self._sleep = sleep

    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The answer, of a status below 400. Raises `ApiError` with the reason otherwise.

        While the API is away or asks to wait, it is sent again, for `retry_for_s`. One that changes something is only
        where that cannot do it twice: it never arrived, was not looked at (429), or carries an idempotency key.
        """
        repeatable = method in _CHANGES_NOTHING or "Idempotency-Key" in (headers or {})
        deadline = self._clock() + self._retry_for_s
        wait_s = FIRST_WAIT_S
        while True:
            try:
                return self._once(method, path, json=json, params=_given(params), headers=headers)
            except Unavailable as error:
                pause_s = error.retry_after_s if error.retry_after_s is not None else wait_s
                if not (repeatable or error.did_nothing) or self._clock() + pause_s >= deadline:
                    raise
                self._sleep(pause_s)
                wait_s = min(2 * wait_s, MAX_WAIT_S)

    def get(self, model: type[M], path: str, **params: object) -> M:
        """What is at `path`."""
        return model.model_validate_json(self.request("GET", path, params=params).content)

    def post(self, model: type[M], path: str, body: BaseModel | None = None) -> M:
        """The answer to `body`, or to a POST without one."""
        json = None if body is None else body.model_dump(mode="json", exclude_unset=True)
        return model.model_validate_json(self.request("POST", path, json=json).content)

    def items(self, model: type[M], path: str, **params: object) -> Iterator[M]:
        """Every item of a list; the pages are fetched as they are needed."""
        cursor: object = None
        while True:
            page = self.request("GET", path, params={"limit": PAGE_SIZE, **params, "cursor": cursor}).json()
            yield from (model.model_validate(item) for item in page["items"])
            cursor = page["next"]
            if cursor is None:
                return

    def lines(self, path: str, **params: object) -> Iterator[str]:
        """The lines of a long answer, as they arrive."""
        try:
            with self._http.stream("GET", path, params=_given(params)) as response:
                if response.is_error:
                    response.read()
                    raise ApiError.of(response)
                yield from response.iter_lines()
        except httpx.TransportError as error:
            raise ApiError.no_answer(error, self.base_url) from error

    def close(self) -> None:
        """Give the connections back; the session stays good until it expires."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _once(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise ApiError.no_answer(error, self.base_url) from error
        if response.is_error:
            raise ApiError.of(response)
        return response


def _given(params: Mapping[str, object] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}
