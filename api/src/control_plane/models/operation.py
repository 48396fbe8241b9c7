"""Operations: what a pipeline is asked to do that takes more than one step. The controller works them to their end."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class OperationKind(StrEnum):
    RESTART = "restart"
    RESYNC = "resync"
    RESET = "reset"
    DELETE = "delete"


class OperationState(StrEnum):
    PENDING = "pending"
    """Its turn has not come: others were asked for before it, or it waits for the pipeline to run."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Nothing more is tried; `error` says why."""
    CANCELLED = "cancelled"
    """Another one made it pointless: a stop its restart, a deletion everything."""


UNFINISHED: Final = frozenset({OperationState.PENDING, OperationState.RUNNING})


class Operation(BaseModel):
    """One operation as people see it."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    pipeline: str
    kind: OperationKind
    arguments: dict[str, Any]
    """Of a resync `collections` and `filter`, of a reset `keep_tables`, of a deletion `keep_tables`, `keep_offsets` and
    `force`."""
    state: OperationState
    attempts: int = Field(default=0, description="how many times in a row the step at hand has gone wrong")
    message: str | None = Field(default=None, description="how far it is")
    error: str | None = Field(default=None, description="of the last attempt; while unfinished it is tried again")
    requested_by: str
    requested_at: datetime
    started_at: datetime | None = None
    next_attempt_at: datetime | None = None
    finished_at: datetime | None = None
