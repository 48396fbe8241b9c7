"""Reconciliation of pipelines, through the API: jobs, what they found, repairs, schedules, what is verified."""

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import quote
from uuid import UUID

from pydantic import BaseModel

from cdc_shared.errors import Transient
from cdc_shared.models.reconciliation import FINISHED, ScheduleConfig
from cdc_shared.storage.report_files import ReportFormat
from control_plane.client.connection import Connection, M
from control_plane.client.pipelines import pipeline_path
from control_plane.models.reconciliation import Difference, Job, JobDetail, NewJob, Verification
from control_plane.models.reconciliation_schedules import Schedule
from control_plane.models.repairs import NewRepair, Repair, RepairProposal

POLL_S: Final = 1.0


class Reconciliation:
    """Proof that tables equal MongoDB, and repair where they do not. `job`, `repair` and `schedule` are ids."""

    def __init__(
        self,
        connection: Connection,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._sleep = sleep

    def run(self, pipeline: str, job: NewJob | None = None) -> Job:
        """Have tables compared; `wait_for` the job. Without `job`: every document of every table."""
        return self._post(Job, f"{_path(pipeline)}/jobs", job or NewJob())

    def jobs(self, pipeline: str, **filters: object) -> Iterator[Job]:
        """The newest first; filters are `state` and `mode`."""
        return self._connection.items(Job, f"{_path(pipeline)}/jobs", **filters)

    def job(self, pipeline: str, job: UUID) -> JobDetail:
        """How it goes, of each of its collections."""
        return self._connection.get(JobDetail, _job(pipeline, job))

    def cancel(self, pipeline: str, job: UUID) -> Job:
        return self._post(Job, f"{_job(pipeline, job)}/cancel")

    def pause(self, pipeline: str, job: UUID) -> Job:
        return self._post(Job, f"{_job(pipeline, job)}/pause")

    def resume(self, pipeline: str, job: UUID) -> Job:
        return self._post(Job, f"{_job(pipeline, job)}/resume")

    def wait_for(self, job: Job, within_s: float, on_change: Callable[[JobDetail], None] = lambda _: None) -> JobDetail:
        """The job once it has ended, however it has: see `state` and `outcome`. `on_change` is told every second while
        it goes on. Raises `Transient` when the time is up.
        """
        deadline = self._clock() + within_s
        while True:
            seen = self.job(job.pipeline, job.id)
            if seen.state in FINISHED:
                return seen
            on_change(seen)
            if self._clock() > deadline:
                raise Transient(
                    f"reconciliation of pipeline {job.pipeline} is {seen.state} after {within_s:.0f} s: is the "
                    "reconciliation service up?"
                )
            self._sleep(POLL_S)

    def differences(self, pipeline: str, job: UUID, **filters: object) -> Iterator[Difference]:
        """What was found, by collection; filters are `kind`, `database` and `collection`."""
        return self._connection.items(Difference, f"{_job(pipeline, job)}/differences", **filters)

    def report(self, pipeline: str, job: UUID, database: str, collection: str, form: ReportFormat = "html") -> bytes:
        """The report of a collection, as the content of a file."""
        path = f"{_job(pipeline, job)}/reports/{quote(database, safe='')}/{quote(collection, safe='')}"
        return self._connection.request("GET", path, params={"format": form}).content

    def plan_repair(self, pipeline: str, job: UUID, repair: NewRepair | None = None) -> RepairProposal:
        """What a repair would do. Nothing is changed."""
        wanted = (repair or NewRepair()).model_copy(update={"dry_run": True})
        return self._post(RepairProposal, f"{_job(pipeline, job)}/repairs", wanted)

    def propose_repair(self, pipeline: str, job: UUID, repair: NewRepair | None = None) -> RepairProposal:
        """Leave a repair for somebody else to approve. Raises `Conflict` when there is nothing, or too much."""
        wanted = (repair or NewRepair()).model_copy(update={"dry_run": False})
        return self._post(RepairProposal, f"{_job(pipeline, job)}/repairs", wanted)

    def repairs(self, pipeline: str, **filters: object) -> Iterator[Repair]:
        """The newest first; `state` filters."""
        return self._connection.items(Repair, f"{_path(pipeline)}/repairs", **filters)

    def repair(self, pipeline: str, repair: UUID) -> Repair:
        """How it stands, how far it is, and what its verification found."""
        return self._connection.get(Repair, f"{_path(pipeline)}/repairs/{repair}")

    def approve(self, pipeline: str, repair: UUID) -> Repair:
        """Have it applied. Raises `Forbidden` for one's own proposal."""
        return self._connection.post(Repair, f"{_path(pipeline)}/repairs/{repair}/approve")

    def reject(self, pipeline: str, repair: UUID) -> Repair:
        """Turn it down, or withdraw one's own."""
        return self._connection.post(Repair, f"{_path(pipeline)}/repairs/{repair}/reject")

    def schedules(self, pipeline: str) -> Iterator[Schedule]:
        return self._connection.items(Schedule, f"{_path(pipeline)}/schedules")

    def schedule(self, pipeline: str, schedule: UUID) -> Schedule:
        """With the next times at which it is due; `etag` names its state."""
        return self._connection.get(Schedule, f"{_path(pipeline)}/schedules/{schedule}")

    def create_schedule(self, pipeline: str, config: ScheduleConfig) -> Schedule:
        return self._post(Schedule, f"{_path(pipeline)}/schedules", config)

    def replace_schedule(self, schedule: Schedule, config: ScheduleConfig) -> Schedule:
        """Give it another config. Raises `Stale` when it has been changed since `schedule` was read."""
        path = f"{_path(schedule.pipeline)}/schedules/{schedule.id}"
        request = {"json": config.model_dump(mode="json"), "headers": {"If-Match": schedule.etag}}
        return Schedule.model_validate_json(self._connection.request("PUT", path, **request).content)

    def delete_schedule(self, schedule: Schedule) -> None:
        """Raises `Stale` when it has been changed since it was read."""
        path = f"{_path(schedule.pipeline)}/schedules/{schedule.id}"
        self._connection.request("DELETE", path, headers={"If-Match": schedule.etag})

    def verifications(self, pipeline: str | None = None) -> Iterator[Verification]:
        """Through when each table is verified: a pipeline's, or all that one may see."""
        path = "/api/v1/reconciliation" if pipeline is None else _path(pipeline)
        return self._connection.items(Verification, f"{path}/verifications")

    def _post(self, model: type[M], path: str, body: BaseModel | None = None) -> M:
        json = None if body is None else body.model_dump(mode="json")
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return model.model_validate_json(self._connection.request("POST", path, json=json, headers=headers).content)


def _path(pipeline: str) -> str:
    return f"{pipeline_path(pipeline)}/reconciliation"


def _job(pipeline: str, job: UUID) -> str:
    return f"{_path(pipeline)}/jobs/{job}"
