"""Numbers compared by value and exactly, whatever types they and their bounds are of.

A bound is a number as somebody wrote it: a double is compared with the nearest double, so that 0.1 is within [0, 0.1];
a decimal is compared with the decimal of that text. An integer bound is exact against every type.
"""

import math
from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, Inexact, InvalidOperation
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from bson import Decimal128, Int64

from cdc_shared.documents import types as t
from cdc_shared.documents.extended_json import INT64_MAX, INT64_MIN
from cdc_shared.documents.inference import EXACT_DOUBLE_MAX

Bound = int | float
"""As a spec has it, finite."""
_WIDE: Final = Context(prec=5000, Emax=999_999, Emin=-999_999)
_DIGITS: Final = 10**t.DECIMAL_PRECISION


def number_of(value: Any) -> int | float | Decimal | None:
    """A BSON number as a Python number, for comparisons: every NaN is a float's; None of what is no number."""
    type_ = type(value)
    if type_ is int or type_ is float or type_ is Int64:
        return value  # type: ignore[no-any-return]
    if type_ is Decimal128:
        number: Decimal = value.to_decimal()
        return math.nan if number.is_nan() else number
    return None


def decimal_of(bound: Bound) -> Decimal:
    """The decimal that a bound was written as; a double that may stand for an int64 beyond 2^53 is that integer."""
    written = isinstance(bound, float) and not EXACT_DOUBLE_MAX <= abs(bound) < 2**63
    return Decimal(repr(bound)) if written else Decimal(bound)


def is_within(number: float | Decimal, low: Bound | None, high: Bound | None) -> bool:
    """Whether a number lies within bounds, which count as within. NaN does not."""
    if number != number:
        return False
    if isinstance(number, Decimal):
        return (low is None or number >= decimal_of(low)) and (high is None or number <= decimal_of(high))
    return (low is None or number >= low) and (high is None or number <= high)


def within(type_: t.FieldType, values: t.ArrowArray, low: Bound | None, high: Bound | None) -> t.ArrowArray | None:
    """`is_within` of a column's values; null where they are. None if the column is not one of numbers."""
    if type_ == t.LONG:
        return longs_within(values, low, high)
    if type_ == t.DOUBLE:
        return doubles_within(values, low, high)
    if isinstance(type_, t.Decimal | t.Number):
        return _between(values, *_decimal_bounds(low, high, type_.scale, values.type))
    return None


def longs_within(values: t.ArrowArray, low: Bound | None, high: Bound | None) -> t.ArrowArray:
    """`is_within` of 64-bit integers."""
    return _between(values, *_long_bounds(low, high))


def doubles_within(values: t.ArrowArray, low: Bound | None, high: Bound | None) -> t.ArrowArray:
    """`is_within` of doubles."""
    return _between(values, *_double_bounds(low, high))


def members_of(type_: t.FieldType, numbers: Iterable[Bound]) -> t.ArrowArray | None:
    """Those of the numbers that a column can hold, as an array of its type; None if it is not one of numbers."""
    if type_ == t.LONG:
        held = {int(n) for n in numbers if n == int(n) and INT64_MIN <= n <= INT64_MAX}
        return pa.array(sorted(held), pa.int64())
    if type_ == t.DOUBLE:
        doubles = {float(n) for n in numbers if abs(n) <= EXACT_DOUBLE_MAX or isinstance(n, float) or _is_double(n)}
        return pa.array([*doubles, -0.0] if 0.0 in doubles else list(doubles), pa.float64())
    if isinstance(type_, t.Decimal | t.Number):
        exact = Context(prec=t.DECIMAL_PRECISION, traps=[Inexact, InvalidOperation])
        quantum = Decimal(1).scaleb(-type_.scale)
        decimals = []
        for number in numbers:
            try:
                decimals.append(decimal_of(number).quantize(quantum, context=exact))
            except (Inexact, InvalidOperation):
                continue
        return pa.array(decimals, type_.storage)
    return None


Limit = Any
"""A bound as a pyarrow scalar of the column's type; True if it lets everything pass, False if nothing."""


def _between(values: t.ArrowArray, low: Limit, high: Limit) -> t.ArrowArray:
    return pc.and_(_compared(pc.greater_equal, values, low), _compared(pc.less_equal, values, high))


def _compared(comparison: Any, values: t.ArrowArray, limit: Limit) -> t.ArrowArray:
    if not isinstance(limit, bool):
        return comparison(values, limit)
    # Null where they are, and NaN fails.
    return pc.equal(values, values) if limit else pc.and_not(pc.equal(values, values), pc.equal(values, values))


def _long_bounds(low: Bound | None, high: Bound | None) -> tuple[Limit, Limit]:
    first = True if low is None or low <= INT64_MIN else low <= INT64_MAX and pa.scalar(math.ceil(low), pa.int64())
    last = True if high is None or high >= INT64_MAX else high >= INT64_MIN and pa.scalar(math.floor(high), pa.int64())
    return first, last


def _double_bounds(low: Bound | None, high: Bound | None) -> tuple[Limit, Limit]:
    first: Limit = True if low is None else pa.scalar(_nearest_double(low, math.inf), pa.float64())
    last: Limit = True if high is None else pa.scalar(_nearest_double(high, -math.inf), pa.float64())
    return first, last


def _nearest_double(bound: Bound, towards: float) -> float:
    """The bound, or, if it is an integer that no double is, the next double in that direction."""
    try:
        double = float(bound)
    except OverflowError:
        double = math.inf if bound > 0 else -math.inf
    beyond = double > bound if towards < 0 else double < bound
    return math.nextafter(double, towards) if beyond else double


def _is_double(number: Bound) -> bool:
    return _nearest_double(number, math.inf) == number


def _decimal_bounds(low: Bound | None, high: Bound | None, scale: int, type_: pa.DataType) -> tuple[Limit, Limit]:
    quantum = Decimal(1).scaleb(-scale)
    limit = Decimal(_DIGITS).scaleb(-scale, _WIDE)
    first: Limit = True
    if low is not None:
        least = decimal_of(low).quantize(quantum, ROUND_CEILING, _WIDE)
        first = True if least <= -limit else least < limit and pa.scalar(least, type_)
    last: Limit = True
    if high is not None:
        most = decimal_of(high).quantize(quantum, ROUND_FLOOR, _WIDE)
        last = True if most >= limit else most > -limit and pa.scalar(most, type_)
    return first, last
