"""What people ask of reconciliation: jobs now, schedules for later. The reconciliation service reads Postgres and works
them; nothing here waits for it.
"""

from datetime import datetime
from uuid import UUID

from cdc_shared.models.reconciliation import FINISHED, JobState, Mode, ScheduleConfig
from cdc_shared.scheduling.cron import CronSchedule, InvalidCron
from cdc_shared.scheduling.cron_fields import CronFields
from control_plane.database import Connection
from control_plane.models.pipeline import PipelineRecord
from control_plane.models.reconciliation import Job, JobDetail, NewJob, Wanted
from control_plane.models.reconciliation_schedules import UPCOMING, Schedule
from control_plane.problems import Problem
from control_plane.repositories import pipeline_repo, reconciliation_repo, reconciliation_schedule_repo
from control_plane.services.lifecycle import config_of
from control_plane.services.preconditions import check_etag


async def request_job(connection: Connection, record: PipelineRecord, job: NewJob, by: str) -> Job:
    """Ask for a job.

    Raises `Problem` 422 for a collection that is not captured, 409 while the pipeline has no tables or is being
    deleted.
    """
    await _keep(connection, record, "compare")
    if not record.started:
        raise Problem(
            409, "never_started", f"pipeline {record.name} was never started, so it has no tables: start it first"
        )
    _check_collections(record, job.collections)
    return await reconciliation_repo.insert_job(connection, record.name, job, by)


async def job(connection: Connection, pipeline: str, job_id: UUID) -> JobDetail:
    """A job with its collections. Raises `Problem` 404."""
    found = await reconciliation_repo.find_job(connection, pipeline, job_id)
    if found is None:
        raise no_job(pipeline)
    return JobDetail(**dict(found), runs=await reconciliation_repo.runs(connection, job_id))


async def jobs(
    connection: Connection, pipeline: str, state: JobState | None, mode: Mode | None, before: int | None, limit: int
) -> tuple[list[Job], int | None]:
    """The pipeline's jobs, newest first, and the `before` of the next page."""
    found = await reconciliation_repo.jobs(connection, pipeline, state, mode, before, limit + 1)
    following = found[limit - 1][0] if len(found) > limit else None
    return [each for _, each in found[:limit]], following


async def want(connection: Connection, pipeline: str, job_id: UUID, wanted: Wanted) -> Job:
    """Cancel, pause or resume a job; asking twice is harmless.

    Raises `Problem` 404; 409 for one that has ended, or that is to be cancelled already.
    """
    found = await reconciliation_repo.find_job(connection, pipeline, job_id, lock=True)
    if found is None:
        raise no_job(pipeline)
    if found.state in FINISHED:
        raise Problem(
            409,
            "job_finished",
            f"the job has ended ({found.state}): ask for another one",
            members={"state": found.state},
        )
    if found.wanted is wanted:
        return found
    if found.wanted is Wanted.CANCEL:
        raise Problem(
            409, "job_cancelled", "the job is being cancelled: ask for another one", members={"state": found.state}
        )
    await reconciliation_repo.want(connection, job_id, wanted)
    return found.model_copy(update={"wanted": wanted})


async def create_schedule(
    connection: Connection, record: PipelineRecord, config: ScheduleConfig, by: str, now: datetime
) -> Schedule:
    """Add a schedule. Raises `Problem` 422 for what can never be due, or a collection that is not captured; 409 while
    the pipeline is being deleted.
    """
    await _keep(connection, record, "schedule")
    _check_schedule(record, config)
    return _shown(await reconciliation_schedule_repo.insert(connection, record.name, config, by), now)


async def schedule(connection: Connection, pipeline: str, schedule_id: UUID, now: datetime) -> Schedule:
    """Raises `Problem` 404."""
    found = await reconciliation_schedule_repo.find(connection, pipeline, schedule_id)
    if found is None:
        raise _no_schedule(pipeline)
    return _shown(found, now)


async def schedules(
    connection: Connection, pipeline: str, after: UUID | None, limit: int, now: datetime
) -> tuple[list[Schedule], bool]:
    """The pipeline's schedules by id, those behind `after`, and whether there are more."""
    found = await reconciliation_schedule_repo.page(connection, pipeline, after, limit + 1)
    return [_shown(each, now) for each in found[:limit]], len(found) > limit


async def held_schedule(connection: Connection, pipeline: str, schedule_id: UUID, if_match: str | None) -> Schedule:
    """The schedule, for whoever changes it in this transaction.

    Raises `Problem` 404; 412 when it has changed since `if_match`, 428 without one.
    """
    found = await reconciliation_schedule_repo.find(connection, pipeline, schedule_id, lock=True)
    if found is None:
        raise _no_schedule(pipeline)
    check_etag(found.etag, if_match, f"the schedule has changed since: it has version {found.version} now")
    return found


async def replace_schedule(
    connection: Connection, record: PipelineRecord, held: Schedule, config: ScheduleConfig, by: str, now: datetime
) -> Schedule:
    """Give a schedule that is held another config. The same one again changes nothing.

    Raises what `create_schedule` does.
    """
    _check_schedule(record, config)
    if config == held.config:
        return _shown(held, now)
    return _shown(await reconciliation_schedule_repo.replace(connection, held.id, config, by), now)


async def _keep(connection: Connection, record: PipelineRecord, what: str) -> None:
    """Nobody deletes the pipeline before what is asked for of it is in Postgres: its end then ends that too."""
    if record.deleting or not await pipeline_repo.keep(connection, record.name):
        raise Problem(409, "being_deleted", f"pipeline {record.name} is being deleted: there is nothing to {what}")


def no_job(pipeline: str) -> Problem:
    return Problem(404, "not_found", f"pipeline {pipeline} has no reconciliation job of that id")


def _shown(schedule: Schedule, now: datetime) -> Schedule:
    config = schedule.config
    if not config.enabled:
        return schedule
    try:
        upcoming = CronSchedule(config.cron, config.time_zone).upcoming(now, UPCOMING)
    except InvalidCron:  # a time zone that is no more; it must be possible to see and replace it
        return schedule
    return schedule.model_copy(update={"upcoming": upcoming})


def _check_schedule(record: PipelineRecord, config: ScheduleConfig) -> None:
    try:
        CronFields.parse(config.cron)
    except InvalidCron:
        raise Problem(
            422,
            "invalid_cron",
            "cron is no expression of crontab(5) that ever comes: write five fields, minute hour day-of-month month "
            "day-of-week, each `*`, a number, a-b, */n or a list of these; 0 2 * * * is 2 am",
        ) from None
    try:
        CronSchedule(config.cron, config.time_zone)
    except InvalidCron:
        raise Problem(
            422, "invalid_time_zone", "time_zone is not known: give an IANA name, as Europe/Berlin or UTC"
        ) from None
    _check_collections(record, config.collections)


def _check_collections(record: PipelineRecord, collections: tuple[str, ...] | None) -> None:
    source = config_of(record).source
    strange = sorted({name for name in collections or () if not source.captures(name)})
    if strange:
        raise Problem(
            422,
            "not_captured",
            f"the pipeline does not capture {', '.join(strange)}: correct the name, or the spec first",
        )


def _no_schedule(pipeline: str) -> Problem:
    return Problem(404, "not_found", f"pipeline {pipeline} has no reconciliation schedule of that id")
