"""Kafka Connect's REST interface: what the platform needs of it.

Every failure is `Transient` (Connect is away, rebalancing, or timed out) or `Fatal` with the remedy. No message and no
trace holds a secret: configurations only name them (`connector_secrets`), but Connect puts the values in before it
checks and starts a connector, and repeats them in its own error texts.
"""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import httpx

from cdc_shared.errors import CdcError, Fatal, Transient
from cdc_shared.logging.redaction import redact_text

REQUEST_TIMEOUT_S = 100.0  # Connect answers a slow request (a validation that waits for the source) after its own 90 s
POLL_S = 0.5
TOPIC_PREFIX = "topic.prefix"
"""The setting of a connector that is its pipeline's name, and begins the names of its topics."""
# After a configuration change the state of the tasks before it may be reported for a moment.
FAILED_GRACE_S = 3.0
MAX_DETAIL_CHARS = 600
_STUMBLED = "ConfigValueInfo"
"""In the text of a 500 that Connect 4.3.1 answers instead of a 400, from a null in its own list of errors."""
_STUCK_FENCING = "for this zombie fencing"
"""In the text of every 500 about a connector's offsets since it was deleted, by hand, while its tasks started."""
_UNREACHABLE = "Unable to connect"
"""What Debezium says of a connection string whose servers do not answer, or do not let it in."""


class TaskStatus(NamedTuple):
    id: int
    state: str
    trace: str
    """The Java stack trace of a FAILED task, redacted; else empty."""


class ConnectorStatus(NamedTuple):
    name: str
    state: str
    """RUNNING, PAUSED, STOPPED, FAILED, UNASSIGNED or RESTARTING."""
    trace: str
    tasks: tuple[TaskStatus, ...]

    @property
    def running(self) -> bool:
        return self.state == "RUNNING" and bool(self.tasks) and all(task.state == "RUNNING" for task in self.tasks)

    @property
    def failure(self) -> str | None:
        """The first line of the failed part's trace and its causes; None when nothing has failed."""
        failed = [self.trace] if self.state == "FAILED" else [t.trace for t in self.tasks if t.state == "FAILED"]
        return _causes(failed[0]) if failed else None

    def __str__(self) -> str:
        tasks = ", ".join(f"task {task.id} {task.state}" for task in self.tasks) or "no task"
        return f"connector {self.name} {self.state}, {tasks}"


class ConnectorView(NamedTuple):
    """A connector as Connect has it: its configuration as it was put, and what was last heard of it."""

    config: Mapping[str, str]
    """Without `name`, which Connect adds."""
    status: ConnectorStatus


Hide = Callable[[str, str], str]
"""(name of the connector, text) → the text without secrets."""


class ConnectClient:
    """A client of one Connect cluster, at the URL of any of its workers. Not thread-safe; close it when done."""

    def __init__(
        self,
        base_url: str,
        transport: httpx.BaseTransport | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
        hide: Hide = lambda _, text: redact_text(text),
    ) -> None:
        """`transport` takes the network's place in tests; `timeout_s` is for each answer.

        `hide` is for what is shown of Connect's texts: `ConnectorSecrets.hide` where the secrets are known.
        """
        self._base_url = base_url.rstrip("/")
        self._hide = hide
        self._http = httpx.Client(base_url=self._base_url, timeout=timeout_s, transport=transport)

    def plugins(self) -> list[str]:
        """Class names of the connectors that the worker has."""
        return [plugin["class"] for plugin in self._request("GET", "/connector-plugins", "list connector plugins")]

    def connectors(self) -> dict[str, ConnectorView]:
        """Every connector, in one request. One that was made a moment ago may be missing: Connect has no status yet."""
        answer = self._request("GET", "/connectors?expand=info&expand=status", "list connectors")
        return {
            name: ConnectorView(_without_name(told["info"]["config"]), self._status(name, told["status"]))
            for name, told in answer.items()
            if "info" in told and "status" in told
        }

    def create_stopped(self, name: str, config: Mapping[str, str]) -> None:
        """Create the connector in the state STOPPED: it reads nothing before `resume`. `Transient` when it is there."""
        body = {"name": name, "config": dict(config), "initial_state": "STOPPED"}
        self._configure("POST", "/connectors", f"create connector {name}", body, name, config)

    def put_config(self, name: str, config: Mapping[str, str]) -> None:
        """Create the connector or change its configuration; an equal one restarts nothing that runs.

        Raises `Fatal` also for a connector that writes to other topics: only its name is the same.
        """
        what = f"configure connector {name}"
        current = self._request("GET", _path(name, "/config"), what, absent_ok=True, connector=name)
        if current is not None and _without_name(current) == dict(config):
            return
        if current is not None and current.get(TOPIC_PREFIX) != config.get(TOPIC_PREFIX):
            raise Fatal(
                f"{what}: there is one of that name whose {TOPIC_PREFIX} is another, so it belongs to somebody else; "
                "choose another name for the pipeline, or delete that connector if nobody needs it"
            )
        self._configure("PUT", _path(name, "/config"), what, dict(config), name, config)

    def is_somebody_elses(self, name: str) -> bool:
        """Whether there is a connector of that name which is no pipeline's: it has other topics, or none."""
        what = f"read the configuration of connector {name}"
        current = self._request("GET", _path(name, "/config"), what, absent_ok=True, connector=name)
        return current is not None and current.get(TOPIC_PREFIX) != name

    def validate(self, name: str, config: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
        """What Connect and the connector's plugin have to say against a configuration: setting → messages.

        Nothing is stored. The plugin may connect to the source for it. `Fatal` when the worker has no such plugin.
        """
        plugin = quote(config["connector.class"], safe="")
        path, what = f"/connector-plugins/{plugin}/config/validate", f"validate the configuration of connector {name}"
        answer = self._request("PUT", path, what, json={**config, "name": name}, connector=name)
        told = [each["value"] for each in answer["configs"] if each["value"]]  # some have a definition alone
        return {
            each["name"]: tuple(self._hide(name, text) for text in each["errors"]) for each in told if each["errors"]
        }

    def status(self, name: str) -> ConnectorStatus | None:
        """What Connect last heard of the connector; None when there is none of that name (yet)."""
        what = f"read status of connector {name}"
        answer = self._request("GET", _path(name, "/status"), what, absent_ok=True, connector=name)
        return None if answer is None else self._status(name, answer)

    def wait_running(
        self,
        name: str,
        timeout_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> ConnectorStatus:
        """Wait until the connector and at least one task run, and none has failed; its status then.

        Raises `Fatal` with the reason when a part has failed and stays so, `Transient` with the last status seen when
        `timeout_s` has passed. Connect being away meanwhile is waited out.
        """
        deadline_s = clock() + timeout_s
        failed_since_s: float | None = None
        seen = "nothing was reported yet"
        while True:
            status = None
            try:
                status = self.status(name)
                seen = str(status) if status else f"there is no connector {name}"
            except Transient as error:
                seen = str(error)
            if status is not None and status.running:
                return status
            failure = status.failure if status is not None else None
            if failure is None:
                failed_since_s = None
            else:
                failed_since_s = clock() if failed_since_s is None else failed_since_s
                if clock() - failed_since_s >= FAILED_GRACE_S:
                    raise Fatal(
                        f"connector {name} has failed: {failure}; correct the cause, then restart the connector"
                    )
            if clock() >= deadline_s:
                raise Transient(f"connector {name} does not run after {timeout_s:.0f} s: {seen}")
            sleep(POLL_S)

    def restart(self, name: str, *, only_failed: bool = True) -> None:
        """Restart the connector and its tasks: what has failed of them, or all."""
        path = _path(name, f"/restart?includeTasks=true&onlyFailed={str(only_failed).lower()}")
        self._request("POST", path, f"restart connector {name}", connector=name)

    def stop(self, name: str, timeout_s: float) -> None:
        """Stop the connector and its tasks, and wait until they have ended; it keeps its configuration and offsets."""
        self.request_stop(name)
        deadline_s = time.monotonic() + timeout_s
        while (status := self.status(name)) is None or status.state != "STOPPED" or status.tasks:
            if time.monotonic() >= deadline_s:
                raise Transient(f"connector {name} has not stopped after {timeout_s:.0f} s: {status}")
            time.sleep(POLL_S)

    def request_stop(self, name: str) -> None:
        """As `stop`, but returns before the tasks have ended."""
        self._request("PUT", _path(name, "/stop"), f"stop connector {name}", connector=name)

    def pause(self, name: str) -> None:
        """Have the connector read nothing more, its tasks ready to go on. Returns before they have paused."""
        self._request("PUT", _path(name, "/pause"), f"pause connector {name}")

    def resume(self, name: str) -> None:
        """Start a stopped or paused connector again."""
        self._request("PUT", _path(name, "/resume"), f"resume connector {name}", connector=name)

    def offsets(self, name: str) -> list[dict[str, Any]]:
        """The connector's committed positions in its source, one for each part of it; none before the first."""
        what = f"read the offsets of connector {name}"
        answer = self._request("GET", _path(name, "/offsets"), what, connector=name)
        return [each["offset"] for each in answer["offsets"] if each.get("offset")]

    def forget_offsets(self, name: str, timeout_s: float) -> None:
        """Let a stopped connector forget how far it has read: it then begins with a snapshot, as a new one does."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                what = f"forget the offsets of connector {name}"
                self._request("DELETE", _path(name, "/offsets"), what, connector=name)
                return
            except CdcError:  # refused, as a wrong request would be, until the last task's producer is fenced out
                if time.monotonic() >= deadline_s:
                    raise
            time.sleep(POLL_S)

    def delete(self, name: str) -> bool:
        """Remove the connector; False when there was none. Its offsets stay: made again, it goes on from there."""
        what = f"delete connector {name}"
        return self._request("DELETE", _path(name), what, absent_ok=True, connector=name) is not None

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _configure(
        self, method: str, path: str, what: str, body: dict[str, Any], name: str, config: Mapping[str, str]
    ) -> None:
        """Send a configuration. Of one that it refuses, Connect 4.3 says only that it stumbled: then ask it why."""
        try:
            self._request(method, path, what, json=body, connector=name)
        except Transient as error:
            if _STUMBLED not in str(error):
                raise
            refused = self.validate(name, config)
            if not refused:
                raise
            raise _refusal(what, refused) from None

    def _status(self, name: str, told: Mapping[str, Any]) -> ConnectorStatus:
        def trace(part: Mapping[str, Any]) -> str:
            text = str(part.get("trace", ""))
            return self._hide(name, text) if text else ""

        connector = told["connector"]
        tasks = tuple(TaskStatus(task["id"], task["state"], trace(task)) for task in told["tasks"])
        return ConnectorStatus(name, connector["state"], trace(connector), tasks)

    def _request(
        self,
        method: str,
        path: str,
        what: str,
        *,
        json: dict[str, Any] | None = None,
        absent_ok: bool = False,
        connector: str = "",
    ) -> Any:
        """The decoded answer ({} for an empty one), or None for 404 with `absent_ok`."""
        try:
            response = self._http.request(method, path, json=json)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise Fatal(
                f"{what}: {redact_text(self._base_url)} is no URL of Kafka Connect; correct CONNECT_URL"
            ) from error
        except httpx.TransportError as error:
            raise Transient(
                f"{what}: Kafka Connect at {redact_text(self._base_url)}: {error or type(error).__name__}"
            ) from error
        if response.status_code == httpx.codes.NOT_FOUND and not _is_of_connect(response):
            raise Transient(
                f"{what}: {redact_text(self._base_url)} serves nothing of Kafka Connect: it starts; if it stays so, "
                "correct CONNECT_URL"
            )
        if response.status_code == httpx.codes.NOT_FOUND and absent_ok:
            return None
        if response.is_error:
            raise _rejected(what, response, lambda text: self._hide(connector, text))
        try:
            return response.json() if response.content else {}
        except ValueError as error:
            raise Fatal(
                f"{what}: {redact_text(self._base_url)} does not answer as Kafka Connect; correct CONNECT_URL"
            ) from error


def _is_of_connect(response: httpx.Response) -> bool:
    """Whether Connect itself says so. While it starts, its web server alone answers, and knows no connector at all."""
    try:
        return "error_code" in response.json()
    except (ValueError, TypeError):
        return False


def _refusal(what: str, refused: Mapping[str, tuple[str, ...]]) -> CdcError:
    """`Transient` where only the source is away: it may come back."""
    reasons = "; ".join(f"{setting}: {' '.join(' '.join(texts).split())}" for setting, texts in sorted(refused.items()))
    message = f"{what}: refused: {reasons[:MAX_DETAIL_CHARS]}"
    if all(_UNREACHABLE in text and "uthenticat" not in text for texts in refused.values() for text in texts):
        return Transient(message)
    return Fatal(f"{message}; correct the connector's configuration, or the secret that it names")


def _without_name(config: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in config.items() if key != "name"}


def _rejected(what: str, response: httpx.Response, hide: Callable[[str], str]) -> CdcError:
    try:
        detail = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        detail = response.reason_phrase
    detail = " ".join(hide(detail).split())[:MAX_DETAIL_CHARS]
    message = f"{what}: Kafka Connect answered {response.status_code}: {detail}"
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return Fatal(f"{message}; check the credentials for Kafka Connect")
    if response.status_code == httpx.codes.NOT_FOUND:
        return Fatal(f"{message}; make the connector first")
    if response.is_server_error and _STUCK_FENCING in detail:
        return Transient(f"{message}; a fault of Kafka Connect's own: restart its workers")
    # 409: a rebalance is under way. 408, 429 and 5xx: a time-out or a worker that starts or stops.
    if response.status_code in (408, 409, 429) or response.is_server_error:
        return Transient(message)
    return Fatal(f"{message}; correct the connector's configuration")


def _path(name: str, rest: str = "") -> str:
    return f"/connectors/{quote(name, safe='')}{rest}"


def _causes(trace: str) -> str:
    """The first line and the `Caused by` lines of a Java stack trace: what failed and why, without where."""
    lines = trace.strip().splitlines()
    told = [line.strip() for i, line in enumerate(lines) if i == 0 or line.startswith("Caused by:")]
    return " | ".join(told)[:MAX_DETAIL_CHARS] or "no trace was reported"
