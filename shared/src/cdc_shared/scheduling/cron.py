"""When a cron expression is due in a time zone, through changes of the clock.

APScheduler's trigger says which times of the wall clock an expression names. Which instants those are is decided here,
because its own answer fires a daily 2 am twice in the night when 2 o'clock comes twice, and two times of a skipped hour
at one instant. It also counts the days of the week from Monday = 0, and lets both fields of days restrict each other.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from cdc_shared.scheduling.cron_fields import CronFields, InvalidCron

__all__ = ["CronSchedule", "InvalidCron"]

_LONGEST_REPETITION: Final = timedelta(hours=3)
"""No clock is set back further today (the most is Troll's two hours)."""
_WEEK: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class CronSchedule:
    """The instants that a cron expression names.

    A time that the clock skips is due when the clock goes on (2:30 at 3:00, once). Of a time that comes twice the first
    is due; both where the hour field begins with `*`, which is an interval and not an hour of the day.
    """

    def __init__(self, expression: str, time_zone: str) -> None:
        """Read a crontab(5) expression of five fields and an IANA zone. Raises `InvalidCron`."""
        self._zone = _zone(time_zone)
        self._fields = CronFields.parse(expression)
        self._wall_times = _wall_trigger(self._fields)

    def next_after(self, moment: datetime) -> datetime:
        """The first instant later than `moment` (which knows its zone), in UTC."""
        start = moment.astimezone(self._zone).replace(tzinfo=None)
        earliest: datetime | None = None
        for wall in self._walls(start - _LONGEST_REPETITION if self._repeats_near(moment) else start):
            first = self._instant(wall, fold=0)
            if earliest is not None and first >= earliest:
                return earliest
            for instant in (first, self._instant(wall, fold=1)) if self._fields.every_hour else (first,):
                if instant > moment and (earliest is None or instant < earliest):
                    earliest = instant
        raise InvalidCron("the expression has no further time")  # Past the year 9999.

    def following(self, moment: datetime) -> Iterator[datetime]:
        """Yield all instants later than `moment`, in UTC, without end."""
        while True:
            moment = self.next_after(moment)
            yield moment

    def upcoming(self, moment: datetime, count: int) -> list[datetime]:
        """The first `count` instants later than `moment`, in UTC."""
        return list(islice(self.following(moment), count))

    def _repeats_near(self, moment: datetime) -> bool:
        """Whether times of the wall clock before `moment`'s may still be to come: the clock is set about then."""
        if not self._fields.every_hour:
            return False
        near = (moment - _LONGEST_REPETITION, moment, moment + _LONGEST_REPETITION)
        return len({each.astimezone(self._zone).utcoffset() for each in near}) > 1

    def _walls(self, start: datetime) -> Iterator[datetime]:
        """Times of the wall clock, without a zone, from `start`'s minute on."""
        wall: datetime | None = start.replace(second=0, microsecond=0, tzinfo=UTC)
        while wall is not None and (wall := self._wall_times.get_next_fire_time(None, wall)) is not None:
            yield wall.replace(tzinfo=None)
            wall += timedelta(minutes=1)

    def _instant(self, wall: datetime, fold: int) -> datetime:
        """The instant of a wall-clock time; of one that is skipped, the instant at which the clock goes on."""
        instant = wall.replace(tzinfo=self._zone, fold=fold).astimezone(UTC)
        if instant.astimezone(self._zone).replace(tzinfo=None) == wall:
            return instant
        # Skipped: read with the zone's two offsets it gives an instant on either side of the change.
        after, before = (wall.replace(tzinfo=self._zone, fold=each).astimezone(UTC) for each in (0, 1))
        offset = before.astimezone(self._zone).utcoffset()
        while after - before > timedelta(seconds=1):
            middle = before + (after - before) / 2
            if middle.astimezone(self._zone).utcoffset() == offset:
                before = middle
            else:
                after = middle
        return (before + timedelta(seconds=1)).replace(microsecond=0)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # Not there; not a relative path; a directory, as Europe is.
        raise InvalidCron(f"time zone '{name}' is not known: give an IANA name, as Europe/Berlin or UTC") from None


def _wall_trigger(fields: CronFields) -> BaseTrigger:
    """The expression over a clock that is never set."""
    names = [_WEEK[day] for day in sorted(fields.week_days)]
    days, week_days = ",".join(map(str, sorted(fields.days))), ",".join(names)
    choices = [(days, "*"), ("*", week_days)] if fields.either_day else [(days, week_days)]
    triggers = [
        CronTrigger(
            minute=",".join(map(str, sorted(fields.minutes))),
            hour=",".join(map(str, sorted(fields.hours))),
            month=",".join(map(str, sorted(fields.months))),
            day=day,
            day_of_week=week_day,
            timezone=UTC,
        )
        for day, week_day in choices
    ]
    return triggers[0] if len(triggers) == 1 else OrTrigger(triggers)
