"""What reconciliation's reading costs beside what the writer's way would: documents to digests, rows to digests.

The documents are those of the other benchmarks, as raw BSON. Measured in this process; needs no stack.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import bson
import pyarrow as pa

from bench.cost import measured
from bench.events import EventFactory
from bench.rules import RULES
from cdc_shared.delta.key_hash import hash_keys
from cdc_shared.documents import DocumentSchema, decode, document_text, parse_document
from cdc_shared.documents.policies import NONE
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.compiled import Rules
from reconciliation.reconciler.expected_rows import expect
from reconciliation.reconciler.independent_path import canonical_of_raw, canonical_of_rows
from reconciliation.reconciler.row_digest import RESCUED, row_digests

BATCH_DOCUMENTS = 10_000
ROUNDS = 3
"""Medians of so many; all ways are measured in turns, so that a busy moment of the machine meets all of them."""
SAMPLED_DOCUMENTS = 5_000
KEY = b"a key for this benchmark"


@dataclass
class CostOfReconciling:
    """Documents or rows in a CPU second, medians over the rounds."""

    documents: int
    source_per_s: float
    """Raw BSON → key hash and row digest."""
    source_with_rules_per_s: float
    """The same with five transformation rules, two of them masks."""
    by_text_per_s: float
    """Raw BSON → text → columns, as the writer decodes: what the reading of raw BSON saves."""
    sink_per_s: float
    """Rows → digest."""
    witness_per_s: float
    """A sampled key by the second way, both sides together."""


def measure_reconciling(documents: int, seed: int) -> CostOfReconciling:
    """Measure all ways in turns."""
    raw = [_raw(text) for text in _texts(documents, seed)]
    plain = Rules.compile(QualitySpec(), "orders", lambda _: KEY)
    masking = Rules.compile(RULES, "orders", lambda _: KEY)
    rows, schema = _table(raw, plain)
    _, masked_schema = _table(raw[:BATCH_DOCUMENTS], masking)
    ways: dict[str, tuple[int, Callable[[], None]]] = {
        "source": (documents, lambda: _source(raw, schema, plain)),
        "rules": (documents, lambda: _source(raw, masked_schema, masking)),
        "text": (documents, lambda: _by_text(raw, schema)),
        "sink": (documents, lambda: _sink(rows, schema)),
        "witness": (min(documents, SAMPLED_DOCUMENTS), lambda: _witness(raw, rows, schema, plain)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (number, way) in ways.items():
            with measured() as cost:
                way()
            rates[name].append(number / cost.cpu_s)
    return CostOfReconciling(documents, *(median(rates[name]) for name in ways))


def _texts(documents: int, seed: int) -> Iterator[str]:
    return (json.loads(event.value or b"")["after"] for event in EventFactory(seed).inserts(documents))


def _raw(text: str) -> bytes:
    document: Any = parse_document(text)
    return bson.encode(document)


def _table(raw: list[bytes], rules: Rules) -> tuple[pa.Table, DocumentSchema]:
    """The rows that the writer makes of these documents, and their schema."""
    texts = [document_text(each) for each in raw]
    decoded = rules.transform(decode(texts, DocumentSchema()), texts).decoded
    names = [*decoded.table.column_names, RESCUED]
    return pa.Table.from_arrays([*decoded.table.columns, decoded.rescued], names=names), decoded.schema.typed()


def _batches(raw: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(raw), BATCH_DOCUMENTS):
        yield raw[start : start + BATCH_DOCUMENTS]


def _source(raw: list[bytes], schema: DocumentSchema, rules: Rules) -> None:
    for batch in _batches(raw):
        expected = expect(batch, schema, rules, NONE)
        if expected.statuses.any() or expected.table[RESCUED].null_count != len(batch):
            raise AssertionError("benchmark documents must fit the schema")
        hash_keys(expected.keys)
        row_digests(expected.table, schema)


def _by_text(raw: list[bytes], schema: DocumentSchema) -> None:
    for batch in _batches(raw):
        decode([document_text(each) for each in batch], schema)


def _sink(rows: pa.Table, schema: DocumentSchema) -> None:
    row_digests(rows, schema)


def _witness(raw: list[bytes], rows: pa.Table, schema: DocumentSchema, rules: Rules) -> None:
    sample = raw[:SAMPLED_DOCUMENTS]
    forms = [canonical_of_raw(each, rules) for each in sample]
    if forms != canonical_of_rows(rows.slice(0, len(sample)), schema):
        raise AssertionError("both ways must tell the same of benchmark documents")
