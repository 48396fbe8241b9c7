"""The rows that a collection's documents should have in its table: made of raw BSON as the writer makes them.

    raw BSON ──> decode_raw ──> rules.validate ──> rules.transform ──> fit into the table's columns
                 (in the documents' own schema)                        (or into `_cdc_rescued`)

The table's schema is that of one version and is not widened: a field that it has no column for is rescued, and so its
row equals none that the writer made with another schema, unless the writer rescued it as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cdc_shared.dead_letters.rejection import ReasonCode
from cdc_shared.documents import (
    DocumentSchema,
    FieldPolicies,
    InvalidBson,
    document_key,
    fit_exactly,
)
from cdc_shared.models.data_quality import MONGODB_MAX_DOCUMENT_BYTES
from cdc_shared.rules.compiled import Rules
from reconciliation.reconciler.bson_decoder import DocumentTexts, decode_raw
from reconciliation.reconciler.row_digest import RESCUED
from reconciliation.reconciler.spill import SourceStatus

Statuses = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ExpectedRows:
    """One row a document, in the order of the documents.

    Attributes:
        keys: as the rows have them in `_cdc_key`; empty where the bytes name no `_id`.
        source_keys: Debezium's key text of the `_id`; another than `keys` only where a rule masks `_id`.
        table: the stored columns of the schema and `_cdc_rescued`. What a row holds that is not EXPECTED says nothing.
        statuses: of each, a `SourceStatus`: EXPECTED, REJECTED, FILTERED or UNREADABLE.
    """

    keys: list[str]
    source_keys: list[str]
    table: pa.Table
    statuses: Statuses


def expect(
    raw: Sequence[bytes],
    schema: DocumentSchema,
    rules: Rules,
    policies: FieldPolicies,
    *,
    max_document_bytes: int = MONGODB_MAX_DOCUMENT_BYTES,
) -> ExpectedRows:
    """The rows of these documents, in the columns of a table's schema. No document raises.

    Each document is judged alone: a `unique` rule, which looks at the writer's batches, rejects nothing here.
    """
    schema = schema.typed()  # a field without a column must not pass for one that has its values
    texts = DocumentTexts(raw)
    known = _known_schema(schema, rules, policies)
    decoded = decode_raw(raw, known.schema, policies)
    known.schema = decoded.schema
    statuses = np.full(len(raw), SourceStatus.EXPECTED, np.uint8)
    statuses[list(decoded.invalid)] = SourceStatus.UNREADABLE
    source_keys = [_key(each) for each in raw]
    _mark(statuses, [row for row, key in enumerate(source_keys) if not key], SourceStatus.UNREADABLE)
    sizes = np.fromiter(map(len, raw), np.int64, len(raw))
    _mark(statuses, np.flatnonzero(sizes > min(max_document_bytes, MONGODB_MAX_DOCUMENT_BYTES)), SourceStatus.REJECTED)
    if rules.validates:
        # With one key for all of them, documents that have the same value do not meet as two in the rule `unique`.
        for row, why in rules.validate(decoded, texts, [""] * len(texts)).items():
            is_filtered = why.code is ReasonCode.FILTERED
            _mark(statuses, [row], SourceStatus.FILTERED if is_filtered else SourceStatus.REJECTED)
    if rules.transforms:
        decoded = rules.transform(decoded, texts, policies=policies).decoded
    fitted = fit_exactly(decoded, schema)
    keys = [rules.key_text(key) if key else "" for key in source_keys] if rules.changes_keys else source_keys
    table = pa.Table.from_arrays([*fitted.table.columns, fitted.rescued], names=[*fitted.table.column_names, RESCUED])
    return ExpectedRows(keys, source_keys, table, statuses)


def _mark(statuses: Statuses, rows: Sequence[int] | npt.NDArray[np.int64], status: SourceStatus) -> None:
    """The first reason is the one that counts, as for the writer."""
    rows = np.asarray(rows, np.int64)
    statuses[rows[statuses[rows] == SourceStatus.EXPECTED]] = status


def _key(raw: bytes) -> str:
    try:
        return document_key(raw)
    except InvalidBson:
        return ""


@dataclass
class _KnownSchema:
    """What the documents so far have shown of their own schema, as the writer remembers it: fields that were only null
    so far, and those that rules change. Looking for them in each batch again costs ten times what decoding does.
    """

    schema: DocumentSchema


@lru_cache(maxsize=16)
def _known_schema(schema: DocumentSchema, rules: Rules, policies: FieldPolicies) -> _KnownSchema:  # noqa: ARG001
    return _KnownSchema(rules.source_schema(schema))
