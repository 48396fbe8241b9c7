"""A batch of decoded documents through the transformation rules: columns where they tell all, documents elsewhere."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from cdc_shared.documents import types as t
from cdc_shared.documents.decoder import Decoded
from cdc_shared.documents.extended_json import parse_document
from cdc_shared.documents.inference import infer_documents
from cdc_shared.documents.pointers import pointer_names
from cdc_shared.documents.policies import FieldPolicies
from cdc_shared.documents.walker import Conflicts, UnknownField, WalkedRows, walk_documents
from cdc_shared.rules.arrow_columns import Flags, Rows, flags
from cdc_shared.rules.arrow_engine import ArrowEngine
from cdc_shared.rules.transformation import Counts, Document, Step, transform_of

POINTERS_REMEMBERED = 4096
_read_pointers = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True)
class Transformed:
    """`counts`: kind and path of each mask or convert rule → the values that it changed."""

    decoded: Decoded
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)


class BatchTransformation:
    """The transformation rules of one collection."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._transforms = [transform_of(step) for step in steps]
        self._touches = lru_cache(POINTERS_REMEMBERED)(self._touches_pointer)

    def document(self, document: Document, counts: Counts) -> Document:
        """One document after all rules."""
        for transform in self._transforms:
            document = transform(document, counts)
        return document

    def batch(self, decoded: Decoded, texts: Sequence[str], policies: FieldPolicies) -> Transformed:
        """Decoded documents after all rules."""
        if not self._steps:
            return Transformed(decoded)
        engine = ArrowEngine(decoded, self._rows_for_documents(decoded))
        for step in self._steps:
            engine.apply(step)
        schema, table = engine.result()
        counts = engine.counts()
        rows = np.flatnonzero(engine.by_document)
        documents = [
            {} if row in decoded.invalid else self.document(parse_document(texts[row]), counts) for row in rows.tolist()
        ]
        return Transformed(self._assembled(decoded, schema, table, rows, documents, policies), counts)

    def _rows_for_documents(self, decoded: Decoded) -> Flags:
        """The rows with a rescued value that a rule may touch, and those that hold no document."""
        marked = np.zeros(len(decoded.rescued), np.bool_)
        for row in np.flatnonzero(flags(decoded.rescued.is_valid())).tolist():
            marked[row] = any(self._touches(pointer) for pointer in _pointers(decoded.rescued[row].as_py()))
        marked[list(decoded.invalid)] = True
        return marked

    def _touches_pointer(self, pointer: str) -> bool:
        names = tuple(pointer_names(pointer))
        return any(step.touches(names) for step in self._steps)

    def _assembled(
        self,
        decoded: Decoded,
        schema: t.DocumentSchema,
        table: pa.Table,
        rows: Rows,
        documents: list[Document],
        policies: FieldPolicies,
    ) -> Decoded:
        """The table with the rows of `documents` put in their places."""
        kept = {p: kinds for p, kinds in decoded.stats.conflicts.items() if not self._touches(p)}
        failures = {row: p for row, p in decoded.failures.items() if not self._touches(p)}
        stats = replace(decoded.stats, conflicts=kept)
        if not len(rows):
            return replace(decoded, schema=schema, table=table, stats=stats, failures=failures)
        schema, walked = _walked(documents, schema, policies)
        places = np.arange(len(decoded.rescued))
        places[rows] = np.arange(len(places), len(places) + len(rows))
        order: t.ArrowArray = pa.array(places)
        if schema.stored:
            rows_apart = pa.Table.from_arrays(walked.columns(schema), schema=pa.schema(schema.storage))
            table = pa.concat_tables([_as_wide(table, schema), rows_apart]).take(order)
        rescued = pa.concat_arrays([decoded.rescued, pa.array(walked.rescued, pa.string())]).take(order)
        were_rescued = sum(len(_pointers(decoded.rescued[row].as_py())) for row in rows.tolist())
        stats = replace(
            stats,
            rescued_rows=len(rescued) - rescued.null_count,
            rescued_values=stats.rescued_values - were_rescued + walked.rescued_values,
            conflicts=_joined(kept, walked.conflicts),
        )
        failures = {row: pointer for row, pointer in failures.items() if row not in set(rows.tolist())}
        failures |= {int(rows[index]): pointer for index, pointer in walked.failures.items()}
        return replace(decoded, schema=schema, table=table, rescued=rescued, stats=stats, failures=failures)


def _walked(
    documents: list[Document], schema: t.DocumentSchema, policies: FieldPolicies
) -> tuple[t.DocumentSchema, WalkedRows]:
    """The documents as rows of the schema, widened if they call for it."""
    try:
        return schema, walk_documents(documents, schema, may_widen=True, policies=policies)
    except UnknownField:
        schema = infer_documents(documents, schema, policies=policies)
        return schema, walk_documents(documents, schema, policies=policies)


def _pointers(rescued: str | None) -> list[str]:
    """The pointers of a row's rescued values."""
    return [] if rescued is None else list(_read_pointers(rescued))


def _joined(kept: Mapping[str, Counter[str]], walked: Conflicts) -> Conflicts:
    """Conflicts of untouched fields were counted when they were decoded, the others when they were walked."""
    return {**walked, **kept}


def _as_wide(table: pa.Table, schema: t.DocumentSchema) -> pa.Table:
    """The table in the columns of a schema that knows more fields: null where they are new."""
    storage = pa.schema(schema.storage)
    if table.schema.equals(storage):
        return table
    columns: list[Any] = [
        table.column(each.name).cast(each.type)
        if each.name in table.column_names
        else pa.nulls(table.num_rows, each.type)
        for each in storage
    ]
    return pa.Table.from_arrays(columns, schema=storage)
