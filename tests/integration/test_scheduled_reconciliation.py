"""Schedules of reconciliation on a real Postgres, by a clock that the test sets."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from api_database import TrialDatabase

from cdc_shared.models.reconciliation import MissedRun, Mode, Overlap, ScheduleConfig
from reconciliation.database import Database
from reconciliation.scheduler.cron_scheduler import CronScheduler

pytestmark = [pytest.mark.integration, pytest.mark.anyio, pytest.mark.timeout(60)]

BERLIN = ZoneInfo("Europe/Berlin")


class Clock:
    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def __call__(self) -> datetime:
        return self.moment


@pytest.fixture
async def opened(database: TrialDatabase) -> AsyncIterator[Database]:
    opened = await Database.open(database.dsn)
    yield opened
    await opened.close()


async def add(opened: Database, **config: Any) -> uuid.UUID:
    written = ScheduleConfig.model_validate({"cron": "0 2 * * *", **config})
    async with opened.connection() as connection:
        schedule = await connection.fetchval(
            "INSERT INTO reconciliation_schedules (pipeline, config, created_by, updated_by) "
            "VALUES ('shop', $1, 'ada', 'ada') RETURNING id",
            written.model_dump(mode="json"),
        )
    assert isinstance(schedule, uuid.UUID)
    return schedule


async def jobs(opened: Database) -> list[Any]:
    async with opened.connection() as connection:
        return await connection.fetch("SELECT * FROM reconciliation_jobs ORDER BY number")


async def run_through(scheduler: CronScheduler, clock: Clock, until: datetime) -> list[datetime]:
    """Let time pass as the service does, from one look to the next; when jobs were queued."""
    fired = []
    while clock.moment < until:
        if await scheduler.fire_due():
            fired.append(clock.moment)
        wait_s = await scheduler.wait_s()
        assert 0 < wait_s <= 60
        clock.moment += timedelta(seconds=wait_s)
    return fired


async def test_a_daily_schedule_fires_at_2_am_through_both_changes_of_the_clock(opened: Database) -> None:
    await add(opened, time_zone="Europe/Berlin")
    for start, expected in (
        ("2026-03-28T12:00+01:00", ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"]),
        ("2026-10-24T12:00+02:00", ["2026-10-25T02:00:00+02:00", "2026-10-26T02:00:00+01:00"]),
    ):
        clock = Clock(datetime.fromisoformat(start).astimezone(UTC))
        scheduler = CronScheduler(opened, clock)
        async with opened.connection() as connection:
            await connection.execute("UPDATE reconciliation_schedules SET next_fire_at = NULL")
        await scheduler.fire_due()
        # A look shortly before and at each time, and none in between: the service looks once a minute.
        fired = []
        for due in map(datetime.fromisoformat, expected):
            for moment in (due - timedelta(seconds=1), due, due + timedelta(minutes=59)):
                clock.moment = moment.astimezone(UTC)
                fired += [clock.moment.astimezone(BERLIN).isoformat()] if await scheduler.fire_due() else []
        assert fired == expected
    assert len(await jobs(opened)) == 4


async def test_time_passes_as_in_the_service_and_the_job_is_what_the_schedule_says(opened: Database) -> None:
    clock = Clock(datetime(2026, 11, 24, 1, 30, tzinfo=UTC))
    schedule = await add(
        opened,
        collections=["orders"],
        mode=Mode.KEYS,
        overlap=Overlap.WARN,
        options={"documents_per_s": 500},
        notifications={"channels": [{"kind": "email", "to": ["a@example.com"]}], "on": "always"},
    )
    fired = await run_through(CronScheduler(opened, clock), clock, datetime(2026, 11, 24, 3, 0, tzinfo=UTC))
    assert fired == [datetime(2026, 11, 24, 2, 0, tzinfo=UTC)]
    (job,) = await jobs(opened)
    assert (job["pipeline"], job["collections"], job["mode"], job["overlap"]) == ("shop", ["orders"], "keys", "warn")
    assert job["options"]["documents_per_s"] == 500
    assert job["notifications"]["on"] == "always"
    assert (job["schedule_id"], job["warning"], job["state"]) == (schedule, None, "queued")
    async with opened.connection() as connection:
        row = await connection.fetchrow("SELECT last_fired_at, next_fire_at FROM reconciliation_schedules")
    assert row is not None
    assert row["last_fired_at"] == fired[0]
    assert row["next_fire_at"] == datetime(2026, 11, 25, 2, 0, tzinfo=UTC)


async def test_many_services_fire_a_time_once(opened: Database) -> None:
    for _ in range(3):
        await add(opened)
    clock = Clock(datetime(2026, 11, 24, 1, 0, tzinfo=UTC))
    schedulers = [CronScheduler(opened, clock) for _ in range(6)]
    for _ in range(2):
        clock.moment += timedelta(days=1)
        await asyncio.gather(*(each.fire_due() for each in schedulers))
    clock.moment = datetime(2026, 11, 27, 2, 0, 5, tzinfo=UTC)
    await asyncio.gather(*(each.fire_due() for each in schedulers))
    assert len(await jobs(opened)) == 3 * 2


@pytest.mark.parametrize("missed", list(MissedRun))
async def test_times_that_nobody_was_there_for(opened: Database, missed: MissedRun) -> None:
    await add(opened, missed=missed)
    clock = Clock(datetime(2026, 11, 24, 1, 0, tzinfo=UTC))
    scheduler = CronScheduler(opened, clock)
    await scheduler.fire_due()
    clock.moment = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
    await scheduler.fire_due()
    await scheduler.fire_due()
    found = await jobs(opened)
    if missed is MissedRun.SKIP:
        assert found == []
    else:
        assert [job["warning"] for job in found] == [
            "was due at 2026-11-24 02:00 UTC, and 3 times after that, while no reconciliation service ran"
        ]
    clock.moment = datetime(2026, 11, 28, 2, 0, 1, tzinfo=UTC)
    await scheduler.fire_due()
    assert [job["warning"] for job in (await jobs(opened))[len(found) :]] == [None]


async def test_disabled_unreadable_and_changed_schedules(opened: Database) -> None:
    disabled = await add(opened, enabled=False)
    broken = await add(opened)
    async with opened.connection() as connection:
        await connection.execute(
            'UPDATE reconciliation_schedules SET config = config || \'{"time_zone": "Mars/Base"}\' WHERE id = $1',
            broken,
        )
    clock = Clock(datetime(2026, 11, 24, 1, 0, tzinfo=UTC))
    scheduler = CronScheduler(opened, clock)
    await scheduler.fire_due()
    clock.moment += timedelta(hours=1)
    assert await scheduler.fire_due() == []
    assert await scheduler.wait_s() == 60
    async with opened.connection() as connection:
        # As the control plane stores another config.
        await connection.execute(
            "UPDATE reconciliation_schedules SET config = $2, next_fire_at = NULL WHERE id = $1",
            disabled,
            ScheduleConfig(cron="30 * * * *").model_dump(mode="json"),
        )
    assert await scheduler.fire_due() == [], "it fires from the change on, not for the past"
    clock.moment += timedelta(minutes=30)
    assert len(await scheduler.fire_due()) == 1
