"""Decoding as tests call it: every row is held against its document at once."""

from __future__ import annotations

import json
from typing import Any

from cdc_shared.documents import Decoded, DocumentSchema, decode, equal
from cdc_shared.documents import types as t


def decoded(*texts: str, schema: DocumentSchema | None = None, **options: Any) -> Decoded:
    """Decode and check that every row holds its document."""
    result = decode(texts, schema or DocumentSchema(), **options)
    result.table.validate(full=True)
    assert result.table.num_rows == len(texts) or not result.table.num_columns
    for row, text in enumerate(texts):
        if row not in result.invalid:
            assert equal(text, row_of(result, row), result.schema, result.rescued[row].as_py())
    return result


def row_of(result: Decoded, row: int) -> dict[str, Any]:
    return {name: result.table[name][row].as_py() for name in result.table.column_names}


def column(result: Decoded, name: str) -> list[Any]:
    return result.table[name].to_pylist()


def rescued(result: Decoded) -> list[Any]:
    return [None if text is None else json.loads(text) for text in result.rescued.to_pylist()]


def known(**types: t.FieldType) -> DocumentSchema:
    return DocumentSchema(tuple(t.Field(name, type_) for name, type_ in types.items()))
