"""Schedules: when one is due its job is put into the queue, once, however many processes look.

When a schedule is due next stands in its row. Whoever finds it due queues the job and moves the time on in one
transaction, so two services never fire one time twice, and a service that was away knows what it missed.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError

from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.reconciliation import MissedRun, ScheduleConfig
from cdc_shared.scheduling.cron import CronSchedule, InvalidCron
from reconciliation.database import Connection, Database

MISSED_AFTER_S: Final = 60.0
"""A time that is found due later than this was missed."""
LOOK_AGAIN_S: Final = 60.0
"""At the longest: clocks are set, and a notification may be lost."""

log = get_logger(__name__)


class CronScheduler:
    """Fires what is due. `now` is the wall clock."""

    def __init__(self, database: Database, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._now = now

    async def fire_due(self) -> list[UUID]:
        """Queue the jobs of all schedules that are due; their ids. Raises `Transient` without Postgres."""
        now, jobs = self._now(), list[UUID]()
        for schedule in await self._due(now):
            async with self._database.transaction() as connection:
                row = await connection.fetchrow(
                    "SELECT * FROM reconciliation_schedules WHERE id = $1 AND (next_fire_at <= $2 OR "
                    "next_fire_at IS NULL) FOR UPDATE SKIP LOCKED",
                    schedule,
                    now,
                )
                if row is not None:  # else another process has it, or it is gone
                    job = await _move_on(connection, dict(row), now)
                    jobs += [job] if job else []
        return jobs

    async def wait_s(self) -> float:
        """How long nothing will be due, at most `LOOK_AGAIN_S`. Raises `Transient` without Postgres."""
        async with self._database.connection() as connection:
            due = await connection.fetchval(
                "SELECT min(next_fire_at) FROM reconciliation_schedules WHERE next_fire_at < 'infinity'"
            )
        if due is None:
            return LOOK_AGAIN_S
        left_s: float = (due - self._now()).total_seconds()
        return min(LOOK_AGAIN_S, max(0.0, left_s))

    async def _due(self, now: datetime) -> list[UUID]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT id FROM reconciliation_schedules WHERE next_fire_at <= $1 OR next_fire_at IS NULL "
                "ORDER BY next_fire_at NULLS FIRST, id",
                now,
            )
        return [row["id"] for row in rows]


async def _move_on(connection: Connection, row: Mapping[str, Any], now: datetime) -> UUID | None:
    """Say when the schedule, which is held, is due next; if it is due now, queue its job and return that."""
    try:
        config = ScheduleConfig.model_validate(row["config"])
        times = CronSchedule(config.cron, config.time_zone)
    except (ValidationError, InvalidCron) as error:
        reason = str(error) if isinstance(error, InvalidCron) else "its config is not valid"
        log.error("schedule cannot be read, and does not fire", schedule=str(row["id"]), reason=reason)
        await _note(connection, row["id"], "infinity", None)
        return None
    due: datetime | None = row["next_fire_at"]
    if not config.enabled:
        await _note(connection, row["id"], "infinity", None)
        return None
    following = times.next_after(now)
    if due is None:  # It is new or was changed: it fires from now on.
        await _note(connection, row["id"], following, None)
        return None
    is_missed = now - due > timedelta(seconds=MISSED_AFTER_S)
    if is_missed and config.missed is MissedRun.SKIP:
        log.warning("schedule missed its time", schedule=str(row["id"]), due=due.isoformat())
        await _note(connection, row["id"], following, None)
        return None
    await _note(connection, row["id"], following, due)
    job = await _queue(connection, row, config, _late(times, due, now) if is_missed else None)
    log.info("schedule fired", schedule=str(row["id"]), due=due.isoformat(), job=str(job), next=following.isoformat())
    return job


def _late(times: CronSchedule, due: datetime, now: datetime) -> str:
    more = 0
    for each in times.following(due):
        if each > now or more == 1000:
            break
        more += 1
    others = f", and {more} times after that" if more else ""
    return f"was due at {due:%Y-%m-%d %H:%M} UTC{others}, while no reconciliation service ran"


async def _note(
    connection: Connection, schedule: UUID, next_fire_at: datetime | str, last_fired_at: datetime | None
) -> None:
    await connection.execute(
        "UPDATE reconciliation_schedules SET next_fire_at = $2::text::timestamptz, "
        "last_fired_at = coalesce($3, last_fired_at) WHERE id = $1",
        schedule,
        next_fire_at if isinstance(next_fire_at, str) else next_fire_at.isoformat(),
        last_fired_at,
    )


async def _queue(connection: Connection, row: Mapping[str, Any], config: ScheduleConfig, warning: str | None) -> UUID:
    job = await connection.fetchval(
        "INSERT INTO reconciliation_jobs (pipeline, collections, mode, options, notifications, overlap, schedule_id, "
        "warning, requested_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id",
        row["pipeline"],
        None if config.collections is None else list(config.collections),
        config.mode,
        config.options.model_dump(mode="json"),
        config.notifications.model_dump(mode="json"),
        config.overlap,
        row["id"],
        warning,
        f"schedule {row['id']}",
    )
    assert isinstance(job, UUID)  # nosec B101 # RETURNING
    return job
