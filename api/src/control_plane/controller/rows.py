"""What a round starts from, and what is to be stored after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cdc_shared.models.common import PipelineSpec
from control_plane.models.operation import OperationState
from control_plane.models.pipeline import Condition, Desired, PipelineRecord
from control_plane.repositories.operation_repo import OperationRecord


@dataclass(frozen=True, slots=True)
class PipelineRow:
    """A pipeline as people want it, and what was last known of it."""

    record: PipelineRecord
    spec: PipelineSpec
    """As stored; without the version of its rules."""
    operation: OperationRecord | None
    """The one whose turn it is."""

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def desired(self) -> Desired:
        return self.record.desired

    @property
    def is_ours(self) -> bool:
        return self.record.is_outside


@dataclass(frozen=True, slots=True)
class OperationUpdate:
    """How far the operation is now."""

    state: OperationState
    message: str = ""
    memory: Mapping[str, Any] | None = None
    """What the next step needs; None: as before, because this one went wrong."""
    holds_connector: bool = False
    error: str | None = None
    next_attempt_in_s: float | None = None
    """After a step that went wrong."""
    removes_pipeline: bool = False


@dataclass(frozen=True, slots=True)
class Round:
    """What one round has found and done."""

    conditions: tuple[Condition, ...]
    is_reached: bool
    """Whether the pipeline is what it should be."""
    again_in_s: float
    """When to look again, if nothing happens before."""
    operation: OperationUpdate | None = None
    is_published: bool = False
    """Whether writers have the spec as it is in Postgres."""
    rules_version: int | None = None
    """Of the published spec's rules."""
