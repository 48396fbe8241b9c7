"""The fast path for documents of which a few top-level fields need the slow one.

Some columns `pyarrow.json` cannot read (JSON columns), and some keep meeting values that do not fit. Such fields are
cut out of the texts and walked alone; the rest of each document goes through the fast path.
"""

from collections.abc import Set
from dataclasses import dataclass

import msgspec

from cdc_shared.documents import types as t
from cdc_shared.documents.fast_decoder import Refused, decode_lines
from cdc_shared.documents.walker import UnknownField, walk

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_PUNCTUATION_BYTES = len('"": ')


@dataclass(frozen=True)
class SplitRows:
    """Columns of the stored fields in the schema's order, and what the walked fields rescued."""

    columns: list[t.ArrowArray]
    rescued: list[str | None]
    rescued_values: int


def decode_split(
    lines: list[bytes], schema: t.DocumentSchema, slow: Set[str], *, may_widen: bool, max_struct_fields: int
) -> SplitRows:
    """Decode documents, walking the fields named in `slow`. Raises Refused as `decode_lines` does.

    The texts must be written as Debezium writes them, `{"a": 1,"b": 2}`, without another space between fields.
    """
    walked_schema = t.DocumentSchema(tuple(field for field in schema.fields if field.name in slow))
    fast_schema = t.DocumentSchema(tuple(field for field in schema.fields if field.name not in slow))
    sizes = {field.name: len(field.name.encode()) + _PUNCTUATION_BYTES for field in schema.fields}
    fast_lines, walked_texts = [], []
    for row, line in enumerate(lines):
        try:
            fast_line, walked_text = _split(line, sizes, slow)
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
            raise Refused(row) from None
        fast_lines.append(fast_line)
        walked_texts.append(walked_text)
    fast = iter(decode_lines(fast_lines, fast_schema))
    try:
        walked = walk(walked_texts, walked_schema, may_widen=may_widen, max_struct_fields=max_struct_fields)
    except UnknownField:
        raise Refused from None
    if walked.invalid:
        raise Refused(min(walked.invalid))
    slow_columns = iter(walked.columns(walked_schema))
    columns = [next(slow_columns if field.name in slow else fast) for field in schema.stored]
    return SplitRows(columns, walked.rescued, walked.rescued_values)


def _split(line: bytes, sizes: dict[str, int], slow: Set[str]) -> tuple[bytes, str]:
    """A document's text without its slow fields, and the text of the slow fields alone.

    Raises KeyError for a name that is not known. A name that comes twice, one that is escaped, and any further space
    make the text longer than its parts: such a text is refused.
    """
    kept: list[bytes] = []
    cut: list[bytes] = []
    position = kept_from = 1
    for name, value in _decode_members(line).items():
        size = sizes[name] + len(bytes(value))
        if name in slow:
            if position > kept_from:
                kept.append(line[kept_from : position - 1])
            cut.append(line[position : position + size])
            kept_from = position + size + 1
        position += size + 1
    if position != len(line) or line[:1] != b"{":
        raise KeyError
    if kept_from < len(line):
        kept.append(line[kept_from:-1])
    return b"{" + b",".join(kept) + b"}", "{" + b",".join(cut).decode() + "}"
