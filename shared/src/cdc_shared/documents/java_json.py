"""How MongoDB's Java driver, and so Debezium, spells strings and doubles in JSON.

Not reproduced: doubles for which `Double.toString` of Java before 19 is not the shortest text (1.0E23, 4.9E-324; about
one in 10^4 beyond ±2^63, none seen within) and strings with characters that Unicode got after version 13, which Java 17
escapes.
"""

import math
import re
import unicodedata
from decimal import Decimal
from functools import cache
from json.encoder import encode_basestring
from typing import Final

from cdc_shared.documents.extended_json import double_text

# Unicode categories that the Java driver writes as they are; every other UTF-16 unit is escaped, so astral characters
# are two escapes.
_WRITTEN_AS_IS: Final = frozenset(
    ["Lu", "Ll", "Lt", "Lo", "Nd", "Nl", "No", "Zs", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So"]
)
_SHORT_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def java_string(value: str) -> str:
    """A JSON string; what it escapes depends on the Unicode category of each character."""
    if value.isascii() and "\x7f" not in value:
        return encode_basestring(value)  # the same, and much faster
    return '"' + _escaped().sub(_escape, value) + '"'


def java_double(value: float) -> str:
    """`Double.toString`: plain from 10^-3 up to 10^7, else one digit before the point and an exponent."""
    size = abs(value)
    if 1e-3 <= size < 1e7:
        return repr(value)
    if size == 0 or not math.isfinite(value):
        return double_text(value)
    sign, digits, exponent = Decimal(_whole_number(value) if 2.0**53 <= size < 2.0**63 else repr(value)).as_tuple()
    text = "".join(map(str, digits))
    power = int(exponent) + len(text) - 1
    return f"{'-' if sign else ''}{text[0]}.{text[1:].rstrip('0') or '0'}E{power}"


def _whole_number(value: float) -> int:
    """The integer that Java before 19 shows for a whole double that a long can hold: exact, but for digits below the
    double's precision.
    """
    bits_below_precision = math.frexp(value)[1] - 55
    unit = 10 ** (len(str(2**bits_below_precision)) - 1) if bits_below_precision > 1 else 1
    whole, rest = divmod(abs(int(value)), unit)
    number = (whole + (unit > 1 and 2 * rest >= unit)) * unit
    return number if value > 0 else -number


@cache
def _escaped() -> re.Pattern[str]:
    """Matches one character that is not written as it is. Made when first needed: it looks at 65,536 characters."""
    plain = [
        unicodedata.category(character) in _WRITTEN_AS_IS and character not in _SHORT_ESCAPES
        for character in map(chr, range(0x10000))
    ]
    starts = [code for code in range(0x10000) if not plain[code] and (code == 0 or plain[code - 1])]
    ends = [code for code in range(0x10000) if not plain[code] and (code == 0xFFFF or plain[code + 1])]
    ranges = "".join(f"\\u{start:04x}-\\u{end:04x}" for start, end in zip(starts, ends, strict=True))
    return re.compile(f"[{ranges}\U00010000-\U0010ffff]")


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    short = _SHORT_ESCAPES.get(character)
    if short is not None:
        return short
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join([f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4)])
