"""decimal128 as BSON has it (IEEE 754, binary integer significand) → decimal(38, scale), column by column.

The layout: https://github.com/mongodb/specifications/blob/master/source/bson-decimal128/decimal128.md.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from cdc_shared.documents.types import DECIMAL_PRECISION
from reconciliation.reconciler.bson_layout import Mask, Words

_EXPONENT_BIAS: Final = 6176
_EXPONENT_SHIFT: Final = np.uint64(49)
_EXPONENT_MASK: Final = np.uint64(0x3FFF)
_SIGNIFICAND_HIGH: Final = np.uint64((1 << 49) - 1)
_SIGN: Final = np.uint64(1 << 63)
_SPECIAL: Final = np.uint64(3 << 61)
"""NaN, infinity, and a form of which the significand is too large to count."""
_MOST_DIGITS: Final = 18
"""An int64 holds any number of so many."""
_POWERS: Final = 10 ** np.arange(_MOST_DIGITS + 1, dtype=np.int64)
_LARGEST: Final = 10**DECIMAL_PRECISION - 1
_LARGEST_SIGNIFICAND: Final = 10**34 - 1


def decimals(low: Words, high: Words, scale: int) -> tuple[npt.NDArray[np.uint64], Mask]:
    """The numbers times 10**scale as 128-bit integers, shape (n, 2), low word first; and which of them such a column
    holds exactly. What it does not: NaN, infinity, -0, more digits or places than it has.
    """
    exponents = ((high >> _EXPONENT_SHIFT) & _EXPONENT_MASK).astype(np.int64) - _EXPONENT_BIAS + scale
    rest = high & _SIGNIFICAND_HIGH
    negative = (high & _SIGN) != 0
    held = (high & _SPECIAL) != _SPECIAL
    held &= ~(negative & (low == 0) & (rest == 0))
    small = held & (rest == 0) & (exponents >= 0) & (exponents <= _MOST_DIGITS)
    powers = _POWERS[np.where(small, exponents, 0)]
    small &= low <= (np.iinfo(np.int64).max // powers).astype(np.uint64)
    values = np.where(small, low, 0).astype(np.int64) * powers
    values[negative] *= -1
    stored = np.empty((len(low), 2), np.uint64)
    stored[:, 0], stored[:, 1] = values.view(np.uint64), (values >> 63).view(np.uint64)
    for row in np.flatnonzero(held & ~small).tolist():
        number = _scaled((int(rest[row]) << 64) | int(low[row]), int(exponents[row]))
        if number is None:
            held[row] = False
        else:
            signed = -number if negative[row] else number
            stored[row] = [signed & (2**64 - 1), signed >> 64 & (2**64 - 1)]
    return stored, held


def _scaled(significand: int, exponent: int) -> int | None:
    """`significand` * 10**`exponent` if that is an integer of at most 38 digits."""
    if significand > _LARGEST_SIGNIFICAND:  # stands for zero
        return None
    if significand == 0:
        return 0
    if exponent >= 0:
        return (
            None
            if exponent > DECIMAL_PRECISION or significand * 10**exponent > _LARGEST
            else significand * 10**exponent
        )
    if exponent < -DECIMAL_PRECISION:
        return None
    number, remainder = divmod(significand, 10**-exponent)
    return None if remainder else number
