"""Which BSON values a column of a scalar type holds, and what is stored for them.

Numbers are compared by value (docs/adr/0003-numbers-compare-by-value.md).
"""

from collections.abc import Callable
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, Final

from bson import Binary, DatetimeMS, Decimal128, Int64, ObjectId, Timestamp

from cdc_shared.documents import types as t
from cdc_shared.documents.bson_values import RegularExpression
from cdc_shared.documents.extended_json import INT64_MAX, INT64_MIN, dump
from cdc_shared.documents.inference import EXACT_DOUBLE_MAX
from cdc_shared.documents.kinds import UUID_BYTES, UUID_SUBTYPE
from cdc_shared.documents.number_type import stored_number

DATE_MIN_MS: Final = -62_135_596_800_000
"""0001-01-01T00:00:00Z: no reader of Delta tables agrees with another on what lies before."""
DATE_MAX_MS: Final = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z."""

MISFIT: Final = object()

Fit = Callable[[Any], Any]
"""Value → storage value, or `MISFIT`."""


def _of_type(type_: type) -> Fit:
    return lambda value: value if type(value) is type_ else MISFIT


def _long(value: Any) -> Any:
    type_ = type(value)
    if type_ is int or type_ is Int64:
        return value
    if (
        type_ is float
        and value.is_integer()
        and INT64_MIN <= value <= INT64_MAX
        and (value != 0 or str(value)[0] != "-")
    ):
        return int(value)
    return MISFIT


def _double(value: Any) -> Any:
    type_ = type(value)
    if type_ is float:
        return value
    if (type_ is int or type_ is Int64) and -EXACT_DOUBLE_MAX <= value <= EXACT_DOUBLE_MAX:
        return float(value)
    return MISFIT


def _date(value: Any) -> Any:
    return int(value) * 1000 if type(value) is DatetimeMS and DATE_MIN_MS <= int(value) <= DATE_MAX_MS else MISFIT


def _uuid(value: Any) -> Any:
    if type(value) is not Binary or value.subtype != UUID_SUBTYPE or len(value) != UUID_BYTES:
        return MISFIT
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def binary_fit(subtype: int) -> Fit:
    return lambda value: bytes(value) if type(value) is Binary and value.subtype == subtype else MISFIT


def _regex(value: Any) -> Any:
    return {"pattern": value.pattern, "options": value.options} if type(value) is RegularExpression else MISFIT


def _timestamp(value: Any) -> Any:
    return {"t": value.time, "i": value.inc} if type(value) is Timestamp else MISFIT


def decimal_fit(scale: int) -> Fit:
    exact = Context(prec=t.DECIMAL_PRECISION, traps=[Inexact, InvalidOperation])
    quantum = Decimal(1).scaleb(-scale)

    def fit(value: Any) -> Any:
        if type(value) is not Decimal128:
            return MISFIT
        number = value.to_decimal()
        if not number.is_finite() or (number.is_zero() and number.is_signed()):  # the column has no negative zero
            return MISFIT
        try:
            return number.quantize(quantum, context=exact)
        except (Inexact, InvalidOperation):
            return MISFIT

    return fit


def number_fit(scale: int) -> Fit:
    def fit(value: Any) -> Any:
        if type(value) not in (int, Int64, float):
            return MISFIT
        number = stored_number(value, scale)
        return MISFIT if number is None else number

    return fit


SCALAR_FITS: Final[dict[t.Kind, Fit]] = {
    t.Kind.STRING: _of_type(str),
    t.Kind.LONG: _long,
    t.Kind.DOUBLE: _double,
    t.Kind.BOOLEAN: _of_type(bool),
    t.Kind.OBJECT_ID: lambda value: str(value) if type(value) is ObjectId else MISFIT,
    t.Kind.DATE: _date,
    t.Kind.UUID: _uuid,
    t.Kind.REGEX: _regex,
    t.Kind.TIMESTAMP: _timestamp,
    t.Kind.JSON: dump,
    t.Kind.TEXT: _of_type(str),
}
