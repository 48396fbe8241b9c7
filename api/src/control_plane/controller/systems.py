"""What a driver acts on, as it sees it. Everything blocks, and raises `Transient` or `Fatal`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cdc_shared.connect.connect_client import ConnectorView
from cdc_shared.kafka.status_topic import Heard
from cdc_shared.models.common import PipelineSpec
from control_plane.controller.connector import Move
from control_plane.controller.operations.operation import Operation
from control_plane.models.operation import OperationKind
from control_plane.models.pipeline import Condition


class Connectors(Protocol):
    """Kafka Connect."""

    def view(self, name: str) -> ConnectorView | None:
        """The connector as it is, or was a moment ago, but never before what was asked for last."""
        ...

    def move(self, name: str, move: Move, config: Mapping[str, str] | None) -> None:
        """Ask for the move; `config` for those that need one."""
        ...


class ConnectorSetup(Protocol):
    """What a connector needs around it."""

    def config(self, spec: PipelineSpec) -> Mapping[str, str]:
        """What its configuration should be; the secrets that it names are in place."""
        ...

    def prepare(self, spec: PipelineSpec) -> None:
        """Make the topics that it needs from the start."""
        ...

    def settled(self, name: str, config: Mapping[str, str]) -> None:
        """It runs with this configuration: what only an earlier one needed may go."""
        ...


class Specs(Protocol):
    """The topic of specs."""

    def current(self, name: str) -> PipelineSpec | None:
        """What is published; None for nothing, and for what cannot be read."""
        ...

    def publish(self, spec: PipelineSpec, check: Callable[[], None] = lambda: None) -> PipelineSpec:
        """Publish; returns what is published then, its rules counted. An equal one makes ended writers begin again.

        `check` is called right before anything is sent, and keeps it back by what it raises.
        """
        ...


class Writers(Protocol):
    """What the writers report. Does not block, raises nothing."""

    @property
    def trouble(self) -> str | None:
        """Why reports cannot be read now."""
        ...

    def reports(self, pipeline: str) -> Sequence[Heard]:
        """The last report of each writer, the newest first."""
        ...


class Sources(Protocol):
    """What was seen of the pipelines' sources. Does not block, raises nothing."""

    def conditions(self, spec: PipelineSpec) -> Sequence[Condition]:
        """What was found last of the pipeline's source; empty when nothing was yet."""
        ...


@dataclass(frozen=True, slots=True)
class Systems:
    """All of them, and the operations, which have systems of their own."""

    connectors: Connectors
    setup: ConnectorSetup
    specs: Specs
    writers: Writers
    sources: Sources
    operations: Mapping[OperationKind, Operation]
