"""Which kind of type a BSON value calls for: what inference votes on and what the walker fits."""

from typing import Any, Final

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp

from cdc_shared.documents import types as t
from cdc_shared.documents.bson_values import DbPointer, DuplicateKeys, RegularExpression, Symbol, Undefined

UUID_SUBTYPE: Final = 4
UUID_BYTES: Final = 16

NOTHING: Final = "nothing"
NUMBER: Final = "number"
OBJECT: Final = "object"
ARRAY: Final = "array"

_KINDS: Final[dict[type, Any]] = {
    type(None): NOTHING,
    DuplicateKeys: NOTHING,  # rescued wherever it stands, so it has no say in a type
    dict: OBJECT,
    list: ARRAY,
    int: NUMBER,
    Int64: NUMBER,
    float: NUMBER,
    str: t.STRING,
    bool: t.BOOLEAN,
    ObjectId: t.OBJECT_ID,
    DatetimeMS: t.DATE,
    Decimal128: t.Decimal(),
    RegularExpression: t.REGEX,
    Timestamp: t.TIMESTAMP,
    Code: t.JSON,
    MinKey: t.JSON,
    MaxKey: t.JSON,
    Undefined: t.JSON,
    Symbol: t.JSON,
    DbPointer: t.JSON,
}

DUPLICATE_NAMES: Final = "duplicate names"
TOO_MANY_MEMBERS: Final = "too many members"
NAME_CLASH: Final = "name clash"
"""What `kind_name` gives, and `DecodeStats.conflicts` counts, beside the names of BSON types."""


def kind_name(value: Any) -> str:
    """A value's kind in a word: `long`, `double`, `decimal`, `binary`, `object`, `array`, … or `duplicate names`."""
    type_ = type(value)
    if type_ is DuplicateKeys:
        return DUPLICATE_NAMES
    if type_ is int or type_ is Int64:
        return t.LONG.text
    if type_ is float:
        return t.DOUBLE.text
    kind = kind_of(value)
    return kind if isinstance(kind, str) else str(kind.text).partition(":")[0]


def kind_of(value: Any) -> Any:
    """NOTHING, NUMBER, OBJECT, ARRAY, or the scalar type itself."""
    type_ = type(value)
    return binary_kind(value) if type_ is Binary else _KINDS[type_]


def binary_kind(value: Binary) -> t.FieldType:
    """A 16-byte value of subtype 4 is a UUID; any other is binary of its subtype."""
    return t.UUID if value.subtype == UUID_SUBTYPE and len(value) == UUID_BYTES else t.Binary(value.subtype)
