"""Pipelines through the API."""

import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote
from uuid import UUID

import httpx

from cdc_shared.errors import Fatal, Transient
from control_plane.client.connection import Connection
from control_plane.client.errors import NotFound
from control_plane.models.monitoring import PipelineHealth, PipelineMetrics
from control_plane.models.operation import UNFINISHED, Operation, OperationState
from control_plane.models.pipeline import (
    ConditionKind,
    ConditionStatus,
    Pipeline,
    PipelineConfig,
    ResetRequest,
    ResyncRequest,
    State,
)
from control_plane.models.preflight import PreflightReport

PATH: Final = "/api/v1/pipelines"
POLL_S: Final = 0.5
ANY_STATE: Final = "*"

_TRUE: Final = ConditionStatus.TRUE
_WELL: Final[Mapping[str, ConditionStatus]] = {
    ConditionKind.RESYNC_NEEDED: ConditionStatus.FALSE,
    ConditionKind.OPLOG_AT_RISK: ConditionStatus.FALSE,
}
"""The conditions of which it is well that they are not so."""


class Tagged(NamedTuple):
    pipeline: Pipeline
    etag: str


class OperationFailed(Fatal):
    """An operation has ended without success; the message is its error."""


class Pipelines:
    """What can be done with pipelines. Every call raises `ApiError` for what the API refuses."""

    def __init__(
        self,
        connection: Connection,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._sleep = sleep

    def list(self, **filters: object) -> Iterator[Pipeline]:
        """All that the user may see and that match the filters (`state`, `desired`, `database`, …), by name."""
        return self._connection.items(Pipeline, PATH, **filters)

    def get(self, name: str) -> Pipeline:
        return self._connection.get(Pipeline, pipeline_path(name))

    def create(self, config: PipelineConfig) -> Pipeline:
        """Add a pipeline, stopped. Raises `Conflict` when there is one of that name."""
        return _pipeline(self._post(PATH, json=config.stored()))

    def tagged(self, name: str) -> Tagged:
        """The pipeline, and what `replace` needs to know that it changes this state of it and no other."""
        response = self._connection.request("GET", pipeline_path(name))
        return Tagged(_pipeline(response), response.headers["ETag"])

    def replace(self, config: PipelineConfig, etag: str) -> Pipeline:
        """Give the pipeline another spec. Raises `Stale` when it has been changed since `etag` was read."""
        request = {"json": config.stored(), "headers": {"If-Match": etag}}
        return _pipeline(self._connection.request("PUT", pipeline_path(config.name), **request))

    def apply(self, config: PipelineConfig) -> Pipeline:
        """Create the pipeline, or bring its spec to this one whatever it was. Repeating it is harmless."""
        try:
            known = self.get(config.name)
        except NotFound:
            return self.create(config)
        return known if known.spec == config else self.replace(config, ANY_STATE)

    def validate(self, config: PipelineConfig) -> PreflightReport:
        """The preflight of a spec: each check with what it found. Nothing is changed."""
        return PreflightReport.model_validate_json(self._post(f"{PATH}/validate", json=config.stored()).content)

    def delete(
        self, name: str, *, keep_tables: bool = True, keep_offsets: bool = False, force: bool = False
    ) -> Operation:
        """Take the pipeline down; `wait_for` the operation to know when it is gone."""
        params = {"keep_tables": keep_tables, "keep_offsets": keep_offsets, "force": force}
        return _operation(self._connection.request("DELETE", pipeline_path(name), params=params))

    def start(self, name: str) -> Pipeline:
        return _pipeline(self._post(f"{pipeline_path(name)}/start"))

    def pause(self, name: str) -> Pipeline:
        return _pipeline(self._post(f"{pipeline_path(name)}/pause"))

    def resume(self, name: str) -> Pipeline:
        return _pipeline(self._post(f"{pipeline_path(name)}/resume"))

    def stop(self, name: str) -> Pipeline:
        return _pipeline(self._post(f"{pipeline_path(name)}/stop"))

    def restart(self, name: str) -> Operation:
        return _operation(self._post(f"{pipeline_path(name)}/restart"))

    def resync(self, name: str, collections: Sequence[str] = (), where: dict[str, Any] | None = None) -> Operation:
        """Have documents read again: all, those of `collections`, or of one those that a MongoDB filter matches."""
        body = ResyncRequest(collections=tuple(collections), filter=where).model_dump(mode="json")
        return _operation(self._post(f"{pipeline_path(name)}/resync", json=body))

    def reset(self, name: str, *, keep_tables: bool = True) -> Operation:
        """Have a stopped pipeline forget how far it has read."""
        body = ResetRequest(keep_tables=keep_tables).model_dump(mode="json")
        return _operation(self._post(f"{pipeline_path(name)}/reset", json=body))

    def status(self, name: str) -> PipelineHealth:
        """How it stands and how it gets on: conditions, snapshot, lag, throughput, watermarks."""
        return self._connection.get(PipelineHealth, f"{pipeline_path(name)}/status")

    def metrics(self, name: str) -> PipelineMetrics:
        """Lag, throughput and errors, of each of its collections and writers."""
        return self._connection.get(PipelineMetrics, f"{pipeline_path(name)}/metrics")

    def operations(self, name: str) -> Iterator[Operation]:
        """What it was asked to do that takes a while, the newest first."""
        return self._connection.items(Operation, f"{pipeline_path(name)}/operations")

    def operation(self, name: str, operation: UUID) -> Operation:
        return self._connection.get(Operation, f"{pipeline_path(name)}/operations/{operation}")

    def wait_until(
        self,
        name: str,
        states: Collection[State],
        within_s: float,
        on_change: Callable[[Pipeline], None] = lambda _: None,
    ) -> Pipeline:
        """The pipeline once it is in one of `states`; `on_change` is told whenever its state or a condition is another.

        Raises `Fatal` with the reason when it has failed, `Transient` when the time is up. What the controller saw
        before this call proves nothing: it may not have come yet to what was asked for.
        """
        deadline, told = self._clock() + within_s, None
        before = self.get(name).status.observed_at
        while True:
            pipeline = self.get(name)
            seen = (pipeline.status.state, pipeline.status.conditions)
            if seen != told:
                told = seen
                on_change(pipeline)
            if pipeline.status.state in states:
                return pipeline
            why = worries(pipeline) or "it is not known why"
            if pipeline.status.state is State.FAILED and pipeline.status.observed_at != before:
                raise Fatal(f"pipeline {name} has failed: {why}")
            if self._clock() > deadline:
                raise Transient(f"pipeline {name} is {pipeline.status.state} after {within_s:.0f} s: {why}")
            self._sleep(POLL_S)

    def wait_for(self, operation: Operation, within_s: float) -> Operation:
        """The operation once it has ended. Raises `OperationFailed`, or `Transient` when the time is up."""
        deadline = self._clock() + within_s
        while True:
            seen = self.operation(operation.pipeline, operation.id)
            if seen.state is OperationState.SUCCEEDED:
                return seen
            if seen.state not in UNFINISHED:
                raise OperationFailed(
                    f"{seen.kind} of pipeline {seen.pipeline} {seen.state}: {seen.error or 'no reason'}"
                )
            if self._clock() > deadline:
                how_far = seen.error or seen.message or seen.state
                raise Transient(f"{seen.kind} of pipeline {seen.pipeline} has not ended in {within_s:.0f} s: {how_far}")
            self._sleep(POLL_S)

    def _post(self, path: str, json: object = None) -> httpx.Response:
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._connection.request("POST", path, json=json, headers=headers)


def worries(pipeline: Pipeline) -> str:
    """What is not well about it: of its conditions, and of the operations at hand; empty when nothing is known."""
    wrong = [each.message for each in pipeline.status.conditions if each.status is not _WELL.get(each.kind, _TRUE)]
    wrong += [f"{each.kind}: {each.error}" for each in pipeline.status.operations if each.error]
    return "; ".join(filter(None, wrong))


def pipeline_path(name: str) -> str:
    """Where a pipeline is, and what belongs to it beneath."""
    return f"{PATH}/{quote(name, safe='')}"


def _pipeline(response: httpx.Response) -> Pipeline:
    return Pipeline.model_validate_json(response.content)


def _operation(response: httpx.Response) -> Operation:
    return Operation.model_validate_json(response.content)
