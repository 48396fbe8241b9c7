"""The fast path: a block of documents parsed by `pyarrow.json` against the schema, its wrappers unwrapped on whole
Arrow arrays.

It either decodes a block exactly as the walker would with nothing rescued, or refuses the block. What `pyarrow.json`
accepts but would alter is checked here; the checks and why each is needed stand beside them.
"""

import binascii
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from cdc_shared.documents import types as t
from cdc_shared.documents.conversion import NotExact, doubles_as_numbers
from cdc_shared.documents.extended_json import UINT32_MAX
from cdc_shared.documents.inference import EXACT_DOUBLE_MAX
from cdc_shared.documents.kinds import UUID_BYTES
from cdc_shared.documents.scalar_fits import DATE_MAX_MS, DATE_MIN_MS

# A quote inside a JSON string is always escaped, so this matches only objects. Exactly the texts that the walker takes
# for a wrapper.
_NUMBER_LONG: Final = re.compile(rb'\{"\$numberLong": ?"(0|-?[1-9][0-9]{0,18})"\}')
_NEWLINE, _OPENING, _CLOSING = b"\n{}"
# An integer -0 is a double's -0.0 to pyarrow.json and 0 to the walker; no BSON integer is written so.
_NEGATIVE_ZERO: Final = re.compile(rb"-0(?![.0-9])")
# `Inf` is Infinity to pyarrow.json and nothing to Debezium or to the walker. A value ends so; words and base64 do not.
_SHORT_INFINITY: Final = re.compile(rb"Inf(?=\s*[],}])")
# pyarrow.json names row and column of most errors. They are hints of how to split the block, nothing rests on them.
_ROW_OF_ERROR: Final = re.compile(r" in row ([0-9]{1,9})")
_COLUMN_OF_ERROR: Final = re.compile(r"Column\(/([^/)]+)")
_NUMBER_OF_ERROR: Final = re.compile(r"couldn't parse:([-+.0-9eE]+)")
_HEX_DIGIT: Final = np.isin(np.arange(256), np.frombuffer(b"0123456789abcdef", np.uint8))
_OBJECT_ID_CHARACTERS: Final = 24
_IS_EXPONENT: Final = np.isin(np.arange(256), np.frombuffer(b"eE", np.uint8))
_SMALL_EXPONENT: Final = r"^[^eE]*([eE]-(1?[0-9]|2[0-7]))?$"
# Decimal128 has 34 digits; with leading zeros after the point, a sign and an exponent a text of it without one is no
# longer than this.
_LONGEST_DECIMAL: Final = 50

Unwrap = Callable[[t.ArrowArray], t.ArrowArray]


class Refused(Exception):
    """The block has something that this path would alter or cannot hold.

    `row` is the first such row and `column` the top-level field, where they are known. Of a number that is no integer
    only the number is known: `names` are those of the fields, at any depth, that it is written behind.
    """

    def __init__(self, row: int | None = None, column: str | None = None, names: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.row = row
        self.column = column
        self.names = names


def decode_block(texts: Sequence[str], schema: t.DocumentSchema) -> list[t.ArrowArray]:
    """One array a stored field, of its storage type and `len(texts)` rows. Raises Refused when the block must be
    walked.
    """
    return decode_lines(encoded(texts), schema)


def encoded(texts: Sequence[str]) -> list[bytes]:
    """UTF-8 of each text. Raises Refused when one holds half of a surrogate pair."""
    try:
        return [text.encode() for text in texts]
    except UnicodeEncodeError:
        raise Refused from None


def decode_lines(lines: Sequence[bytes], schema: t.DocumentSchema) -> list[t.ArrowArray]:
    """`decode_block` of texts in UTF-8."""
    wire = schema.wire
    if wire is None or not any(lines):
        raise Refused
    try:
        block = _parse(lines, pa.schema(wire))
    except pa.ArrowException as error:
        raise _refusal(str(error), lines) from None
    return [
        _unwrapped(block, index, field.name, unwrap)
        for index, (field, unwrap) in enumerate(zip(schema.fields, _unwraps(schema), strict=True))
        if not isinstance(field.type, t.Null)
    ]


def _refusal(message: str, lines: Sequence[bytes]) -> Refused:
    row, column = _ROW_OF_ERROR.search(message), _COLUMN_OF_ERROR.search(message)
    number = _NUMBER_OF_ERROR.search(message)
    names: frozenset[str] = frozenset()
    if number:
        behind_name = rb'"([^"\\]*)": (?:\[(?:[^][{}"]*,)?)?' + re.escape(number[1].encode()) + rb"[],}]"
        names = frozenset(found.decode() for found in re.findall(behind_name, b"\n".join(lines)))
    return Refused(int(row[1]) if row else None, column[1] if column else None, names)


def _unwrapped(block: pa.Table, index: int, name: str, unwrap: "Unwrap") -> t.ArrowArray:
    try:
        return unwrap(_array(block, index))
    except (Refused, pa.ArrowException):
        raise Refused(column=name) from None


def _parse(lines: Sequence[bytes], wire: pa.Schema) -> pa.Table:
    data = b"\n".join(lines)
    _check_lines(np.frombuffer(data, np.uint8), len(lines))
    if _SHORT_INFINITY.search(data) or any(data[at.start() - 1] in b":[, " for at in _NEGATIVE_ZERO.finditer(data)):
        raise Refused
    if b'{"$numberLong"' in data:
        data = _NUMBER_LONG.sub(rb"\1", data)
    block = pj.read_json(
        pa.BufferReader(data),  # type: ignore[arg-type]
        read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pj.ParseOptions(
            explicit_schema=wire, newlines_in_values=False, unexpected_field_behavior="error"
        ),
    )
    if block.num_rows != len(lines) or block.schema != wire:
        raise Refused
    return block


def _check_lines(data: Any, texts: int) -> None:
    """One text, one line, one object: `{"a":1} {"a":2}` in one text would parse as two rows."""
    line_ends = np.flatnonzero(data == _NEWLINE)
    one_a_line = len(line_ends) == texts - 1 and data[0] == _OPENING and data[-1] == _CLOSING
    if not one_a_line or (data[line_ends - 1] != _CLOSING).any() or (data[line_ends + 1] != _OPENING).any():
        raise Refused


def _array(block: pa.Table, index: int) -> t.ArrowArray:
    column = block.column(index)
    array: t.ArrowArray = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if array.offset:  # the unwrapping below reads buffers from their start
        raise Refused
    return array


@lru_cache(maxsize=64)
def _unwraps(schema: t.DocumentSchema) -> list[Unwrap]:
    return [_unwrap(field.type) for field in schema.fields]


def _unwrap(type_: t.FieldType) -> Unwrap:
    if isinstance(type_, t.Struct):
        return _struct(type_)
    if isinstance(type_, t.List):
        return _list(type_)
    if isinstance(type_, t.Decimal):
        return _decimal(type_)
    if isinstance(type_, t.Number):
        return _number(type_)
    if isinstance(type_, t.Binary):
        return _binary(type_.subtype)
    if isinstance(type_, t.Null):
        return lambda array: array
    return _SCALARS[type_.kind]


def _struct(struct: t.Struct) -> Unwrap:
    members = [(i, _unwrap(m.type)) for i, m in enumerate(struct.fields) if not isinstance(m.type, t.Null)]
    storage = struct.storage

    def unwrap(array: t.ArrowArray) -> t.ArrowArray:
        # A null struct's members are null as well, so the parent's validity need not be applied to them.
        children = [unwrap_member(array.field(i)) for i, unwrap_member in members]
        return pa.Array.from_buffers(storage, len(array), [array.buffers()[0]], array.null_count, children=children)

    return unwrap


def _list(list_: t.List) -> Unwrap:
    unwrap_element, storage = _unwrap(list_.element), list_.storage

    def unwrap(array: t.ArrowArray) -> t.ArrowArray:
        buffers = array.buffers()
        return pa.Array.from_buffers(
            storage, len(array), buffers[:2], array.null_count, children=[unwrap_element(array.values)]
        )

    return unwrap


def _member(array: t.ArrowArray, index: int) -> t.ArrowArray:
    """A wrapper's member. `{}` and `{"$oid": null}` parse as a wrapper whose member is null: they are no wrappers."""
    member = array.field(index)
    if member.null_count != array.null_count:
        raise Refused
    return member


def _double(array: t.ArrowArray) -> t.ArrowArray:
    # An integer above 2^53 is rounded without a word; whether it was one cannot be seen afterwards.
    values = np.abs(np.frombuffer(array.buffers()[1], np.float64, len(array))) if len(array) else np.zeros(0)
    if ((values >= EXACT_DOUBLE_MAX) & (values != np.inf)).any():
        raise Refused
    return array


def _number(type_: t.Number) -> Unwrap:
    def unwrap(array: t.ArrowArray) -> t.ArrowArray:
        try:
            return doubles_as_numbers(_double(array), type_)
        except NotExact:
            raise Refused from None

    return unwrap


def _characters(array: t.ArrowArray) -> tuple[Any, Any]:
    """The bytes of a string array's values, one after the other, and the length of each; a null has none."""
    if not len(array):
        return np.zeros(0, np.uint8), np.zeros(0, np.int32)
    offsets = np.frombuffer(array.buffers()[1], np.int32, len(array) + 1)
    if offsets[0] == offsets[-1]:
        return np.zeros(0, np.uint8), np.diff(offsets)
    return np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[-1]], np.diff(offsets)


def _object_id(array: t.ArrowArray) -> t.ArrowArray:
    texts = _member(array, 0)
    characters, lengths = _characters(texts)
    right = (lengths == _OBJECT_ID_CHARACTERS).sum() == len(texts) - texts.null_count
    if not right or not _HEX_DIGIT[characters].all():
        raise Refused
    return texts


def _date(array: t.ArrowArray) -> t.ArrowArray:
    milliseconds = _member(array, 0)
    _check_range(milliseconds, DATE_MIN_MS, DATE_MAX_MS)
    return pc.multiply(milliseconds, 1000).view(pa.timestamp("us", "UTC"))


def _check_range(array: t.ArrowArray, low: int, high: int) -> None:
    bounds = pc.min_max(array)
    if bounds["min"].is_valid and not low <= bounds["min"].as_py() <= bounds["max"].as_py() <= high:
        raise Refused


def _decimal(type_: t.Decimal) -> Unwrap:
    storage, wide = type_.storage, pa.decimal256(76, type_.scale)
    zero = pa.scalar(0).cast(storage)
    whole_digits = t.DECIMAL_PRECISION - type_.scale

    def unwrap(array: t.ArrowArray) -> t.ArrowArray:
        # Arrow's cast raises for NaN and for digits that do not fit, but a number too large for 128 bits wraps around:
        # 34 nines become 63870734310932345618.6 at scale 18. Where more than 38 places are dropped, or 76 of 256
        # bits, it reads beyond a table: 1E-49 becomes 0 at scale 10 without a word. What may be too large or too fine
        # goes through 256 bits; what may be finer than that is refused.
        texts = _member(array, 0)
        characters, lengths = _characters(texts)
        longest = lengths.max(initial=0)
        exponents = _IS_EXPONENT[characters].any()
        if exponents and not pc.all(pc.match_substring_regex(texts, _SMALL_EXPONENT), min_count=0).as_py():
            raise Refused
        if longest > _LONGEST_DECIMAL:
            raise Refused
        direct = longest <= whole_digits and not exponents
        numbers = texts.cast(storage) if direct else texts.cast(wide).cast(storage)
        zeros = pc.equal(numbers, zero)
        if zeros.true_count and pc.any(pc.starts_with(texts.filter(zeros), "-")).as_py():
            raise Refused  # the column has no negative zero
        return numbers

    return unwrap


def _binary_texts(array: t.ArrowArray, subtype: int) -> list[str | None]:
    texts, subtypes = _member(array, 0), _member(array, 1)
    if pc.all(pc.equal(subtypes, pa.scalar(f"{subtype:02X}")), min_count=0).as_py() is False:
        raise Refused
    values: list[str | None] = texts.to_pylist()
    return values


def _bytes(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise Refused from None


def _binary(subtype: int) -> Unwrap:
    def unwrap(array: t.ArrowArray) -> t.ArrowArray:
        return pa.array([None if text is None else _bytes(text) for text in _binary_texts(array, subtype)], pa.binary())

    return unwrap


def _uuid(array: t.ArrowArray) -> t.ArrowArray:
    values = [None if text is None else _uuid_text(_bytes(text)) for text in _binary_texts(array, 4)]
    return pa.array(values, pa.string())


def _uuid_text(value: bytes) -> str:
    if len(value) != UUID_BYTES:
        raise Refused
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _regex(array: t.ArrowArray) -> t.ArrowArray:
    members = [_member(array, 0), _member(array, 1)]
    return pa.Array.from_buffers(t.REGEX.storage, len(array), [array.buffers()[0]], array.null_count, children=members)


def _timestamp(array: t.ArrowArray) -> t.ArrowArray:
    inner = _member(array, 0)
    for index in range(2):
        _check_range(_member(inner, index), 0, UINT32_MAX)
    return inner


_SCALARS: Final[dict[t.Kind, Unwrap]] = {
    t.Kind.STRING: lambda array: array,
    t.Kind.LONG: lambda array: array,
    t.Kind.DOUBLE: _double,
    t.Kind.BOOLEAN: lambda array: array,
    t.Kind.OBJECT_ID: _object_id,
    t.Kind.DATE: _date,
    t.Kind.UUID: _uuid,
    t.Kind.REGEX: _regex,
    t.Kind.TIMESTAMP: _timestamp,
    t.Kind.TEXT: lambda array: array,
}
