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


def kind_of(value: Any) -> Any:
    """NOTHING, NUMBER, OBJECT, ARRAY, or the scalar type itself."""
    type_ = type(value)
    return binary_kind(value) if type_ is Binary else _KINDS[type_]


def binary_kind(value: Binary) -> t.FieldType:
    """A 16-byte value of subtype 4 is a UUID; any other is binary of its subtype."""
    return t.UUID if value.subtype == UUID_SUBTYPE and len(value) == UUID_BYTES else t.Binary(value.subtype)
