"""Reconciliation as the API takes and shows it: jobs, what they found, what is verified.

Repairs are in `models.repairs`, schedules in `models.reconciliation_schedules`. Who may read reconciliation sees
documents as the tables hold them: what the rules mask is masked.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from cdc_shared.models.reconciliation import (
    Collections,
    DifferenceKind,
    JobOptions,
    JobState,
    Mode,
    Notifications,
    Outcome,
    Overlap,
)
from cdc_shared.models.spec_model import SpecModel


class NewJob(SpecModel):
    """What to compare, and how. Nothing said: every document of every collection that has a table."""

    collections: Collections | None = None
    """None is every collection that has a table when the job begins."""
    mode: Mode = Mode.FULL
    overlap: Overlap = Overlap.QUEUE
    """What becomes of a collection that another run is at: its run is skipped, or waits."""
    options: JobOptions = JobOptions()
    notifications: Notifications = Notifications()


class Wanted(StrEnum):
    """What people want of a job; the service follows within a second."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class Job(BaseModel):
    """A job, as the API gives it."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    pipeline: str
    collections: list[str] | None = Field(description="null: all that had a table when it began")
    mode: Mode
    overlap: Overlap
    options: JobOptions
    notifications: Notifications
    state: JobState
    wanted: Wanted = Field(description="what was asked for last; until the service has followed, `state` differs")
    outcome: Outcome | None = Field(description="the worst of its collections; null until it is completed")
    schedule_id: UUID | None = Field(description="the schedule that made it")
    repair_id: UUID | None = Field(description="the repair that it verifies: it compares that one's keys alone")
    attempts: int = Field(description="how many processes have worked on it")
    warning: str | None
    error: str | None = Field(description="why it failed")
    requested_by: str
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RunProgress(BaseModel):
    """How far the phase at hand is."""

    phase: str
    done: int = Field(default=0, description="documents, rows or keys")
    total: int | None = None
    per_s: float = Field(default=0.0, description="since the phase began")
    percent: float | None = None
    seconds_left: float | None = Field(default=None, description="an estimate, at that rate")
    throttled_by: str | None = Field(default=None, description="why it is slower than it could be")


class TimelineEntry(BaseModel):
    """One phase that is over."""

    name: str
    began: datetime
    seconds: float
    detail: str = ""


class RunSummary(BaseModel):
    """The numbers of a run that has ended."""

    mode: Mode
    documents: int = Field(default=0, description="read of the source; mode counts: how many there are")
    rows: int = Field(default=0, description="read of the table; mode counts: how many there are")
    compared: int = Field(default=0, description="keys whose row and document were held against each other")
    sampled: int = Field(default=0, description="of these, also through the independent decoder")
    differences: dict[DifferenceKind, int] = Field(default={}, description="keys by kind")
    settled: int = Field(default=0, description="keys that differed until the writer had come as far")
    uninspected: int = Field(default=0, description="keys beyond `max_differences` that were not looked into")
    generations: int = 0
    rescued_rows: int = Field(default=0, description="rows that hold values in `_cdc_rescued`")
    version: int | None = Field(default=None, description="of the table that was scanned")
    watermark: datetime | None = Field(default=None, description="everything in the source before this was in it")
    verified_through: datetime | None = Field(
        default=None, description="every row was right as of this time of the source; null: not found equal"
    )
    timeline: list[TimelineEntry] = []
    notes: list[str] = Field(default=[], description="what one must know to read the numbers")


class Run(BaseModel):
    """One collection of a job."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    database: str
    collection: str
    state: JobState
    outcome: Outcome | None
    progress: RunProgress | None = Field(description="null: it is not under way")
    summary: RunSummary | None = Field(description="null: it has not ended")
    has_report: bool
    error: str | None
    started_at: datetime | None
    finished_at: datetime | None


class JobDetail(Job):
    """A job and its collections."""

    runs: list[Run] = Field(description="by database and collection; those that the job has come to know of")


class FieldDifference(BaseModel):
    """Where a row and its document do not agree."""

    pointer: str = Field(description="JSON Pointer, in MongoDB's names")
    how: str = Field(description="`value`, `type`, `only_in_source` or `only_in_table`")


class Difference(BaseModel):
    """One key that is not as it should be, or only seems so."""

    run_id: UUID
    database: str
    collection: str
    number: int
    kind: DifferenceKind
    key: str = Field(description="as the table shows it: of a masked `_id` its HMAC")
    can_be_repaired: bool = Field(description="by itself; whether it should be, its kind says")
    explanation: str = Field(description="what it is, and what to do")
    fields: list[FieldDifference]
    document: str | None = Field(description="as its row should be, in Extended JSON, masked by the rules")
    row: str | None = Field(description="as the table has it; of several rows the first")
    rows: int | None = Field(description="how many the table has of the key")
    rules_version: int | None = Field(description="that the row was made by")


class DifferencePosition(NamedTuple):
    """A place in the list of a job's differences."""

    database: str
    collection: str
    number: int


@dataclass(frozen=True, slots=True)
class DifferenceFilter:
    """Which differences a list is of; None does not restrict."""

    kind: DifferenceKind | None = None
    database: str | None = None
    collection: str | None = None


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A report, and where it lies in the lake: `<lake_path>.json`, `.csv` and `.html`; None: only here."""

    run_id: UUID
    report: dict[str, Any]
    lake_path: str | None


class Verification(BaseModel):
    """What is known of one collection's table."""

    model_config = ConfigDict(frozen=True)

    pipeline: str
    database: str
    collection: str
    verified_through: datetime | None = Field(
        description="every row was right as of this time of the source; null: no run was `equal` as yet"
    )
    last_outcome: Outcome | None = Field(
        description="of the last completed run, which may be newer than `verified_through`"
    )
    differences: dict[DifferenceKind, int] = Field(description="keys by kind, of the last completed run")
    checked_at: datetime = Field(description="when that run ended")
    last_job_id: UUID | None = Field(description="that it was part of; null: it is no longer kept")
