"""JSON columns and `_cdc_rescued` in a text that does not depend on how a row came to be.

The text of a value depends on its way into the row: decoding keeps the document's order of names, its nulls and its
kinds of integers; the promotion of a column to JSON does not know them. So names are put in order, members that are
null left out, integers of all kinds written alike, and decimals of one value: the canonical form does not tell these
apart either. No two texts that it does tell apart become the same.
"""

from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc_shared.documents import parse
from cdc_shared.documents import types as t
from cdc_shared.documents.canonical import canonical_text
from cdc_shared.documents.rescued_values import replaced_rows

# An object of several members, one that is null, a decimal. Inside of a string it costs time and changes nothing.
_HAS_CHOICE: Final = r',"|:null|\$numberDecimal'
# A whole double as an integer as well. Int32s with ten digits that may be none (`{"$numberInt":"9999999999"}` is a
# sub-document) stay as they are. No bare number is otherwise written where a value stands.
_INTEGER: Final = (
    r'\{"\$number(?:Int":"(-?[1-9][0-9]{0,8}|-?1[0-9]{9}|0)'
    r'|Long":"(-?[1-9][0-9]{0,18}|0)'
    r'|Double":"(-?[1-9][0-9]{0,14}|0)\.0)"\}'
)
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder(order="sorted").encode


def comparable_json(texts: t.ArrowArray) -> t.ArrowArray:
    """The texts, Extended JSON as `dump` writes it, in the form that compares. What is no JSON stays as it is."""
    if texts.null_count == len(texts):
        return texts
    has_choice: t.ArrowArray = pc.match_substring_regex(texts, _HAS_CHOICE)
    rows = np.flatnonzero(has_choice.fill_null(False).to_numpy(zero_copy_only=False))
    if len(rows):
        in_order = [_in_order(text) for text in texts.take(pa.array(rows)).cast(pa.binary()).to_pylist()]
        texts = replaced_rows(texts, rows, pa.array(in_order, pa.binary()).cast(pa.string()))
    return pc.replace_substring_regex(texts, pattern=_INTEGER, replacement=r"\1\2\3")


def _in_order(text: bytes) -> bytes:
    """In the canonical form where that is the only way, slow as it is: all texts of one document then are, or none."""
    try:
        if b"$numberDecimal" in text:
            return canonical_text(parse(text.decode()))
        value = _decode(text)
        ordered = _encode(value)
        if len(ordered) != len(text):  # an object has a name twice, of which only one was kept
            return canonical_text(parse(text.decode()))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return text
    return _encode(_without_nulls(value)) if b":null" in text else ordered


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(member) for name, member in value.items() if member is not None}
    return [_without_nulls(element) for element in value] if isinstance(value, list) else value
