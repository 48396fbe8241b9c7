"""Cron expressions: what crontab(5) says, and the nights in which the clock changes."""

import random
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from cdc_shared.scheduling.cron import CronSchedule, InvalidCron

pytestmark = pytest.mark.unit

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def changes_of_the_clock(zone: str) -> list[datetime]:
    """The hours of 2026 in which the zone's offset changes."""
    hours = [at("2026-01-01T00:00:00+00:00") + timedelta(hours=number) for number in range(365 * 24)]
    offsets = [hour.astimezone(ZoneInfo(zone)).utcoffset() for hour in hours]
    return [hours[number] for number in range(1, len(hours)) if offsets[number] != offsets[number - 1]]


def fires(expression: str, zone: str, after: str, count: int) -> list[str]:
    local = ZoneInfo(zone)
    upcoming = CronSchedule(expression, zone).upcoming(at(after), count)
    assert all(moment.tzinfo is UTC for moment in upcoming)
    return [moment.astimezone(local).isoformat(timespec="minutes") for moment in upcoming]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 2 * * *", ["2026-11-24T02:00+00:00", "2026-11-25T02:00+00:00"]),
        # 0 and 7 are Sunday, 1 is Monday: APScheduler counts from Monday = 0.
        ("0 2 * * 0", ["2026-11-29T02:00+00:00", "2026-12-06T02:00+00:00"]),
        ("0 2 * * 7", ["2026-11-29T02:00+00:00", "2026-12-06T02:00+00:00"]),
        ("0 2 * * 1-5", ["2026-11-24T02:00+00:00", "2026-11-25T02:00+00:00"]),
        ("0 2 * * sat,Sun", ["2026-11-28T02:00+00:00", "2026-11-29T02:00+00:00"]),
        ("0 2 * * fri-sun", ["2026-11-27T02:00+00:00", "2026-11-28T02:00+00:00"]),
        ("0 2 * * */3", ["2026-11-25T02:00+00:00", "2026-11-28T02:00+00:00"]),
        # Both fields of days restricted: either is enough.
        ("0 2 25 * 5", ["2026-11-25T02:00+00:00", "2026-11-27T02:00+00:00"]),
        # A field that begins with * restricts nothing by itself.
        ("0 2 */2 * 3", ["2026-11-25T02:00+00:00", "2026-12-09T02:00+00:00"]),
        ("5-10/2,50 23 * nov *", ["2026-11-23T23:05+00:00", "2026-11-23T23:07+00:00"]),
        ("0 0 29 2 *", ["2028-02-29T00:00+00:00", "2032-02-29T00:00+00:00"]),
    ],
)
def test_says_what_crontab_says(expression: str, expected: list[str]) -> None:
    assert fires(expression, "UTC", "2026-11-23T20:30:00+00:00", 2) == expected


def test_is_later_than_the_moment_not_at_it() -> None:
    schedule = CronSchedule("0 2 * * *", "UTC")
    assert schedule.next_after(at("2026-11-24T02:00:00+00:00")) == at("2026-11-25T02:00:00+00:00")
    assert schedule.next_after(at("2026-11-24T01:59:59.999999+00:00")) == at("2026-11-24T02:00:00+00:00")
    assert schedule.next_after(at("2026-11-24T02:00:00.000001+00:00")) == at("2026-11-25T02:00:00+00:00")


def test_a_time_that_the_clock_skips_is_due_once_when_it_goes_on() -> None:
    expected = ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]
    assert fires("30 2 * * *", BERLIN, "2026-03-28T20:00:00+00:00", 2) == expected
    assert fires("15,30 2 * * *", BERLIN, "2026-03-28T20:00:00+00:00", 2) == [expected[0], "2026-03-30T02:15+02:00"]
    assert fires("30 2 * * *", BERLIN, "2026-03-29T01:00:00+00:00", 1) == [expected[1]]


def test_a_time_that_comes_twice_is_due_once() -> None:
    expected = ["2026-10-25T02:00+02:00", "2026-10-26T02:00+01:00"]
    assert fires("0 2 * * *", BERLIN, "2026-10-24T20:00:00+00:00", 2) == expected
    # Asked between the two, and in the second hour.
    assert fires("0 2 * * *", BERLIN, "2026-10-25T00:30:00+00:00", 1) == expected[1:]
    assert fires("30 2 * * *", BERLIN, "2026-10-25T01:10:00+00:00", 1) == ["2026-10-26T02:30+01:00"]


@pytest.mark.parametrize("zone", [BERLIN, "Australia/Lord_Howe", "Antarctica/Troll", "America/St_Johns"])
@pytest.mark.parametrize("minutes", [60, 30])
def test_an_interval_goes_on_through_every_change_of_the_clock(zone: str, minutes: int) -> None:
    expression = "0 * * * *" if minutes == 60 else "*/30 * * * *"
    schedule, gaps = CronSchedule(expression, zone), set[timedelta]()
    for change in changes_of_the_clock(zone):
        upcoming = schedule.upcoming(change - timedelta(hours=4), 8 * 60 // minutes)
        gaps |= {later - earlier for earlier, later in pairwise(upcoming)}
    assert len(changes_of_the_clock(zone)) == 2
    # Lord Howe's clock is set by half an hour: its full hours are then apart by a half more or less.
    uneven = zone == "Australia/Lord_Howe" and minutes == 60
    assert gaps <= ({timedelta(minutes=each) for each in (30, 60, 90)} if uneven else {timedelta(minutes=minutes)})


def test_every_day_has_its_time_once_in_every_zone(rng: random.Random) -> None:
    zones = (BERLIN, "America/New_York", "Australia/Lord_Howe", "Antarctica/Troll", "Asia/Tokyo", "Africa/Casablanca")
    for _ in range(6):
        zone, hour, minute = rng.choice(zones), rng.randrange(24), rng.randrange(60)
        upcoming = CronSchedule(f"{minute} {hour} * * *", zone).upcoming(at("2026-01-01T12:00:00+00:00"), 365)
        days = [moment.astimezone(ZoneInfo(zone)).date() for moment in upcoming]
        assert days == [days[0] + timedelta(days=number) for number in range(365)], (zone, hour, minute)
        assert days[0] in (date(2026, 1, 1), date(2026, 1, 2))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("0 2 * *", "has 4 fields; a cron expression has five: minute, hour, day of month, month, day of week"),
        ("0 0 2 * * *", "has 6 fields"),
        ("60 2 * * *", "minute '60': 60 is not within 0-59"),
        ("0 24 * * *", "hour '24': 24 is not within 0-23"),
        ("0 2 0 * *", "day of month '0': 0 is not within 1-31"),
        ("0 2 * * 8", "day of week '8': 8 is not within 0-7"),
        ("0 2 * * monday", "day of week 'monday': 'monday' is not 0-7 or sun-sat"),
        ("0 2 * foo *", "month 'foo': 'foo' is not 1-12 or jan-dec"),
        ("0 5/6 * * *", "hour '5/6': a step needs a range: write 5-23/6"),
        ("0 9-5 * * *", "hour '9-5': the range 9-5 runs backwards"),
        ("*/0 * * * *", "minute '\\*/0': a step is at least 1"),
        ("*-5 2 * * *", "minute '\\*-5': '\\*-5' is not a range"),
        ("0, 2 * * *", "minute '0,': '' is none of"),
        ("٣ 2 * * *", "minute '٣'"),
        ("0 0 31 2,4 *", "never comes: its months have no day 31"),
    ],
)
def test_a_wrong_expression_is_refused_with_the_field_and_the_remedy(expression: str, message: str) -> None:
    with pytest.raises(InvalidCron, match=message):
        CronSchedule(expression, "UTC")


@pytest.mark.parametrize("zone", ["Berlin", "Europe", "", "../etc/passwd", "/etc/passwd", "UTC+2"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidCron, match="give an IANA name"):
        CronSchedule("0 2 * * *", zone)
