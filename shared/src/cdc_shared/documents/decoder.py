"""Document texts of one collection → the columns of its table.

Blocks go through the fast path, without the fields that need the slow one; a block that it refuses is tried again in
small pieces, so that one odd document costs the slow path only the few documents around it. What the schema does not
know yet widens it, once a call, from all the documents that were refused.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from cdc_shared.documents import types as t
from cdc_shared.documents.fast_decoder import Refused, decode_lines, encoded
from cdc_shared.documents.inference import DEFAULT_MAX_STRUCT_FIELDS, infer
from cdc_shared.documents.odd_values import suspects_of
from cdc_shared.documents.policies import NONE, FieldPolicies
from cdc_shared.documents.rescued_values import Conflicts, merge_conflicts
from cdc_shared.documents.split_decoder import decode_split
from cdc_shared.documents.walker import UnknownField, WalkedRows, walk

BLOCK_ROWS = 4096
BLOCK_CHARACTERS = 16 * 2**20
SMALL_BLOCK_ROWS = 256
SAMPLE_ROWS = 1024
"""How many documents of a new collection's first batch are looked at before the fast path is tried."""
SMALLEST_ROWS = 16
"""An attempt of the fast path costs about as much as walking this many documents."""
BLAMED_OFTEN = 3
"""Refusals for the same reason, after which its field is walked alone: cheaper than looking for more odd documents."""


@dataclass(frozen=True)
class DecodeStats:
    rows: int = 0
    walked_rows: int = 0
    """Rows that took the slow path."""
    rescued_rows: int = 0
    rescued_values: int = 0
    conflicts: Mapping[str, Counter[str]] = field(default_factory=dict)
    """JSON Pointer of a known field → how often values of which kind (`kinds.kind_name`) did not fit its column.

    What has no field of its own stands under the object's pointer, as `too many members` or `name clash`.
    """


@dataclass(frozen=True)
class Decoded:
    """`table` has one column a typed field of `schema`, under its storage name and of its storage type, and a row a
    text, in order.

    `rescued` is a string array beside it, null where nothing was rescued. A row in `invalid` (row → reason, free of
    document content) is null in every column.
    """

    schema: t.DocumentSchema
    table: pa.Table
    rescued: pa.StringArray
    invalid: dict[int, str] = field(default_factory=dict)
    stats: DecodeStats = field(default_factory=DecodeStats)
    failures: dict[int, str] = field(default_factory=dict)
    """Row → JSON Pointer of its first value that did not fit a field whose policy is `fail`. It is rescued as well."""


@dataclass
class _Block:
    start: int
    columns: list[t.ArrowArray]
    schema: t.DocumentSchema
    rows: int
    rescued: list[str | None] | None = None


Span = tuple[int, int]


def decode(
    texts: Sequence[str],
    schema: t.DocumentSchema,
    *,
    policies: FieldPolicies = NONE,
    max_struct_fields: int = DEFAULT_MAX_STRUCT_FIELDS,
) -> Decoded:
    """Decode documents (Debezium's `after` texts) against a schema, widening it where they call for it.

    Every value is in its column exactly, or null there and whole in `rescued`. A text that is no document is in
    `invalid`; no document raises.
    """
    return _Decoding(texts, schema, policies, max_struct_fields).run()


class _Decoding:
    """One call of `decode`."""

    def __init__(
        self, texts: Sequence[str], schema: t.DocumentSchema, policies: FieldPolicies, max_struct_fields: int
    ) -> None:
        self._texts = texts
        self._schema = schema
        self._policies = policies
        self._max_fields = max_struct_fields
        self._blocks: list[_Block] = []
        self._invalid: dict[int, str] = {}
        self._failures: dict[int, str] = {}
        self._conflicts: Conflicts = {}
        self._walked = self._rescued_values = 0

    def run(self) -> Decoded:
        refused = list(_blocks(self._texts, (0, len(self._texts))))
        must_widen = not self._schema.fields
        if must_widen and self._fits_sample(refused):
            return self._decoded()
        if not must_widen:
            refused, must_widen = self._fast(refused, may_widen=True)
        if refused and (must_widen or not self._walk(refused, may_widen=True)):
            self._schema = self._widened(refused)
            refused, _ = self._fast(list(_merged(refused)), may_widen=False)
            self._walk(refused, may_widen=False)
        return self._decoded()

    def _fits_sample(self, spans: Sequence[Span]) -> bool:
        """Decode a new collection's first batch by the types of a sample, if every document fits them exactly.

        Looking for types in every document costs ten times what decoding does. When one does not fit, nothing is kept
        and all are looked at, so that the types do not depend on which documents the sample holds.
        """
        if len(self._texts) < 2 * SAMPLE_ROWS:
            return False
        sample = self._texts[:: len(self._texts) // SAMPLE_ROWS]
        schema = self._inferred(sample)
        blocks = []
        for start, stop in spans:
            try:
                columns = decode_lines(encoded(self._texts[start:stop]), schema)
            except Refused:
                return False
            blocks.append(_Block(start, columns, schema, stop - start))
        self._schema, self._blocks = schema, blocks
        return True

    def _widened(self, spans: Sequence[Span]) -> t.DocumentSchema:
        texts = (self._texts[row] for start, stop in spans for row in range(start, stop))
        return self._inferred(texts)

    def _inferred(self, texts: Iterable[str]) -> t.DocumentSchema:
        return infer(texts, self._schema, policies=self._policies, max_struct_fields=self._max_fields)

    def _fast(self, spans: Sequence[Span], *, may_widen: bool) -> tuple[list[Span], bool]:
        """Decode what the fast path accepts. Gives back what it refused, in pieces as small as is worth the search, and
        whether the schema must be widened before any more is tried.
        """
        search = _Search(self._schema, spans)
        while search.waiting:
            span = search.waiting.pop()
            try:
                self._fast_block(span, search, may_widen)
                search.accepted()
            except Refused as refusal:
                search.refuse(span, refusal)
            except UnknownField:
                return sorted([*search.refused, span, *search.waiting]), True
        return sorted(search.refused), False

    def _fast_block(self, span: Span, search: "_Search", may_widen: bool) -> None:
        start, stop = span
        lines = encoded(self._texts[start:stop])
        suspects = search.suspects.names - search.slow
        odd = search.suspects.odd_rows(lines, suspects) if suspects else []
        if not search.split and not odd:
            self._blocks.append(_Block(start, decode_lines(lines, self._schema), self._schema, stop - start))
            return
        rows = decode_split(
            lines,
            self._schema,
            search.slow,
            odd,
            suspects,
            may_widen=may_widen,
            policies=self._policies,
            max_struct_fields=self._max_fields,
        )
        self._keep(start, rows.columns, rows.walked)

    def _walk(self, spans: Sequence[Span], *, may_widen: bool) -> bool:
        """Decode the spans on the slow path; with `may_widen` False is given, and nothing kept, when the schema must be
        widened first.
        """
        spans_walked: list[WalkedRows] = []
        for start, stop in spans:
            try:
                walked = walk(
                    self._texts[start:stop],
                    self._schema,
                    may_widen=may_widen,
                    policies=self._policies,
                    max_struct_fields=self._max_fields,
                )
            except UnknownField:
                return False
            spans_walked.append(walked)
        for (start, stop), walked in zip(spans, spans_walked, strict=True):
            self._keep(start, walked.columns(self._schema), walked)
            self._walked += stop - start
        return True

    def _keep(self, start: int, columns: list[t.ArrowArray], walked: WalkedRows) -> None:
        """Keep a block of which `walked` tells what was rescued."""
        self._blocks.append(_Block(start, columns, self._schema, len(walked.rows), walked.rescued))
        self._invalid |= {start + row: reason for row, reason in walked.invalid.items()}
        self._failures |= {start + row: pointer for row, pointer in walked.failures.items()}
        self._rescued_values += walked.rescued_values
        merge_conflicts(self._conflicts, walked.conflicts)

    def _decoded(self) -> Decoded:
        storage = pa.schema(self._schema.storage)
        batches, rescued = [], []
        for block in sorted(self._blocks, key=lambda block: block.start):
            columns = dict(zip([field.column for field in block.schema.stored], block.columns, strict=True))
            batches.append(
                pa.RecordBatch.from_struct_array(
                    _struct_of(
                        [conformed(columns.get(f.name), f.type, block.rows) for f in storage], storage, block.rows
                    )
                )
            )
            rescued.append(
                pa.nulls(block.rows, pa.string()) if block.rescued is None else pa.array(block.rescued, pa.string())
            )
        rescued_texts = pa.concat_arrays(rescued) if rescued else pa.array([], pa.string())
        rescued_rows = len(rescued_texts) - rescued_texts.null_count
        return Decoded(
            schema=self._schema,
            table=pa.Table.from_batches(batches, storage),
            rescued=rescued_texts,
            invalid=dict(sorted(self._invalid.items())),
            stats=DecodeStats(len(self._texts), self._walked, rescued_rows, self._rescued_values, self._conflicts),
            failures=dict(sorted(self._failures.items())),
        )


class _Search:
    """Looks for the odd documents in spans that the fast path refuses, and learns which fields to walk alone."""

    def __init__(self, schema: t.DocumentSchema, spans: Sequence[Span]) -> None:
        self.slow = {field.name for field in schema.fields if field.wire is None}
        self.split = bool(self.slow)
        """Whether the slow fields, and unknown ones, are cut out of the documents."""
        self.waiting = list(reversed(spans))
        self.refused: list[Span] = []
        self.suspects = suspects_of(schema)
        """Fields that were blamed: in documents in which one is not written as its type is, it is walked."""
        self._schema = schema
        self._blamed_once: set[str] = set()
        self._blamed: Counter[str | None] = Counter()
        self._near_misses = 0

    def accepted(self) -> None:
        self._near_misses = 0

    def refuse(self, span: Span, refusal: Refused) -> None:
        """Decide what becomes of a refused span: it is tried again in parts, or in another way, or given up."""
        if self._suspect(refusal):
            self.waiting.append(span)
            return
        start, stop = span
        odd = None if refusal.row is None else start + refusal.row
        if odd is not None and SMALLEST_ROWS <= odd - start < stop - start:
            self.refused.append((odd, odd + 1))
            self.waiting += [(odd + 1, stop)] if odd + 1 < stop else []
            self.waiting.append((start, odd))
        elif self._learn(refusal):
            self.waiting.append(span)
        elif odd is not None and odd < stop:
            # Odd documents stand close together: give up on more of them each time, because each attempt costs.
            end = min(stop, start + (SMALLEST_ROWS << self._near_misses))
            self._near_misses += 1
            self.refused.append((start, end))
            self.waiting += [(end, stop)] if end < stop else []
        elif stop - start > SMALLEST_ROWS:
            self.waiting += reversed(list(_pieces(span)))
        else:
            self.refused.append(span)

    def _suspect(self, refusal: Refused) -> bool:
        """Whether the refusal named a field that was not suspected before."""
        names = {refusal.column} if refusal.column in self._schema.by_name else set()
        names |= {field.name for field in self._schema.fields if _has_long(field, refusal.names)}
        names -= self._blamed_once | self.slow
        self._blamed_once |= names
        return self.suspects.add(names)

    def _learn(self, refusal: Refused) -> bool:
        """Whether the refusal taught us to walk a further field alone: one that was blamed often, or unknown ones."""
        column = refusal.column
        self._blamed[column] += 1
        if self._blamed[column] <= BLAMED_OFTEN:
            return False
        if column is None and refusal.row is None and not self.split:
            self.split = True
            return True
        if column in self._schema.by_name and column not in self.slow:
            self.slow.add(column)
            self.split = True
            return True
        return False


def _has_long(field: t.Field, names: Set[str]) -> bool:
    """Whether the field, or a member of it, is of one of these names and holds longs."""
    type_ = field.type
    while isinstance(type_, t.List):
        type_ = type_.element
    if isinstance(type_, t.Struct):
        return any(_has_long(member, names) for member in type_.fields)
    return type_ == t.LONG and field.name in names


def _struct_of(columns: list[t.ArrowArray], storage: pa.Schema, rows: int) -> t.ArrowArray:
    return pa.Array.from_buffers(pa.struct(list(storage)), rows, [None], 0, children=columns)


def conformed(array: t.ArrowArray | None, type_: Any, rows: int) -> t.ArrowArray:
    """An array of an earlier, narrower schema, as one of the widened type: members that were not known yet are null."""
    if array is None:
        return pa.nulls(rows, type_)
    if array.type == type_:
        return array
    if pa.types.is_struct(type_):
        children = []
        for member in type_:
            index = array.type.get_field_index(member.name)
            children.append(conformed(array.field(index) if index >= 0 else None, member.type, len(array)))
        return pa.Array.from_buffers(type_, len(array), [array.buffers()[0]], array.null_count, children=children)
    values = conformed(array.values, type_.value_type, len(array.values))
    return pa.Array.from_buffers(type_, len(array), array.buffers()[:2], array.null_count, children=[values])


def _blocks(texts: Sequence[str], span: Span) -> Iterator[Span]:
    """Consecutive spans of at most BLOCK_ROWS texts and about BLOCK_CHARACTERS characters."""
    start, stop = span
    while start < stop:
        end, characters = start, 0
        while end < stop and end - start < BLOCK_ROWS and characters < BLOCK_CHARACTERS:
            characters += len(texts[end])
            end += 1
        yield start, end
        start = end


def _pieces(span: Span) -> Iterator[Span]:
    start, stop = span
    rows = SMALL_BLOCK_ROWS if stop - start > SMALL_BLOCK_ROWS else SMALLEST_ROWS
    for piece in range(start, stop, rows):
        yield piece, min(piece + rows, stop)


def _merged(spans: Sequence[Span]) -> Iterator[Span]:
    """Neighbouring spans joined, up to BLOCK_ROWS."""
    start, stop = spans[0]
    for next_start, next_stop in spans[1:]:
        if next_start == stop and next_stop - start <= BLOCK_ROWS:
            stop = next_stop
        else:
            yield start, stop
            start, stop = next_start, next_stop
    yield start, stop
