"""A pipeline that is run through the API, whose controller drives the real parts, as users have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from api_app import Api, open_api, settings_for
from api_database import TrialDatabase
from mongo_pipeline import CONNECTOR_TEMPLATE, MongoPipeline
from stack_endpoints import Stack
from waiting import wait_until

from cdc_shared.settings import KafkaSettings
from control_plane.permissions import Role
from control_plane.settings import Settings

PIPELINES: Final = "/api/v1/pipelines"
STATE_TIMEOUT_S: Final = 60.0


class ApiThread:
    """The control plane, its controller included, in a thread with an event loop of its own."""

    def __init__(self, portal: BlockingPortal, api: Api) -> None:
        self.portal = portal
        self._client: httpx.AsyncClient = portal.call(lambda: api.signed_in(Role.OPERATOR))

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request of an operator; its answer, whatever the status."""
        return self.portal.call(lambda: self._client.request(method, path, **options))


def api_settings(stack: Stack, database: TrialDatabase, directory: Path, specs_topic: str) -> Settings:
    """Of a control plane on these parts that publishes to `specs_topic`. Processes that share them share its users."""
    settings = settings_for(
        stack,
        database,
        directory,
        controller=True,
        connect_secrets_dir=stack.connect_secrets_dir,
        connector_template=CONNECTOR_TEMPLATE,
    )
    return replace(settings, kafka=KafkaSettings(bootstrap_servers=stack.kafka, pipelines_topic=specs_topic))


@contextmanager
def running_api(settings: Settings, database: TrialDatabase) -> Iterator[ApiThread]:
    """The control plane with its controller; stopped at the end. Several may run at once."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_api(settings, database)) as api,
    ):
        yield ApiThread(portal, api)


class ManagedPipeline(MongoPipeline):
    """Made, moved and deleted through the API. Its writer runs from the beginning, and knows no pipeline yet."""

    api: ApiThread
    settings: Settings
    """Of its API."""
    stop_api: Callable[[], None]
    """Stops the API that it was made with, its controller too."""

    @property
    def path(self) -> str:
        """Its resource."""
        return f"{PIPELINES}/{self.name}"

    def create(self) -> None:
        """Make it; it is stopped."""
        body = self.spec.model_dump(mode="json", exclude={"desired": True, "quality": {"version"}})
        answer = self.api.request("POST", PIPELINES, json=body)
        assert answer.status_code == 201, answer.text

    def ask(self, move: str, **body: Any) -> dict[str, Any]:
        """Ask for a move or an operation; the answer's body."""
        answer = self.api.request("POST", f"{self.path}/{move}", **({"json": body} if body else {}))
        assert answer.status_code in (200, 202), f"{move}: {answer.text}"
        content: dict[str, Any] = answer.json()
        return content

    def delete(self, **query: Any) -> None:
        """Ask for its deletion."""
        answer = self.api.request("DELETE", self.path, params=query)
        assert answer.status_code == 202, answer.text

    def look(self) -> dict[str, Any] | None:
        """The pipeline as the API gives it; None when there is none."""
        answer = self.api.request("GET", self.path)
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json()
        return content

    def state(self) -> str:
        """What it is called; `gone` when there is none."""
        found = self.look()
        return "gone" if found is None else str(found["status"]["state"])

    def await_state(self, state: str, timeout_s: float = STATE_TIMEOUT_S) -> None:
        """Wait until it is called so. Raises AssertionError with its conditions and operations."""
        try:
            wait_until(lambda: self.state() == state, timeout_s, f"{self.name} is {state}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.look()}\n{self.operations()}") from None

    def operations(self) -> list[dict[str, Any]]:
        """Its operations, the newest first; also once it is deleted."""
        items: list[dict[str, Any]] = self.api.request("GET", f"{self.path}/operations").json().get("items", [])
        return items

    def conditions(self) -> dict[str, tuple[str, str]]:
        """Kind → status and reason."""
        found = self.look()
        assert found is not None, f"there is no pipeline {self.name}"
        return {each["kind"]: (each["status"], each["reason"]) for each in found["status"]["conditions"]}


@contextmanager
def managed_pipeline(
    stack: Stack, name: str, root: str, directory: Path, database: TrialDatabase
) -> Iterator[ManagedPipeline]:
    """A pipeline to be made, with the API that runs it and its writer; whatever of it is left is removed."""
    with ExitStack() as cleanup:
        pipeline = ManagedPipeline(stack, name, root, directory / name)
        cleanup.callback(pipeline.close)
        pipeline.start_writer()
        api = cleanup.enter_context(ExitStack())
        pipeline.settings = api_settings(stack, database, directory, pipeline.specs_topic)
        pipeline.api = api.enter_context(running_api(pipeline.settings, database))
        pipeline.stop_api = api.close
        yield pipeline
