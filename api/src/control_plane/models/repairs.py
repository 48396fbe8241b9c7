"""Repairs: proposed from what a job found, approved by somebody else, applied and verified by the service."""

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from cdc_shared.models.reconciliation import DifferenceKind, RepairState
from cdc_shared.models.repair_plan import DEFAULT_MAX_KEYS, REPAIRABLE, RepairableKind, RepairPlan
from cdc_shared.models.spec_model import SpecModel

MAX_KEYS: Final = 10_000_000


class NewRepair(SpecModel):
    """What to repair of what a job found. Documents are read again as they are by then: nothing newer is undone."""

    kinds: Annotated[tuple[RepairableKind, ...], Field(min_length=1, max_length=len(REPAIRABLE))] = REPAIRABLE
    max_keys: StrictInt = Field(default=DEFAULT_MAX_KEYS, ge=1, le=MAX_KEYS)
    """When there are more the repair is refused, not cut: somebody should look first."""
    dry_run: StrictBool = True
    """Only tell what would be done."""


class Repair(BaseModel):
    """A repair, as the API gives it."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    pipeline: str
    job_id: UUID = Field(description="the job whose differences are repaired")
    kinds: list[DifferenceKind]
    max_keys: int
    plan: RepairPlan = Field(description="as it was when it was proposed")
    state: RepairState
    proposed_by: str
    proposed_at: datetime
    decided_by: str | None = Field(description="who approved or rejected it")
    decided_at: datetime | None
    progress: dict[str, Any] = Field(description="keys asked for so far, and what the verification found")
    verification_job_id: UUID | None = Field(description="the job that compares its keys again")
    error: str | None
    finished_at: datetime | None


class RepairProposal(BaseModel):
    """What was planned, and, unless it was a dry run, the repair that now waits for approval."""

    dry_run: bool
    plan: RepairPlan
    within_max_keys: bool = Field(description="false: a repair that is not a dry run would be refused")
    repair: Repair | None
