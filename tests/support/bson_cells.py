"""What a column must show for a BSON value, worked out by the `bson` package and not by the code under test."""

from __future__ import annotations

import json
import math
import struct
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import bson
from bson import Binary, CodecOptions, DatetimeConversion, DatetimeMS, Decimal128, ObjectId, Timestamp
from bson.json_util import JSONMode, JSONOptions, dumps
from bson_cases import BsonCase

EXACT: Final[CodecOptions[dict[str, Any]]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
CANONICAL: Final = JSONOptions(json_mode=JSONMode.CANONICAL, datetime_conversion=DatetimeConversion.DATETIME_MS)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
REGEX, SYMBOL, UNDEFINED, DB_POINTER = 0x0B, 0x0E, 0x06, 0x0C
STRUCTS: Final = ("object", "clashing_names", "reference", "db_pointer", "objects")
"""Fields whose columns hold structs: their members are compared by the canonical form alone."""
WRAPPERS: Final = "wrapper"
"""Sub-documents that spell a value become that value, which the `bson` package does not do."""


def assert_cell(case: BsonCase, cell: Any, rescued: str | None, cdc_type: str | None) -> None:
    """Raise AssertionError unless the value is in its cell, or, where the cell is NULL, in `_cdc_rescued`."""
    if case.field in STRUCTS or case.field == WRAPPERS:
        return
    if rescued is not None:
        assert cell is None, case.id
        assert json.loads(rescued) == {f"/{case.field}": _extended_json(case)}, case.id
    elif cdc_type == "json":
        assert json.loads(cell) == _extended_json(case), case.id
    else:
        assert _same(cell, _shown(case)), f"{case.id}: {cell!r:.200}"


def _extended_json(case: BsonCase) -> Any:
    if case.value.type == SYMBOL:
        return {"$symbol": case.value.content[4:-1].decode()}
    if case.value.type == UNDEFINED:
        return {"$undefined": True}
    return json.loads(dumps(_decoded(case), json_options=CANONICAL))


def _shown(case: BsonCase) -> Any:
    if case.value.type == REGEX:
        pattern, options, _ = case.value.content.decode().split("\0")
        return {"pattern": pattern, "options": "".join(sorted(options))}
    return _shown_value(_decoded(case))


def _shown_value(value: Any) -> Any:
    match value:
        case list():
            return [_shown_value(element) for element in value]
        case Decimal128():
            return value.to_decimal()
        case ObjectId():
            return str(value)
        case DatetimeMS():
            return EPOCH + timedelta(milliseconds=int(value))
        case Binary(subtype=4) if len(value) == 16:
            return str(uuid.UUID(bytes=bytes(value)))
        case bytes():
            return bytes(value)
        case Timestamp():
            return {"t": value.time, "i": value.inc}
        case _:
            return value


def _decoded(case: BsonCase) -> Any:
    return bson.decode(case.raw, codec_options=EXACT)[case.field]


def _same(cell: Any, shown: Any) -> bool:
    if isinstance(shown, float) and isinstance(cell, float):
        return (math.isnan(shown) and math.isnan(cell)) or struct.pack("<d", cell) == struct.pack("<d", shown)
    return bool(cell == shown)
