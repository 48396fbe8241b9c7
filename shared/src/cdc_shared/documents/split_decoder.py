"""The fast path for documents of which a few top-level fields need the slow one.

Some columns `pyarrow.json` cannot read (JSON columns), and in some documents a field has a value that does not fit.
Such fields are cut out of the texts and walked alone; the rest of each document goes through the fast path.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from cdc_shared.documents import types as t
from cdc_shared.documents.fast_decoder import Refused, decode_lines
from cdc_shared.documents.inference import DEFAULT_MAX_STRUCT_FIELDS
from cdc_shared.documents.policies import NONE, FieldPolicies
from cdc_shared.documents.walker import WalkedRows, walk

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_PUNCTUATION_BYTES = len('"": ')


@dataclass(frozen=True)
class SplitRows:
    """Columns of the stored fields in the schema's order, and what walking the other fields gave, for every row."""

    columns: list[t.ArrowArray]
    walked: WalkedRows


def decode_split(
    lines: list[bytes],
    schema: t.DocumentSchema,
    slow: Set[str],
    odd: Sequence[int] = (),
    odd_fields: Set[str] = frozenset(),
    *,
    may_widen: bool,
    policies: FieldPolicies = NONE,
    max_struct_fields: int = DEFAULT_MAX_STRUCT_FIELDS,
) -> SplitRows:
    """Decode documents, walking the fields named in `slow` and, in the lines `odd` (in order), those named in
    `odd_fields`. Where anything is walked, the fields that the schema does not know are as well.

    The texts must be written as Debezium writes them, `{"a": 1,"b": 2}`, without another space between fields. Raises
    Refused as `decode_lines` does, and with `may_widen` UnknownField as `walk` does.
    """
    fast_schema = t.DocumentSchema(tuple(field for field in schema.fields if field.name not in slow))
    sizes = {field.name: len(field.name.encode()) + _PUNCTUATION_BYTES for field in fast_schema.fields}
    odd_sizes = {name: size for name, size in sizes.items() if name not in odd_fields}
    rows = range(len(lines)) if slow else odd
    fast_lines, walked_texts, odd_rows = lines.copy(), [], set(odd)
    for row in rows:
        try:
            fast_lines[row], walked_text = _split(lines[row], odd_sizes if row in odd_rows else sizes)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise Refused(row) from None
        walked_texts.append(walked_text)
    walked = walk(walked_texts, schema, may_widen=may_widen, policies=policies, max_struct_fields=max_struct_fields)
    if walked.invalid:
        raise Refused(rows[min(walked.invalid)])
    fast = iter(decode_lines(fast_lines, fast_schema))
    walked_schema = t.DocumentSchema(tuple(f for f in schema.fields if f.name in slow or f.name in odd_fields))
    walked_columns = dict(
        zip([field.name for field in walked_schema.stored], walked.columns(walked_schema), strict=True)
    )
    columns = []
    for field in schema.stored:
        column = walked_columns.get(field.name)
        if field.name not in slow:
            column = next(fast) if column is None else _merged(next(fast), column, rows, odd)
        columns.append(column)
    return SplitRows(columns, walked if slow else walked.spread(rows, len(lines)))


def _merged(fast: t.ArrowArray, walked: t.ArrowArray, rows: Sequence[int], odd: Sequence[int]) -> t.ArrowArray:
    """The fast column, with the walked values in the odd rows. `walked` has a value for each of `rows`."""
    chosen = np.arange(len(fast))
    chosen[odd] = len(fast) + np.searchsorted(rows, odd)
    return pa.concat_arrays([fast, walked]).take(pa.array(chosen))


def _split(line: bytes, fast_sizes: dict[str, int]) -> tuple[bytes, str]:
    """The fast fields of a document's text, and the text of its other fields.

    Raises ValueError for a text that is longer than its parts, because a name comes twice or is escaped, or there is a
    further space.
    """
    kept: list[bytes] = []
    cut: list[bytes] = []
    position = kept_from = 1
    for name, value in _decode_members(line).items():
        size = fast_sizes.get(name, 0)
        if size:
            position += size + len(bytes(value)) + 1
            continue
        if position > kept_from:
            kept.append(line[kept_from : position - 1])
        kept_from = position + len(name.encode()) + _PUNCTUATION_BYTES + len(bytes(value)) + 1
        cut.append(line[position : kept_from - 1])
        position = kept_from
    if position != len(line) or line[:1] != b"{":
        raise ValueError
    if kept_from < len(line):
        kept.append(line[kept_from:-1])
    return b"{" + b",".join(kept) + b"}", "{" + b",".join(cut).decode() + "}"
