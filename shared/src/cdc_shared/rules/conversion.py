"""Convert rules, value by value: a value of another type that says exactly the same, or the value as it is.

Numbers are compared by value (docs/adr/0003-numbers-compare-by-value.md), so what becomes of 5 becomes of 5.0 too.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, ObjectId

from cdc_shared.documents.bson_values import repeats_a_name
from cdc_shared.documents.extended_json import (
    DECIMAL_TEXT,
    DOUBLE_TEXT,
    INT32_MAX,
    INT32_MIN,
    INT64_MAX,
    INT64_MIN,
    LONG_TEXT,
    double_text,
    dump,
    milliseconds,
)
from cdc_shared.documents.key_text import key_text
from cdc_shared.documents.kinds import UUID_BYTES, UUID_SUBTYPE

Target = Literal["string", "long", "double", "decimal", "boolean", "date", "json"]
Conversion = Callable[[Any], Any]
"""A value that is not null → the converted one, or the same object where there is no exact one."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_NUMBER: Final = 400
"""Characters of the longest text that is read as a number: a double's has 325 at most."""
_PLAIN_EXPONENT: Final = 38
"""Decimals of a larger magnitude are written with an exponent."""
_DATE_TEXT: Final = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ](?:[01]\d|2[0-3]):\d\d:\d\d(?:\.\d{1,3})?(?:Z|[+-]\d\d:?\d\d))?", re.ASCII
)


def conversion(to: Target) -> Conversion:
    """What a convert rule does to a value."""
    return _CONVERSIONS[to]


def text_of(value: Any) -> str | None:
    """The text of a string, number, boolean, date (ISO 8601, UTC), ObjectId or UUID; None of anything else."""
    type_ = type(value)
    if type_ is str:
        return str(value)
    if type_ is bool:
        return "true" if value else "false"
    if type_ is float or type_ is int or type_ is Int64:
        whole = _whole(value)
        return double_text(value) if whole is None else str(whole)
    if type_ is ObjectId:
        return str(value)
    if type_ is Decimal128:
        return _decimal_text(value.to_decimal())
    if type_ is DatetimeMS:
        return _date_text(int(value))
    if type_ is Binary and value.subtype == UUID_SUBTYPE and len(value) == UUID_BYTES:
        text = value.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return None


def _whole(value: Any) -> int | None:
    """The integer that an int64, or a double that is compared as one, stands for."""
    if type(value) is float:
        is_whole = value.is_integer() and INT64_MIN <= value <= INT64_MAX and not _is_negative_zero(value)
        return int(value) if is_whole else None
    return int(value) if type(value) in (int, Int64) else None


def _integer(value: int) -> int:
    return int(value) if INT32_MIN <= value <= INT32_MAX else Int64(value)


def _is_negative_zero(value: float) -> bool:
    return value == 0 and math.copysign(1, value) < 0


def _decimal_text(value: Decimal) -> str:
    """By value alone: 1.50 is 1.5, 1E+3 is 1000."""
    if not value.is_finite():
        return "NaN" if value.is_nan() else str(value)
    sign, digits, power = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    stripped = text.rstrip("0") or "0"
    exponent = int(power) + len(text) - len(stripped) if text else 0
    shortest = Decimal(f"{'-' if sign else ''}{stripped}E{exponent}")
    return format(shortest, "f") if abs(shortest.adjusted()) <= _PLAIN_EXPONENT else str(shortest)


def _date_text(value: int) -> str | None:
    try:
        moment = _EPOCH + timedelta(milliseconds=value)
    except OverflowError:
        return None
    text = moment.replace(tzinfo=None).isoformat(timespec="milliseconds")
    return text.rstrip("0").removesuffix(".") + "Z" if moment.microsecond else text[:-4] + "Z"


def _to_string(value: Any) -> Any:
    text = text_of(value)
    return value if text is None else text


def _to_long(value: Any) -> Any:
    type_ = type(value)
    if type_ is bool:
        return int(value)
    if type_ is float:
        whole = _whole(value)
        return value if whole is None else _integer(whole)
    if type_ is str:
        fits = len(value) <= 20 and LONG_TEXT.fullmatch(value) and INT64_MIN <= int(value) <= INT64_MAX
        return _integer(int(value)) if fits else value
    if type_ is Decimal128:
        number = value.to_decimal()
        fits = number.is_finite() and INT64_MIN <= number <= INT64_MAX and number == number.to_integral_value()
        return _integer(int(number)) if fits and not (number.is_zero() and number.is_signed()) else value
    return Int64(int(value)) if type_ is DatetimeMS else value


def _to_double(value: Any) -> Any:
    type_ = type(value)
    if type_ in (int, Int64, bool, DatetimeMS):
        number = float(int(value))
        return number if number == int(value) else value
    if type_ is Decimal128:
        return _exact_double(value.to_decimal(), value)
    if type_ is str and len(value) <= _LONGEST_NUMBER and DOUBLE_TEXT.fullmatch(value):
        try:
            return _exact_double(Decimal(value), value)
        except InvalidOperation:  # an exponent beyond any number's
            return value
    return value


def _exact_double(number: Decimal, value: Any) -> Any:
    """The double whose shortest text is that number."""
    if number.is_nan():
        return math.nan
    double = float(number)
    return double if Decimal(repr(double)) == number else value


def _to_decimal(value: Any) -> Any:
    type_ = type(value)
    if type_ in (int, Int64, bool, DatetimeMS):
        return Decimal128(str(int(value)))
    if type_ is float:
        return Decimal128(double_text(value))
    if type_ is str and len(value) <= _LONGEST_NUMBER and DECIMAL_TEXT.fullmatch(value):
        try:
            return Decimal128(value)
        except (ValueError, ArithmeticError):
            return value
    return value


def _to_boolean(value: Any) -> Any:
    type_ = type(value)
    if type_ is str:
        return {"true": True, "false": False}.get(value, value)
    if type_ in (int, Int64, float):
        whole = _whole(value)
        return bool(whole) if whole in (0, 1) else value
    return value


def _to_date(value: Any) -> Any:
    type_ = type(value)
    if type_ is str:
        if not _DATE_TEXT.fullmatch(value):
            return value
        try:
            return DatetimeMS(milliseconds(datetime.fromisoformat(value)))
        except (ValueError, OverflowError):
            return value
    if type_ in (int, Int64, float):
        whole = _whole(value)
        return value if whole is None else DatetimeMS(whole)
    return value


def _to_json(value: Any) -> str:
    return dump(value) if repeats_a_name(value) else key_text(_normal(value))


def _normal(value: Any) -> Any:
    """One value for all that are equal: members in the order of their names, nulls left out, whole numbers integers."""
    type_ = type(value)
    if type_ is dict:
        return {name: _normal(value[name]) for name in sorted(value) if value[name] is not None}
    if type_ is list:
        return [_normal(element) for element in value]
    if type_ is float:
        whole = _whole(value)
        return value if whole is None else whole
    if type_ is Decimal128:
        return Decimal128(_decimal_text(value.to_decimal()))
    if type_ is Code and value.scope is not None:
        return Code(str(value), _normal(value.scope))
    return value


_CONVERSIONS: Final[dict[Target, Conversion]] = {
    "string": _to_string,
    "long": _to_long,
    "double": _to_double,
    "decimal": _to_decimal,
    "boolean": _to_boolean,
    "date": _to_date,
    "json": _to_json,
}
