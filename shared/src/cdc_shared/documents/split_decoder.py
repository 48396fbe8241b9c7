"""The fast path for documents of which a few top-level fields need the slow one.

Some columns `pyarrow.json` cannot read (JSON columns), and some keep meeting values that do not fit. Such fields are
cut out of the texts and walked alone; the rest of each document goes through the fast path.
"""

from collections.abc import Set
from dataclasses import dataclass

import msgspec

from cdc_shared.documents import types as t
from cdc_shared.documents.fast_decoder import Refused, decode_lines
from cdc_shared.documents.inference import DEFAULT_MAX_STRUCT_FIELDS
from cdc_shared.documents.policies import NONE, FieldPolicies
from cdc_shared.documents.walker import WalkedRows, walk

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_PUNCTUATION_BYTES = len('"": ')


@dataclass(frozen=True)
class SplitRows:
    """Columns of the stored fields in the schema's order, and what walking the other fields gave."""

    columns: list[t.ArrowArray]
    walked: WalkedRows


def decode_split(
    lines: list[bytes],
    schema: t.DocumentSchema,
    slow: Set[str],
    *,
    may_widen: bool,
    policies: FieldPolicies = NONE,
    max_struct_fields: int = DEFAULT_MAX_STRUCT_FIELDS,
) -> SplitRows:
    """Decode documents, walking the fields named in `slow` and those that the schema does not know.

    The texts must be written as Debezium writes them, `{"a": 1,"b": 2}`, without another space between fields. Raises
    Refused as `decode_lines` does, and with `may_widen` UnknownField as `walk` does.
    """
    fast_schema = t.DocumentSchema(tuple(field for field in schema.fields if field.name not in slow))
    sizes = {field.name: len(field.name.encode()) + _PUNCTUATION_BYTES for field in fast_schema.fields}
    fast_lines, walked_texts = [], []
    for row, line in enumerate(lines):
        try:
            fast_line, walked_text = _split(line, sizes)
        except (msgspec.MsgspecError, ValueError):
            raise Refused(row) from None
        fast_lines.append(fast_line)
        walked_texts.append(walked_text)
    walked = walk(walked_texts, schema, may_widen=may_widen, policies=policies, max_struct_fields=max_struct_fields)
    if walked.invalid:
        raise Refused(min(walked.invalid))
    fast = iter(decode_lines(fast_lines, fast_schema))
    slow_columns = iter(walked.columns(t.DocumentSchema(tuple(field for field in schema.fields if field.name in slow))))
    columns = [next(slow_columns if field.name in slow else fast) for field in schema.stored]
    return SplitRows(columns, walked)


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
