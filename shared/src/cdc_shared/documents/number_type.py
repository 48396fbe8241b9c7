"""The values of a `Number(scale)` column: integers and doubles, each with one decimal of its own, and back."""

import math
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Final

from cdc_shared.documents import types as t
from cdc_shared.documents.extended_json import INT64_MAX, INT64_MIN

_EXACT: Final = Context(prec=t.DECIMAL_PRECISION, traps=[Inexact, InvalidOperation])


def stored_number(value: float, scale: int) -> Decimal | None:
    """The decimal that stands for an int64 or a double; None if there is none: NaN, infinities, -0.0, and what needs
    more digits than the column has.
    """
    if isinstance(value, float) and (not math.isfinite(value) or (value == 0 and math.copysign(1, value) < 0)):
        return None
    whole = isinstance(value, int) or (value.is_integer() and INT64_MIN <= value <= INT64_MAX)
    try:
        number = Decimal(int(value) if whole else repr(value)).quantize(Decimal(1).scaleb(-scale), context=_EXACT)
    except (Inexact, InvalidOperation):
        return None
    return number if number_value(number) == value else None


def number_value(stored: Decimal) -> float:
    """The integer (a whole number that an int64 holds) or double that a stored decimal stands for."""
    whole = int(stored)
    return whole if whole == stored and INT64_MIN <= whole <= INT64_MAX else float(stored)
