"""What a `text` column shows of a value that is no string: for people, and not to be read back."""

from typing import Any

from bson import Binary, DatetimeMS, Decimal128, Int64, ObjectId

from cdc_shared.documents.bson_values import repeats_a_name
from cdc_shared.documents.extended_json import double_text, dump
from cdc_shared.documents.key_text import iso_date, key_text
from cdc_shared.documents.kinds import UUID_BYTES, UUID_SUBTYPE


def readable_text(value: Any) -> str:
    """Numbers, booleans, ObjectIds, UUIDs and dates (ISO 8601, UTC) without quotes; anything else as Extended JSON,
    relaxed as in `_cdc_key`.
    """
    type_ = type(value)
    if type_ is str:
        return str(value)
    if type_ is int or type_ is Int64:
        return str(int(value))
    if type_ is float:
        return double_text(value)
    if type_ is ObjectId or type_ is Decimal128:
        return str(value)
    if type_ is DatetimeMS:
        return iso_date(int(value)) or dump(value)
    if type_ is Binary and value.subtype == UUID_SUBTYPE and len(value) == UUID_BYTES:
        text = value.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return dump(value) if repeats_a_name(value) else key_text(value)
