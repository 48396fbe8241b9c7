"""BSON values that the `bson` package has no exact class for.

Every other value is held in the `bson` package's own class: `ObjectId`, `Decimal128`, `DatetimeMS`, `Binary`,
`Timestamp`, `Code`, `MinKey`, `MaxKey`, `Int64`; int32 is `int`, double is `float`, a document is `dict`, an array is
`list`.
"""

from dataclasses import dataclass
from typing import Any

from bson import Code


@dataclass(frozen=True, slots=True)
class RegularExpression:
    """A regex with its options as written: `bson.Regex` keeps only the option letters that Python knows."""

    pattern: str
    options: str


@dataclass(frozen=True, slots=True)
class Symbol:
    """The deprecated symbol type; the `bson` package reads it as a plain string."""

    value: str


@dataclass(frozen=True, slots=True)
class Undefined:
    """The deprecated undefined type; the `bson` package reads it as None."""


@dataclass(frozen=True, slots=True)
class DbPointer:
    """The deprecated dbPointer type. Debezium writes it as it writes the sub-document `{"$ref": …, "$id": …}`."""

    namespace: str
    id: str


@dataclass(frozen=True, slots=True)
class DuplicateKeys:
    """A (sub-)document that has one name more than once, which BSON allows: every pair, in order."""

    pairs: tuple[tuple[str, Any], ...]


def repeats_a_name(value: Any) -> bool:
    """Tell whether a value is, or has anywhere within, an object with one name more than once."""
    type_ = type(value)
    if type_ is dict:
        return any(repeats_a_name(member) for member in value.values())
    if type_ is list:
        return any(repeats_a_name(element) for element in value)
    return type_ is DuplicateKeys or (type_ is Code and repeats_a_name(value.scope))
