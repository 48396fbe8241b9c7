"""A job as this process works it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from cdc_shared.models.reconciliation import JobOptions, JobState, Mode, Notifications, Outcome, Overlap


@dataclass(frozen=True, slots=True)
class Claim:
    """This process's hold on a job. Another one that takes the job over has the same id and a greater `attempt`:
    whatever is stored under a claim that has been lost is refused.
    """

    job_id: UUID
    worker: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Job:
    """What was asked for.

    Attributes:
        collections: plain names; None is every collection that has a table.
        repair_id: of the repair whose keys it verifies; None of all other jobs.
    """

    claim: Claim
    number: int
    pipeline: str
    collections: tuple[str, ...] | None
    mode: Mode
    options: JobOptions
    notifications: Notifications
    overlap: Overlap
    repair_id: UUID | None
    requested_by: str
    requested_at: datetime
    warning: str | None = None

    @property
    def id(self) -> UUID:
        return self.claim.job_id


@dataclass(frozen=True, slots=True)
class Run:
    """One collection of a job. Its id stays the same however often the job is taken up again."""

    id: UUID
    database: str
    collection: str
    state: JobState
    outcome: Outcome | None = None
    error: str | None = None
    started_at: datetime | None = None


def job_of(row: Mapping[str, Any]) -> Job:
    """Read a row of `reconciliation_jobs` that is claimed."""
    collections = row["collections"]
    return Job(
        claim=Claim(row["id"], row["worker"], row["attempts"]),
        number=row["number"],
        pipeline=row["pipeline"],
        collections=None if collections is None else tuple(collections),
        mode=Mode(row["mode"]),
        options=JobOptions.model_validate(row["options"]),
        notifications=Notifications.model_validate(row["notifications"]),
        overlap=Overlap(row["overlap"]),
        repair_id=row["repair_id"],
        requested_by=row["requested_by"],
        requested_at=row["requested_at"],
        warning=row["warning"],
    )


def run_of(row: Mapping[str, Any]) -> Run:
    """Read a row of `reconciliation_runs`."""
    return Run(
        row["id"],
        row["database"],
        row["collection"],
        JobState(row["state"]),
        Outcome(row["outcome"]) if row["outcome"] else None,
        row["error"],
        row["started_at"],
    )
