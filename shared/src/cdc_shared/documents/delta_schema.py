"""A table's schema in its three forms: DocumentSchema, the `schemaString` of the Delta log, and the Arrow schema of its
Parquet files.

The platform's own columns come first, then the document's fields. What Delta's types cannot say stands in a field's
metadata: `cdc.type` is the type's name (a list's goes all the way down, because elements have no metadata), `cdc.name`
the field's name in MongoDB where it differs from the column's.
"""

import json
import re
from typing import Any, Final

import pyarrow as pa

from cdc_shared.documents import types as t
from cdc_shared.errors import Fatal

TYPE_KEY: Final = "cdc.type"
NAME_KEY: Final = "cdc.name"

_OWN_COLUMNS: "Final[list[pa.Field[Any]]]" = [
    # Never null, but not declared so: NOT NULL is the feature `invariants`, without which Spark refuses the table.
    pa.field("_cdc_key", pa.string()),
    pa.field("_cdc_source_ts", pa.timestamp("us", "UTC")),
    pa.field("_cdc_partition", pa.int32()),
    pa.field("_cdc_offset", pa.int64()),
    pa.field("_cdc_rules_version", pa.int32()),
    pa.field("_cdc_rescued", pa.string()),
]
CDC_DELETED: Final = pa.field("_cdc_deleted", pa.bool_())
"""The further column of a table with soft deletes."""
CDC_OP: Final = pa.field("_cdc_op", pa.string())
"""The further column of a history table, whose rows are events."""

_REGEX_MEMBERS: Final = ("pattern", "options")
_TIMESTAMP_MEMBERS: Final = ("t", "i")
_PLAIN_DELTA: Final[dict[t.Kind, str]] = {
    t.Kind.STRING: "string",
    t.Kind.LONG: "long",
    t.Kind.DOUBLE: "double",
    t.Kind.BOOLEAN: "boolean",
    t.Kind.OBJECT_ID: "string",
    t.Kind.DATE: "timestamp",
    t.Kind.UUID: "string",
    t.Kind.JSON: "string",
    t.Kind.TEXT: "string",
}
_CDC_DELTA: Final = {
    pa.string(): "string",
    pa.timestamp("us", "UTC"): "timestamp",
    pa.int32(): "integer",
    pa.int64(): "long",
    pa.bool_(): "boolean",
}
_PARAMETER: Final = re.compile(r"(decimal|number|binary):([0-9a-f]{1,2})")


def cdc_columns(*, soft_deletes: bool = False, history: bool = False) -> pa.Schema:
    """The platform's own columns of a table."""
    further = [CDC_OP] * history + [CDC_DELETED] * soft_deletes
    return pa.schema([*_OWN_COLUMNS, *further])


def parquet_schema(schema: t.DocumentSchema, *, soft_deletes: bool = False, history: bool = False) -> pa.Schema:
    """The Arrow schema of a table's Parquet files: the platform's columns, then the document's."""
    return pa.schema([*cdc_columns(soft_deletes=soft_deletes, history=history), *schema.storage.fields])


def to_delta_schema(schema: t.DocumentSchema, *, soft_deletes: bool = False, history: bool = False) -> str:
    """The `schemaString` of a table's `metaData` action. Fields without a known type are not in it."""
    own = [
        _field_json(column.name, _CDC_DELTA[column.type], column.nullable, {})
        for column in cdc_columns(soft_deletes=soft_deletes, history=history)
    ]
    return json.dumps(
        {"type": "struct", "fields": own + _members_json(schema)}, ensure_ascii=False, separators=(",", ":")
    )


def from_delta_schema(schema_string: str) -> t.DocumentSchema:
    """The document schema of a table that this platform made; exactly what `to_delta_schema` was given, without untyped
    fields.

    Raises Fatal, naming the field, when a column is not as this platform writes it: the table is somebody else's.
    """
    fields = _parsed_fields(schema_string)
    _check_cdc_columns(fields)
    return t.DocumentSchema(
        tuple(_member(name, field) for name, field in fields.items() if not name.startswith(t.RESERVED_PREFIX))
    )


def has_soft_deletes(schema_string: str) -> bool:
    """Whether the table has the column `_cdc_deleted`."""
    return CDC_DELETED.name in _parsed_fields(schema_string)


# --- writing ----------------------------------------------------------------------------------------------------------


def _field_json(name: str, type_: Any, nullable: bool, metadata: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "type": type_, "nullable": nullable, "metadata": metadata}


def _members_json(struct: t.Struct) -> list[dict[str, Any]]:
    members = []
    for member in struct.stored:
        metadata = {TYPE_KEY: member.type.text}
        if member.name != member.column:
            metadata[NAME_KEY] = member.name
        members.append(_field_json(member.column, _type_json(member.type), True, metadata))
    return members


def _type_json(type_: t.FieldType) -> Any:
    if isinstance(type_, t.Struct):
        return {"type": "struct", "fields": _members_json(type_)}
    if isinstance(type_, t.List):
        return {"type": "array", "elementType": _type_json(type_.element), "containsNull": True}
    if isinstance(type_, t.Decimal | t.Number):
        return f"decimal({t.DECIMAL_PRECISION},{type_.scale})"
    if isinstance(type_, t.Binary):
        return "binary"
    if isinstance(type_, t.Null):
        raise TypeError("a field without a known type has no column")
    if type_.kind is t.Kind.REGEX:
        return {"type": "struct", "fields": [_field_json(name, "string", True, {}) for name in _REGEX_MEMBERS]}
    if type_.kind is t.Kind.TIMESTAMP:
        return {"type": "struct", "fields": [_field_json(name, "long", True, {}) for name in _TIMESTAMP_MEMBERS]}
    return _PLAIN_DELTA[type_.kind]


# --- reading ----------------------------------------------------------------------------------------------------------


def _parsed_fields(schema_string: str) -> dict[str, dict[str, Any]]:
    try:
        return {field["name"]: field for field in json.loads(schema_string)["fields"]}
    except (ValueError, KeyError, TypeError):
        raise Fatal("the table's schema is not a Delta struct") from None


def _check_cdc_columns(fields: dict[str, dict[str, Any]]) -> None:
    for column in cdc_columns(soft_deletes=CDC_DELETED.name in fields, history=CDC_OP.name in fields):
        if fields.get(column.name, {}).get("type") != _CDC_DELTA[column.type]:
            raise _foreign(column.name, f"it is missing or not of type {_CDC_DELTA[column.type]}")


def _member(path: str, field: dict[str, Any]) -> t.Field:
    metadata = field.get("metadata") or {}
    text = metadata.get(TYPE_KEY)
    if text is None:
        raise _foreign(path, f"its metadata has no {TYPE_KEY!r}")
    type_ = _type(path, text, field["type"])
    return t.Field(metadata.get(NAME_KEY, field["name"]), type_, field["name"])


def _type(path: str, text: str, delta: Any) -> t.FieldType:
    """The type that `text` names, checked against the Delta type of its column."""
    type_ = _named_type(path, text, delta)
    if not isinstance(type_, t.Struct | t.List) and _without_metadata(_type_json(type_)) != _without_metadata(delta):
        raise _foreign(path, f"{TYPE_KEY} is {text!r} and the column's type is {json.dumps(delta)}")
    return type_


def _named_type(path: str, text: str, delta: Any) -> t.FieldType:
    if text == "struct":
        members = _nested(path, text, delta, "struct", "fields")
        return t.Struct(tuple(_member(f"{path}.{member['name']}", member) for member in members))
    if text.startswith("array<") and text.endswith(">"):
        return t.List(
            _type(f"{path}.element", text[len("array<") : -1], _nested(path, text, delta, "array", "elementType"))
        )
    parameter = _PARAMETER.fullmatch(text)
    if parameter:
        name, number = parameter.groups()
        if name == "binary":
            return t.Binary(int(number, 16))
        if number.isdecimal():
            return t.Decimal(int(number)) if name == "decimal" else t.Number(int(number))
    try:
        return t.Scalar(t.Kind(text))
    except ValueError:
        raise _foreign(path, f"{TYPE_KEY} is {text!r}, which this version does not know") from None


def _nested(path: str, text: str, delta: Any, kind: str, key: str) -> Any:
    if isinstance(delta, dict) and delta.get("type") == kind and key in delta:
        return delta[key]
    raise _foreign(path, f"{TYPE_KEY} is {text!r} and the column's type is {json.dumps(delta)}")


def _without_metadata(delta: Any) -> Any:
    if isinstance(delta, dict):
        return (delta.get("type"), [(field["name"], field["type"]) for field in delta.get("fields", [])])
    return delta


def _foreign(path: str, reason: str) -> Fatal:
    return Fatal(
        f"the table's column {path!r} is not as this platform writes it ({reason}): another tool made or changed the"
        " table. Choose another delta root, or move the table away"
    )
