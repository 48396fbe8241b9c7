"""A stored column as a column of another type, for the same values: what promotion and `fit` do on whole arrays."""

from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc_shared.documents import types as t
from cdc_shared.documents.canonical import bson_value
from cdc_shared.documents.extended_json import INT32_MAX, INT32_MIN, double_text, dump
from cdc_shared.documents.inference import EXACT_DOUBLE_MAX
from cdc_shared.documents.number_type import stored_number
from cdc_shared.documents.readable_text import readable_text

# Arrow's cast of a double to a string writes the shortest text, and one of such a text to a decimal is exact within
# these bounds. Where more than 38 places are to be dropped, some are without a word: 2.2819681686128555e-27 becomes 0.
_CAST_SCALE: Final = 22
_CAST_SMALLEST: Final = 1e-20


class NotExact(ValueError):
    """The column holds a value that the other type cannot hold. The message has no value in it."""


def convert_column(array: t.ArrowArray, from_type: t.FieldType, to_type: t.FieldType) -> t.ArrowArray:
    """The same values in a column of `to_type`: long → double and number, double → number, number and decimal → one of
    another scale, anything → JSON, in the text that decoding gives (but for int64s in the range of an int32, which a
    long column does not tell from those), anything → text.

    A text column only shows values that are no strings: the caller keeps them in `_cdc_rescued`, as `fit` does. Raises
    NotExact when one value has no place in `to_type`, or no value of `from_type` has.
    """
    if from_type == to_type:
        return array
    if to_type == t.JSON:
        return _json(array, from_type)
    if to_type == t.TEXT:
        return array if from_type == t.STRING else _texts(array, from_type, readable_text)
    if isinstance(to_type, t.Decimal | t.Number) and isinstance(from_type, type(to_type)):
        return _exact_cast(array, to_type)
    if isinstance(to_type, t.Number) and from_type == t.LONG:
        return _exact_cast(array, to_type)
    if isinstance(to_type, t.Number) and from_type == t.DOUBLE:
        return doubles_as_numbers(array, to_type)
    if to_type == t.DOUBLE and from_type == t.LONG:
        bounds = pc.min_max(array)
        if not bounds["min"].is_valid or max(-bounds["min"].as_py(), bounds["max"].as_py()) <= EXACT_DOUBLE_MAX:
            return array.cast(to_type.storage)
    raise NotExact(f"a {from_type.text} column has values that {to_type.text} does not hold")


def doubles_as_numbers(array: t.ArrowArray, to_type: t.Number) -> t.ArrowArray:
    """A double column as a number column. Raises NotExact as `convert_column` does."""
    sizes = np.abs(array.fill_null(0.0).to_numpy(zero_copy_only=False))
    if to_type.scale <= _CAST_SCALE and ((sizes < EXACT_DOUBLE_MAX) & ((sizes > _CAST_SMALLEST) | (sizes == 0))).all():
        _check_zeros(array)
        return _exact_cast(array.cast(pa.string()), to_type)
    numbers = [None if value is None else stored_number(value, to_type.scale) for value in array.to_pylist()]
    if numbers.count(None) != array.null_count:
        raise NotExact(f"a double column has values that {to_type.text} does not hold")
    return pa.array(numbers, to_type.storage)


def _check_zeros(array: t.ArrowArray) -> None:
    values = array.fill_null(1.0).to_numpy(zero_copy_only=False)
    if (np.signbit(values) & (values == 0)).any():
        raise NotExact("a double column has a negative zero")


def _exact_cast(array: t.ArrowArray, to_type: t.FieldType) -> t.ArrowArray:
    try:
        return array.cast(to_type.storage)
    except pa.ArrowInvalid:
        raise NotExact(f"a column has values that {to_type.text} does not hold") from None


def _texts(array: t.ArrowArray, type_: t.FieldType, text_of: Callable[[Any], str]) -> t.ArrowArray:
    values = [None if value is None else text_of(bson_value(value, type_)) for value in array.to_pylist()]
    return pa.array(values, pa.string())


def _json(array: t.ArrowArray, type_: t.FieldType) -> t.ArrowArray:
    writer = _JSON_WRITERS.get(type_.kind) if isinstance(type_, t.Scalar) else None
    return _texts(array, type_, dump) if writer is None else writer(array)


def _wrapped(name: str, texts: t.ArrowArray) -> t.ArrowArray:
    return pc.binary_join_element_wise(f'{{"{name}":"', texts, '"}', "")


def _json_longs(array: t.ArrowArray) -> t.ArrowArray:
    texts = array.cast(pa.string())
    small = pc.and_(pc.greater_equal(array, pa.scalar(INT32_MIN)), pc.less_equal(array, pa.scalar(INT32_MAX)))
    return pc.if_else(small, _wrapped("$numberInt", texts), _wrapped("$numberLong", texts))


def _json_dates(array: t.ArrowArray) -> t.ArrowArray:
    milliseconds = array.cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).cast(pa.string())
    return pc.binary_join_element_wise('{"$date":{"$numberLong":"', milliseconds, '"}}', "")


_JSON_WRITERS: Final[dict[t.Kind, Callable[[t.ArrowArray], t.ArrowArray]]] = {
    t.Kind.LONG: _json_longs,
    t.Kind.DOUBLE: lambda array: _wrapped(
        "$numberDouble",
        pa.array([None if value is None else double_text(value) for value in array.to_pylist()], pa.string()),
    ),
    t.Kind.STRING: lambda array: pa.array(
        [None if value is None else encode_basestring(value) for value in array.to_pylist()], pa.string()
    ),
    t.Kind.BOOLEAN: lambda array: pc.if_else(array, "true", "false"),
    t.Kind.OBJECT_ID: lambda array: _wrapped("$oid", array),
    t.Kind.DATE: _json_dates,
}
