"""A batch of decoded documents through the transformation rules: columns where they tell all, documents elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from cdc_shared.documents import types as t
from cdc_shared.documents.bson_values import DuplicateKeys
from cdc_shared.documents.decoder import Decoded
from cdc_shared.documents.extended_json import parse, parse_document, string_text
from cdc_shared.documents.inference import infer_documents
from cdc_shared.documents.pointers import pointer_names, pointer_to
from cdc_shared.documents.policies import FieldPolicies
from cdc_shared.documents.walker import UnknownField, WalkedRows, walk_documents
from cdc_shared.rules.arrow_columns import Flags, Rows, flags
from cdc_shared.rules.arrow_engine import ArrowEngine
from cdc_shared.rules.transformation import Counts, Document, Step, pairs_of, transform_of

POINTERS_REMEMBERED = 4096
_WHOLE: Final = ""
"""The pointer of a document that has a top-level name twice."""
_read_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


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
        odd = self._odd_rows(decoded, np.flatnonzero(engine.by_document), texts, counts)
        return Transformed(self._assembled(decoded, schema, table, odd, policies), counts)

    def _rows_for_documents(self, decoded: Decoded) -> Flags:
        """The rows with a rescued value that a rule may touch, and those that hold no document."""
        marked = np.zeros(len(decoded.rescued), np.bool_)
        for row in np.flatnonzero(flags(decoded.rescued.is_valid())).tolist():
            marked[row] = any(self._touches(pointer) for pointer in _entries(decoded.rescued[row].as_py()))
        marked[list(decoded.invalid)] = True
        return marked

    def _touches_pointer(self, pointer: str) -> bool:
        names = tuple(pointer_names(pointer))
        return any(step.touches(names) for step in self._steps)

    def _odd_rows(self, decoded: Decoded, rows: Rows, texts: Sequence[str], counts: Counts) -> "_OddRows":
        documents: list[Document] = []
        left: list[dict[str, msgspec.Raw]] = []
        is_whole = np.zeros(len(rows), np.bool_)
        for index, row in enumerate(rows.tolist()):
            entries = _entries(decoded.rescued[row].as_py())
            document: Document = {}
            is_whole[index] = row in decoded.invalid or _WHOLE in entries
            if row not in decoded.invalid:
                document, is_whole[index] = self._odd_document(texts[row], bool(is_whole[index]), counts)
            documents.append(document)
            left.append({} if is_whole[index] else {p: value for p, value in entries.items() if not self._in_part(p)})
        return _OddRows(rows, documents, left, is_whole)

    def _odd_document(self, text: str, is_whole: bool, counts: Counts) -> tuple[Document, bool]:
        """A document after all rules, and whether it is the whole of it; otherwise the fields that rules may change.

        The whole also where rules bring two of these fields to one name: what is rescued then hides all other entries.
        """
        if not is_whole:
            changes = Counts()
            part = self.document(self._touched_part(text), changes)
            if not isinstance(part, DuplicateKeys):
                counts.update(changes)
                return part, False
        return self.document(parse_document(text), counts), True

    def _in_part(self, pointer: str) -> bool:
        """Whether a pointer leads into a top-level field that rules may change."""
        return self._touches(pointer_to("", pointer_names(pointer)[0]))

    def _touched_part(self, text: str) -> Document:
        """The fields that rules may change, of a document that has no name twice."""
        try:
            members = _read_members(text)
        except msgspec.MsgspecError:  # NaN, which is no JSON
            document = parse_document(text)
            return {name: value for name, value in pairs_of(document) if self._touches(pointer_to("", name))}
        return {
            name: parse(bytes(value).decode()) for name, value in members.items() if self._touches(pointer_to("", name))
        }

    def _assembled(
        self, decoded: Decoded, schema: t.DocumentSchema, table: pa.Table, odd: "_OddRows", policies: FieldPolicies
    ) -> Decoded:
        """The table with the odd rows put in their places: only their touched columns, where they are not whole."""
        kept = {p: kinds for p, kinds in decoded.stats.conflicts.items() if not self._touches(p)}
        failures = {row: p for row, p in decoded.failures.items() if not self._touches(p)}
        stats = replace(decoded.stats, conflicts=kept)
        if not len(odd.rows):
            return replace(decoded, schema=schema, table=table, stats=stats, failures=failures)
        schema, walked = _walked(odd.documents, schema, policies)
        rows = len(decoded.rescued)
        everywhere = odd.order(rows, np.ones(len(odd.rows), np.bool_))
        where_whole = odd.order(rows, odd.is_whole) if odd.is_whole.any() else None
        if schema.stored:
            apart = pa.Table.from_arrays(walked.columns(schema), schema=pa.schema(schema.storage))
            columns = [
                _placed(column, other, everywhere if self._is_changed(field, decoded.schema) else where_whole)
                for field, column, other in zip(
                    schema.stored, _as_wide(table, schema).columns, apart.columns, strict=True
                )
            ]
            table = pa.Table.from_arrays(columns, schema=pa.schema(schema.storage))
        texts = [_joined(left, text) for left, text in zip(odd.left, walked.rescued, strict=True)]
        rescued = pa.concat_arrays([decoded.rescued, pa.array(texts, pa.string())]).take(everywhere)
        entries = sum(len(_entries(text)) for text in texts)
        were = sum(len(_entries(decoded.rescued[row].as_py())) for row in odd.rows.tolist())
        stats = replace(
            stats,
            rescued_rows=len(rescued) - rescued.null_count,
            rescued_values=stats.rescued_values - were + entries,
            conflicts={**walked.conflicts, **kept},  # those of untouched fields were counted when they were decoded
        )
        for index, pointer in walked.failures.items():
            failures.setdefault(int(odd.rows[index]), pointer)
        return replace(decoded, schema=schema, table=table, rescued=rescued, stats=stats, failures=failures)

    def _is_changed(self, field: t.Field, before: t.DocumentSchema) -> bool:
        return field.name not in before.by_name or self._touches(pointer_to("", field.name))


@dataclass(frozen=True)
class _OddRows:
    """Rows that columns do not tell all of, and of each the transformed document: its touched fields, or the whole
    where a top-level name comes twice. `left` is what was rescued of the other fields.
    """

    rows: Rows
    documents: list[Document]
    left: list[dict[str, msgspec.Raw]]
    is_whole: Flags

    def order(self, rows: int, chosen: Flags) -> t.ArrowArray:
        """Which of the batch's rows, followed by these, go where, when the chosen ones take their places."""
        places = np.arange(rows)
        places[self.rows[chosen]] = rows + np.flatnonzero(chosen)
        return pa.array(places)


def _placed(column: t.ArrowArray, other: t.ArrowArray, order: t.ArrowArray | None) -> t.ArrowArray:
    if order is None:
        return column
    return pa.chunked_array([*column.chunks, *other.chunks], column.type).take(order)


def _walked(
    documents: list[Document], schema: t.DocumentSchema, policies: FieldPolicies
) -> tuple[t.DocumentSchema, WalkedRows]:
    """The documents as rows of the schema, widened if they call for it."""
    try:
        return schema, walk_documents(documents, schema, may_widen=True, policies=policies)
    except UnknownField:
        schema = infer_documents(documents, schema, policies=policies)
        return schema, walk_documents(documents, schema, policies=policies)


def _entries(rescued: str | None) -> dict[str, msgspec.Raw]:
    """Pointers and texts of a row's rescued values."""
    return {} if rescued is None else _read_members(rescued)


def _joined(left: Mapping[str, msgspec.Raw], rescued: str | None) -> str | None:
    """The `_cdc_rescued` of a row from what was left of the old one and the new one."""
    parts = [f"{string_text(pointer)}:{bytes(value).decode()}" for pointer, value in left.items()]
    parts += [] if rescued is None else [rescued[1:-1]]
    return "{" + ",".join(parts) + "}" if parts else None


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
