"""Documents that hold every BSON type."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.json_util import loads
from debezium_events import LEGACY

PAYLOADS = Path(__file__).parents[1] / "payloads" / "debezium-events.jsonl"

UNIFORM_DELTA_TYPES: dict[str, Any] = {
    "_id": "string",
    "str": "string",
    "int32": "long",
    "int64": "long",
    "dbl": "double",
    "dec": "decimal(38,10)",
    "bool": "boolean",
    "date": "timestamp",
    "oid": "string",
    "uuid": "string",
    "bin": "binary",
    "md5": "binary",
    "re": {"pattern": "string", "options": "string"},
    "ts": {"t": "long", "i": "long"},
    "code": "string",
    "scoped": "string",
    "min": "string",
    "max": "string",
    "obj": {"n": "long", "deep": {"when": "timestamp", "tags": ["string"]}},
    "longs": ["long"],
    "objs": [{"sku": "string", "price": "decimal(38,10)"}],
    "mixed": "string",
}
"""The Delta type of each column of a collection of `uniform_document`s (docs/architecture/types.md), as `delta_type`
spells them. A field that is always null has no column."""


def golden_document() -> dict[str, Any]:
    """The fields, without `_id`, of the document whose capture is the golden payload: one field a BSON type."""
    with PAYLOADS.open(encoding="utf-8") as lines:
        events = [json.loads(line) for line in lines]
    after = next(event["value"]["after"] for event in events if event["topic"].endswith(".rich"))
    document: dict[str, Any] = loads(after, json_options=LEGACY)
    del document["_id"]
    return document


def uniform_document(n: int) -> dict[str, Any]:
    """The n-th document of a collection in which every field has one BSON type in all documents, or is null."""
    moment = datetime(2024, 2, 29, 12, 34, 56, 789_000, UTC) + timedelta(days=n, milliseconds=n)
    return {
        "_id": ObjectId(f"{n:024x}"),
        "str": f'héllo "{n}" \u2028 日本 😀' if n % 2 else "",
        "int32": n - 50,
        "int64": Int64(2**53 + n),
        "dbl": (float("nan"), float("inf"), -0.0, n / 7)[n % 4],
        "dec": Decimal128(f"{n}12345678901234567.0123456789"),
        "bool": n % 2 == 0,
        "date": moment,
        "oid": ObjectId(f"{2**90 + n:024x}"),
        "uuid": Binary.from_uuid(uuid.UUID(int=2**100 + n)),
        "bin": Binary(bytes([n % 256, 0, 255])),
        "md5": Binary(n.to_bytes(16, "big"), 5),
        "re": Regex(f"^a{n}.*$", "im"),
        "ts": Timestamp(1_700_000_000 + n, n),
        "code": Code(f"function() {{ return {n} }}"),
        "scoped": Code("f(x)", {"x": n}),
        "min": MinKey(),
        "max": MaxKey(),
        "obj": {"n": n, "deep": {"when": moment, "tags": ["x"] * (n % 3)}},
        "longs": [Int64(n), Int64(-n)],
        "objs": [{"sku": f"s{n}", "price": Decimal128(f"{n}.50")}] * (n % 3),
        "mixed": [n, f"{n}", None, [n / 2]],
        "null": None,
    }


def delta_type(type_json: Any) -> Any:
    """A Delta type as in a table's schema, briefly: a struct is a dict, an array a list of one, the rest a name."""
    if not isinstance(type_json, dict):
        return type_json
    if type_json["type"] == "struct":
        return {field["name"]: delta_type(field["type"]) for field in type_json["fields"]}
    return [delta_type(type_json["elementType"])]
