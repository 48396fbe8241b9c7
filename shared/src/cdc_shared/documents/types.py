"""The types of a table's document columns, and the schema made of them.

A type knows three things: `storage`, the Arrow type of its column in the table; `wire`, the Arrow type that
`pyarrow.json` must parse the legacy Extended JSON of Debezium as (None when it cannot); and `text`, its name in the
Delta field's metadata (`cdc.type`). The table that maps BSON types to these is in docs/architecture/types.md.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

import pyarrow as pa

MAX_DEPTH: Final = 32
"""Structs and arrays nest this deep; what lies deeper is one JSON column."""

DECIMAL_PRECISION: Final = 38
DEFAULT_DECIMAL_SCALE: Final = 10
FINE_DECIMAL_SCALE: Final = 18

RESERVED_PREFIX: Final = "_cdc_"
"""Top-level columns of this prefix are the platform's own."""

WRAPPER_NAMES: Final = frozenset(
    [
        "$oid",
        "$date",
        "$numberLong",
        "$numberInt",
        "$numberDouble",
        "$numberDecimal",
        "$binary",
        "$type",
        "$regex",
        "$options",
        "$regularExpression",
        "$timestamp",
        "$code",
        "$scope",
        "$minKey",
        "$maxKey",
        "$undefined",
        "$symbol",
        "$dbPointer",
    ]
)
"""Names that Extended JSON wrappers are made of, in either dialect."""

# Spark and Parquet refuse ` ,;{}()\n\t=`; dots, quotes and back-ticks need escaping in every SQL dialect, control
# characters in most.
_UNSAFE_CHARACTER: Final = re.compile(r"[\x00-\x20,;{}()=.`\"\\\x7f]|^\$")

ArrowArray = Any
"""A pyarrow array of the type that the schema says: the stubs' many array classes cannot say that."""


class Kind(StrEnum):
    """Scalar kinds without a parameter. The value is the type's name in the metadata of a Delta field."""

    STRING = "string"
    LONG = "long"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    OBJECT_ID = "objectId"
    DATE = "date"
    UUID = "uuid"
    REGEX = "regex"
    TIMESTAMP = "timestamp"
    JSON = "json"
    TEXT = "text"
    """A `string` policy's: strings as they are, any other value as readable text, and whole in `_cdc_rescued`."""


_BINARY_WIRE = pa.struct([("$binary", pa.string()), ("$type", pa.string())])
_STORAGE: dict[Kind, pa.DataType] = {
    Kind.STRING: pa.string(),
    Kind.LONG: pa.int64(),
    Kind.DOUBLE: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.OBJECT_ID: pa.string(),
    Kind.DATE: pa.timestamp("us", "UTC"),
    Kind.UUID: pa.string(),
    Kind.REGEX: pa.struct([("pattern", pa.string()), ("options", pa.string())]),
    Kind.TIMESTAMP: pa.struct([("t", pa.int64()), ("i", pa.int64())]),
    Kind.JSON: pa.string(),
    Kind.TEXT: pa.string(),
}
_WIRE: dict[Kind, pa.DataType | None] = {
    Kind.STRING: pa.string(),
    Kind.LONG: pa.int64(),
    Kind.DOUBLE: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.OBJECT_ID: pa.struct([("$oid", pa.string())]),
    Kind.DATE: pa.struct([("$date", pa.int64())]),
    Kind.UUID: _BINARY_WIRE,
    Kind.REGEX: pa.struct([("$regex", pa.string()), ("$options", pa.string())]),
    Kind.TIMESTAMP: pa.struct([("$timestamp", pa.struct([("t", pa.int64()), ("i", pa.int64())]))]),
    Kind.JSON: None,
    Kind.TEXT: pa.string(),
}


@dataclass(frozen=True)
class Scalar:
    kind: Kind

    @property
    def storage(self) -> pa.DataType:
        return _STORAGE[self.kind]

    @property
    def wire(self) -> pa.DataType | None:
        return _WIRE[self.kind]

    @property
    def text(self) -> str:
        return self.kind.value


@dataclass(frozen=True)
class Decimal:
    """decimal128, stored as decimal(38, scale)."""

    scale: int = DEFAULT_DECIMAL_SCALE

    @property
    def storage(self) -> pa.DataType:
        return pa.decimal128(DECIMAL_PRECISION, self.scale)

    @property
    def wire(self) -> pa.DataType | None:
        return pa.struct([("$numberDecimal", pa.string())])

    @property
    def text(self) -> str:
        return f"decimal:{self.scale}"


@dataclass(frozen=True)
class Number:
    """Integers and doubles together, stored as decimal(38, scale): only promotion makes it.

    A whole number that an int64 holds stands for that integer, any other for the double of which it is the shortest
    text. On the wire it is a double: `pyarrow.json` would take the string "2.5" for a decimal.
    """

    scale: int = FINE_DECIMAL_SCALE

    @property
    def storage(self) -> pa.DataType:
        return pa.decimal128(DECIMAL_PRECISION, self.scale)

    @property
    def wire(self) -> pa.DataType | None:
        return pa.float64()

    @property
    def text(self) -> str:
        return f"number:{self.scale}"


@dataclass(frozen=True)
class Binary:
    """Bytes of one BSON subtype. UUIDs (subtype 4, 16 bytes) are `Scalar(Kind.UUID)`."""

    subtype: int = 0

    @property
    def storage(self) -> pa.DataType:
        return pa.binary()

    @property
    def wire(self) -> pa.DataType | None:
        return _BINARY_WIRE

    @property
    def text(self) -> str:
        return f"binary:{self.subtype:02x}"


@dataclass(frozen=True)
class Null:
    """Not known yet: only nulls, empty arrays and empty objects were seen. It has no column; on the wire it accepts
    null only.
    """

    @property
    def storage(self) -> pa.DataType:
        raise TypeError("a field without a known type has no column")

    @property
    def wire(self) -> pa.DataType | None:
        return pa.null()

    @property
    def text(self) -> str:
        return "null"


@dataclass(frozen=True)
class List:
    element: "FieldType"

    @property
    def storage(self) -> pa.DataType:
        # The name that Delta gives a list's element in Parquet.
        return pa.list_(pa.field("element", self.element.storage))

    @property
    def wire(self) -> pa.DataType | None:
        element = self.element.wire
        return None if element is None else pa.list_(element)

    @property
    def text(self) -> str:
        return f"array<{self.element.text}>"


@dataclass(frozen=True)
class Field:
    """`name` as MongoDB has it; `column`, the name it is stored under."""

    name: str
    type: "FieldType"
    column: str = field(default="")

    def __post_init__(self) -> None:
        if not self.column:
            object.__setattr__(self, "column", column_name(self.name))

    @property
    def wire(self) -> pa.DataType | None:
        """The member's type on the wire; None also when its name makes the object look like a wrapper."""
        return None if self.name in WRAPPER_NAMES else self.type.wire


@dataclass(frozen=True)
class Struct:
    """Members in column order. Those of type `Null` are known by name only: they have no column."""

    fields: tuple[Field, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Field]:
        return {member.name: member for member in self.fields}

    @cached_property
    def taken_columns(self) -> frozenset[str]:
        return frozenset(member.column.casefold() for member in self.fields)

    @cached_property
    def stored(self) -> tuple[Field, ...]:
        """The members that have a column."""
        return tuple(member for member in self.fields if not isinstance(member.type, Null))

    @cached_property
    def storage(self) -> pa.StructType:
        return pa.struct([pa.field(member.column, member.type.storage) for member in self.stored])

    @cached_property
    def wire(self) -> pa.StructType | None:
        members = []
        for member in self.fields:
            wire = member.wire
            if wire is None:
                return None
            members.append(pa.field(member.name, wire))
        return pa.struct(members)

    @property
    def text(self) -> str:
        return "struct"

    def accepts_new(self, name: str, *, top_level: bool, max_fields: int) -> bool:
        """Whether a field of this new name can get a column beside those that are known."""
        column = column_name(name).casefold()
        reserved = top_level and column.startswith(RESERVED_PREFIX)
        return not reserved and column not in self.taken_columns and len(self.fields) < max_fields


@dataclass(frozen=True)
class DocumentSchema(Struct):
    """The root: top-level fields of the documents of one collection."""

    def typed(self) -> "DocumentSchema":
        """Without the fields that have no column: what a table's stored schema says. Compare these to see whether a
        table must change.
        """
        return DocumentSchema(tuple(_typed_members(self)))


FieldType = Scalar | Decimal | Number | Binary | Null | List | Struct

STRING: Final = Scalar(Kind.STRING)
LONG: Final = Scalar(Kind.LONG)
DOUBLE: Final = Scalar(Kind.DOUBLE)
BOOLEAN: Final = Scalar(Kind.BOOLEAN)
OBJECT_ID: Final = Scalar(Kind.OBJECT_ID)
DATE: Final = Scalar(Kind.DATE)
UUID: Final = Scalar(Kind.UUID)
REGEX: Final = Scalar(Kind.REGEX)
TIMESTAMP: Final = Scalar(Kind.TIMESTAMP)
JSON: Final = Scalar(Kind.JSON)
TEXT: Final = Scalar(Kind.TEXT)
NULL: Final = Null()


def column_name(name: str) -> str:
    """The name a field is stored under: what Delta, Parquet or SQL cannot hold becomes `_`."""
    return _UNSAFE_CHARACTER.sub("_", name) or "_"


def _typed_members(struct: Struct) -> Iterator[Field]:
    for member in struct.stored:
        yield Field(member.name, _typed(member.type), member.column)


def _typed(type_: FieldType) -> FieldType:
    if isinstance(type_, Struct):
        return Struct(tuple(_typed_members(type_)))
    if isinstance(type_, List):
        return List(_typed(type_.element))
    return type_
