"""The five fields of a crontab line, as crontab(5) reads them."""

import re
from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_LEAP_YEAR: Final = 2024


class InvalidCron(ValueError):
    """The expression is not one; the message names the field and says what would be right."""


@dataclass(frozen=True, slots=True)
class _FieldKind:
    name: str
    lowest: int
    highest: int
    names: Sequence[str] = ()
    """What the numbers from `lowest` on are called."""


_KINDS: Final = (
    _FieldKind("minute", 0, 59),
    _FieldKind("hour", 0, 23),
    _FieldKind("day of month", 1, 31),
    _FieldKind("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    # 7 is Sunday as well.
    _FieldKind("day of week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_PART: Final = re.compile(r"(?P<first>\*|\w+)(?:-(?P<last>\w+))?(?:/(?P<step>\d+))?")


@dataclass(frozen=True, slots=True)
class CronFields:
    """Which minutes, hours, days, months and days of the week (0 is Sunday) an expression names."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    week_days: frozenset[int]
    every_hour: bool
    """The hour field begins with `*`: the times are an interval, not an hour of the day."""
    either_day: bool
    """Both fields of days are restricted: a day that one of them names is due (crontab(5))."""

    @classmethod
    def parse(cls, expression: str) -> "CronFields":
        """Read `minute hour day-of-month month day-of-week`. Raises `InvalidCron`."""
        texts = expression.split()
        if len(texts) != len(_KINDS):
            names = ", ".join(kind.name for kind in _KINDS)
            raise InvalidCron(
                f"'{expression}' has {len(texts)} fields; a cron expression has five: {names} (0 2 * * * is 2 am)"
            )
        minutes, hours, days, months, week_days = (
            _values(kind, text) for kind, text in zip(_KINDS, texts, strict=True)
        )
        fields = cls(
            minutes,
            hours,
            days,
            months,
            frozenset(day % 7 for day in week_days),
            every_hour=texts[1].startswith("*"),
            either_day=not texts[2].startswith("*") and not texts[4].startswith("*"),
        )
        if not fields.either_day and min(days) > max(monthrange(_LEAP_YEAR, month)[1] for month in months):
            raise InvalidCron(f"'{expression}' never comes: its months have no day {min(days)}")
        return fields


def _values(kind: _FieldKind, text: str) -> frozenset[int]:
    return frozenset(value for part in text.split(",") for value in _part_values(kind, text, part))


def _part_values(kind: _FieldKind, text: str, part: str) -> range:
    match = _PART.fullmatch(part)
    if match is None:
        raise _invalid(kind, text, f"'{part}' is none of *, a number, a range a-b, or one of them with a step, */n")
    first, last, step = match["first"], match["last"], match["step"]
    if first == "*":
        if last is not None:
            raise _invalid(kind, text, f"'{part}' is not a range")
        low, high = kind.lowest, kind.highest
    else:
        low = _number(kind, text, first)
        high = low if last is None else _number(kind, text, last)
        if last is not None and last.lower() == "sun" and low > 0:
            high = 7
        if step is not None and last is None:
            raise _invalid(kind, text, f"a step needs a range: write {first}-{kind.highest}/{step}")
        if high < low:
            raise _invalid(kind, text, f"the range {part} runs backwards")
    if step is not None and int(step) == 0:
        raise _invalid(kind, text, "a step is at least 1")
    if step is not None and first == "*" and kind.names and kind.lowest == 0:
        high = 6  # Of `*`, Sunday is one day, not two.
    return range(low, high + 1, int(step or 1))


def _number(kind: _FieldKind, text: str, word: str) -> int:
    if word.lower() in kind.names:
        return kind.lowest + list(kind.names).index(word.lower())
    if not (word.isascii() and word.isdecimal()):
        names = f" or {kind.names[0]}-{kind.names[-1]}" if kind.names else ""
        raise _invalid(kind, text, f"'{word}' is not {kind.lowest}-{kind.highest}{names}")
    if not kind.lowest <= int(word) <= kind.highest:
        raise _invalid(kind, text, f"{word} is not within {kind.lowest}-{kind.highest}")
    return int(word)


def _invalid(kind: _FieldKind, text: str, why: str) -> InvalidCron:
    return InvalidCron(f"{kind.name} '{text}': {why}")
