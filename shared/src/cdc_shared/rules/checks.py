"""Checks of single values: required, type, range, length, regex, enum.

Each is told twice: `accepts` says it of one value that is not null, and is the definition; `accepted` says the same of
a whole column. tests/unit/cdc_shared/rules/test_validation_agreement.py holds the two against each other.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from bson import Binary, DatetimeMS, Decimal128, Int64, ObjectId, Timestamp

from cdc_shared.documents import types as t
from cdc_shared.documents.bson_values import DuplicateKeys, RegularExpression
from cdc_shared.documents.extended_json import INT64_MAX, INT64_MIN
from cdc_shared.documents.inference import EXACT_DOUBLE_MAX
from cdc_shared.documents.kinds import UUID_BYTES, binary_kind
from cdc_shared.models.data_quality import Enum, Length, Range, Regex, TypeCheck, TypeName
from cdc_shared.rules.numbers import Bound, doubles_within, is_within, longs_within, members_of, number_of, within


class ValueCheck(Protocol):
    """What one value must be."""

    @property
    def failure(self) -> str:
        """What is said of a field that fails, after its name. Holds nothing of the document."""

    def accepts(self, value: Any) -> bool:
        """Whether a value (not null) passes."""

    def accepted(self, type_: t.FieldType, values: t.ArrowArray) -> t.ArrowArray | bool | None:
        """Whether each value of a column passes: an array of booleans, null where the value is; or one answer for all
        of them; or None if the column does not tell.
        """


def _undecided(type_: t.FieldType) -> bool | None:
    """What a check says of a column whose type it has no use for: a JSON text may hold anything."""
    return None if type_ == t.JSON else False


# --- type -------------------------------------------------------------------------------------------------------------


def _is_long(value: Any) -> bool:
    type_ = type(value)
    return type_ is int or type_ is Int64 or (type_ is float and _is_whole(value))


def _is_whole(value: float) -> bool:
    return value.is_integer() and INT64_MIN <= value <= INT64_MAX and (value != 0 or math.copysign(1, value) > 0)


def _is_double(value: Any) -> bool:
    type_ = type(value)
    return type_ is float or ((type_ is int or type_ is Int64) and abs(value) <= EXACT_DOUBLE_MAX)


def _of(*types: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in types


_IS: Final[dict[TypeName, Callable[[Any], bool]]] = {
    "string": _of(str),
    "long": _is_long,
    "double": _is_double,
    "number": _of(int, Int64, float),
    "boolean": _of(bool),
    "decimal": _of(Decimal128),
    "date": _of(DatetimeMS),
    "objectId": _of(ObjectId),
    "uuid": lambda value: type(value) is Binary and binary_kind(value) == t.UUID,
    "binary": lambda value: type(value) is Binary and binary_kind(value) != t.UUID,
    "regex": _of(RegularExpression),
    "timestamp": _of(Timestamp),
    "object": _of(dict, DuplicateKeys),
    "array": _of(list),
}


@dataclass(frozen=True)
class TypeIs:
    """Numbers are of every type that holds their value: 5.0 is a long, and 5 is a double."""

    types: tuple[TypeName, ...]
    failure: str = "is not of a type that the rule allows"

    @classmethod
    def of(cls, rule: TypeCheck) -> "TypeIs":
        return cls(rule.types)

    def accepts(self, value: Any) -> bool:
        return any(_IS[name](value) for name in self.types)

    def accepted(self, type_: t.FieldType, values: t.ArrowArray) -> t.ArrowArray | bool | None:
        if type_ == t.JSON:
            return None
        if type_ == t.LONG or type_ == t.DOUBLE or isinstance(type_, t.Number):
            return self._numbers_accepted(type_, values)
        return _type_name(type_) in self.types

    def _numbers_accepted(self, type_: t.FieldType, values: t.ArrowArray) -> t.ArrowArray | bool | None:
        if type_.text in self.types or "number" in self.types:
            return True
        if type_ == t.LONG and "double" in self.types:
            return longs_within(values, -EXACT_DOUBLE_MAX, EXACT_DOUBLE_MAX)
        if type_ == t.DOUBLE and "long" in self.types:
            return _whole(values)
        return None if isinstance(type_, t.Number) and not {"long", "double"}.isdisjoint(self.types) else False


def _whole(values: t.ArrowArray) -> t.ArrowArray:
    zero = pa.scalar(0.0)
    whole = pc.and_(pc.equal(pc.floor(values), values), doubles_within(values, INT64_MIN, INT64_MAX))
    is_negative_zero = pc.and_(pc.equal(values, zero), pc.less(pc.divide(pa.scalar(1.0), values), zero))
    return pc.and_not(whole, is_negative_zero)


def _type_name(type_: t.FieldType) -> str:
    if isinstance(type_, t.Struct):
        return "object"
    if isinstance(type_, t.List):
        return "array"
    return "string" if type_ == t.TEXT else type_.text.partition(":")[0]


# --- range ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NumberWithin:
    low: Bound | None
    high: Bound | None
    failure: str = "is not a number within the rule's bounds"

    def accepts(self, value: Any) -> bool:
        number = number_of(value)
        return number is not None and is_within(number, self.low, self.high)

    def accepted(self, type_: t.FieldType, values: t.ArrowArray) -> t.ArrowArray | bool | None:
        inside = within(type_, values, self.low, self.high)
        return _undecided(type_) if inside is None else inside


@dataclass(frozen=True)
class DateWithin:
    """Bounds in microseconds since 1970."""

    low_us: int | None
    high_us: int | None
    failure: str = "is not a date within the rule's bounds"

    def accepts(self, value: Any) -> bool:
        return type(value) is DatetimeMS and is_within(int(value) * 1000, self.low_us, self.high_us)

    def accepted(self, type_: t.FieldType, values: t.ArrowArray) -> t.ArrowArray | bool | None:
        return (
            longs_within(values.view(pa.int64()), self.low_us, self.high_us) if type_ == t.DATE else _undecided(type_)
        )


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def range_check(rule: Range) -> NumberWithin | DateWithin:
    """Raises ValueError, with what is wrong and the remedy, for bounds that make no range."""
    low, high = rule.min, rule.max
    if low is None and high is None:
        raise ValueError("has no bounds: give min, max or both")
    if isinstance(low, str) or isinstance(high, str):
        first, last = _date_bound("min", low), _date_bound("max", high)
        _check_order(first, last)
        return DateWithin(first, last)
    for name, bound in (("min", low), ("max", high)):
        if isinstance(bound, bool) or (isinstance(bound, float) and not math.isfinite(bound)):
            raise ValueError(f"has a {name} that is no finite number: leave it out, or give one, or an ISO 8601 date")
    _check_order(low, high)
    return NumberWithin(low, high)


def _date_bound(name: str, bound: Bound | str | None) -> int | None:
    if bound is None:
        return None
    if not isinstance(bound, str):
        raise ValueError("has a number and a date for bounds: give two of one kind")
    try:
        moment = datetime.fromisoformat(bound)
    except ValueError:
        raise ValueError(f"has a {name} that is neither a number nor an ISO 8601 date such as 2024-01-31") from None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _check_order(low: Bound | None, high: Bound | None) -> None:
    if low is not None and high is not None and low > high:
        raise ValueError("has a min above its max: no value could pass")


# --- length -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LengthWithin:
    """Code points of a string, bytes of a binary (16 of a UUID), elements of an array; nothing else has a length."""

    low: int | None
    high: int | None
    failure: str = "does not have a length within the rule's bounds"

    @classmethod
    def of(cls, rule: Length) -> "LengthWithin":
        """Raises ValueError, with what is wrong and the remedy, for bounds that make no range."""
        if rule.min is None and rule.max is None:
            raise ValueError("has no bounds: give min, max or both")
        _check_order(rule.min, rule.max)
        return cls(rule.min, rule.max)

    def accepts(self, value: Any) -> bool:
        return type(value) in (str, Binary, list) and is_within(len(value), self.low, self.high)

    def accepted(self, type_: t.FieldType, values: t.ArrowArray) -> t.ArrowArray | bool | None:
        if type_ == t.UUID:
            return is_within(UUID_BYTES, self.low, self.high)
        if type_ == t.STRING or type_ == t.TEXT:
            lengths: t.ArrowArray = pc.utf8_length(values)
        elif isinstance(type_, t.Binary):
            lengths = pc.binary_length(values)
        elif isinstance(type_, t.List):
            lengths = pc.list_value_length(values)
        else:
            return _undecided(type_)
        return longs_within(lengths.cast(pa.int64()), self.low, self.high)


# --- regex ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matches:
    """The whole of a string, by RE2: its time is linear in the text, whatever the pattern. Nothing else matches."""

    anchored: str
    failure: str = "does not match the rule's pattern"

    @classmethod
    def of(cls, rule: Regex) -> "Matches":
        """Raises ValueError with RE2's reason for a pattern that it refuses."""
        check_pattern(rule.pattern)  # alone first: "a)|(b" is none, but would be one between brackets
        anchored = rf"\A(?:{rule.pattern})\z"
        check_pattern(anchored)
        return cls(anchored)

    def accepts(self, value: Any) -> bool:
        return type(value) is str and bool(self._matched(pa.array([value], pa.string()))[0].as_py())

    def accepted(self, type_: t.FieldType, values: t.ArrowArray) -> t.ArrowArray | bool | None:
        return self._matched(values) if type_ == t.STRING or type_ == t.TEXT else _undecided(type_)

    def _matched(self, texts: t.ArrowArray) -> t.ArrowArray:
        return pc.match_substring_regex(texts, self.anchored)


MAX_SHOWN_OPERATOR_CHARS: Final = 8


def check_pattern(pattern: str) -> None:
    """Raises ValueError with RE2's reason for a pattern that it refuses."""
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except (pa.ArrowException, UnicodeEncodeError) as error:
        reason = _reason(error) if isinstance(error, pa.ArrowException) else "it is not Unicode"
        raise ValueError(f"has a pattern that RE2 refuses ({reason}): see github.com/google/re2/wiki/Syntax") from None


def _reason(error: pa.ArrowException) -> str:
    """RE2's reason, which ends with a part of the pattern. That stays when it is as short as an operator: of any other
    text somebody may have made a secret.
    """
    said = str(error)
    told = said.split(": ", 2)
    return ": ".join(told[:2]) if len(told) == 3 and len(told[2]) > MAX_SHOWN_OPERATOR_CHARS else said


# --- enum -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OneOf:
    """Numbers are compared by value (5 is 5.0 and decimal 5), strings and booleans with their own kind."""

    numbers: frozenset[Bound]
    strings: frozenset[str]
    booleans: frozenset[bool]
    failure: str = "is not one of the rule's values"

    @classmethod
    def of(cls, rule: Enum) -> "OneOf":
        """Raises ValueError for a number that is none."""
        numbers = [value for value in rule.values if not isinstance(value, str | bool)]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("lists a number that is not finite: leave it out")
        return cls(
            frozenset(numbers),
            frozenset(value for value in rule.values if isinstance(value, str)),
            frozenset(value for value in rule.values if isinstance(value, bool)),
        )

    def accepts(self, value: Any) -> bool:
        type_ = type(value)
        if type_ is str:
            return value in self.strings
        if type_ is bool:
            return value in self.booleans
        number = number_of(value)
        return number is not None and any(is_within(number, each, each) for each in self.numbers)

    def accepted(self, type_: t.FieldType, values: t.ArrowArray) -> t.ArrowArray | bool | None:
        if type_ == t.STRING or type_ == t.TEXT:
            members: t.ArrowArray = pa.array(sorted(self.strings), pa.string())
        elif type_ == t.BOOLEAN:
            members = pa.array(sorted(self.booleans), pa.bool_())
        else:
            numbers = members_of(type_, self.numbers)
            if numbers is None:
                return _undecided(type_)
            members = numbers
        return pc.is_in(values, value_set=members)
