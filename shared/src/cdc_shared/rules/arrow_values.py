"""Masks and conversions on whole columns: Arrow kernels where they do exactly what the rules mean, otherwise each
distinct value once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc_shared.documents import types as t
from cdc_shared.documents.canonical import bson_value
from cdc_shared.documents.extended_json import string_text
from cdc_shared.documents.inference import EXACT_DOUBLE_MAX
from cdc_shared.documents.scalar_fits import DATE_MAX_MS, DATE_MIN_MS
from cdc_shared.documents.walker import walk_documents
from cdc_shared.models import data_quality as q
from cdc_shared.rules.arrow_columns import Column, Flags, flags
from cdc_shared.rules.conversion import Target, conversion
from cdc_shared.rules.masking import MASK_CHARACTER, REDACTED, digest_with, email_mask, mask_of

_TARGETS: Final[dict[Target, t.FieldType]] = {
    "string": t.STRING,
    "long": t.LONG,
    "double": t.DOUBLE,
    "decimal": t.Decimal(t.FINE_DECIMAL_SCALE),
    "boolean": t.BOOLEAN,
    "date": t.DATE,
    "json": t.STRING,
}
_NUMBERS: Final = {t.LONG, t.DOUBLE}
_TEXTS: Final = {t.STRING, t.TEXT}
_SOURCES: Final[dict[Target, set[t.FieldType]]] = {
    "string": {*_NUMBERS, t.BOOLEAN, t.DATE, t.OBJECT_ID, t.UUID},
    "long": {*_TEXTS, t.DOUBLE, t.BOOLEAN, t.DATE},
    "double": {*_TEXTS, t.LONG, t.BOOLEAN, t.DATE},
    "decimal": {*_TEXTS, *_NUMBERS, t.BOOLEAN, t.DATE},
    "boolean": {*_TEXTS, *_NUMBERS},
    "date": {*_TEXTS, *_NUMBERS},
}
"""The types besides JSON, decimals and numbers whose values a conversion may change."""
_DECIMALS_CONVERT: Final = ("string", "long", "double")
_STORED_AS_TEXT: Final = {*_TEXTS, t.OBJECT_ID, t.UUID}
"""Types whose storage is the text that `text_of` gives."""
_SMALL_LONG: Final = r"^(0|-?[1-9][0-9]{0,17})$"
_UNHASHABLE: Final = (t.Struct, t.List)


@dataclass(frozen=True)
class Edited:
    """A column after a mask or conversion. `misfits`: the slots whose value the new type cannot hold, null in it.
    `changed`: those that the rule changed.
    """

    column: Column
    changed: Flags
    misfits: Flags


def masked(column: Column, rule: q.MaskRule, key: bytes) -> Edited:
    """Every value of the column masked."""
    valid = column.valid()
    none = np.zeros(len(valid), np.bool_)
    array = _masked_array(column, rule, key)
    if array is not None:
        return Edited(
            Column(t.DATE if pa.types.is_timestamp(array.type) else t.STRING, array, column.rows), valid, none
        )
    stays_json = column.type == t.JSON and isinstance(rule, q.TruncateDate)
    edited = _each(column, mask_of(rule, key), t.JSON if stays_json else t.STRING)
    return Edited(edited.column, valid, edited.misfits)


def _masked_array(column: Column, rule: q.MaskRule, key: bytes) -> t.ArrowArray | None:
    """The masked values where there is a quick way."""
    array, type_ = column.one_array, column.type
    match rule:
        case q.Redact(text=text):
            return _constant_where_valid(array, text)
        case q.Partial(keep_last=keep_last) if type_ in _STORED_AS_TEXT:
            return _partial(array.cast(pa.string()), keep_last)
        case q.Partial(keep_last=keep_last) if type_ == t.LONG:
            return _partial(array.cast(pa.string()), keep_last)
        case q.Hash() if type_ in _CANONICAL:
            canonical, digest = _CANONICAL[type_], digest_with(key)
            return _by_distinct(array, lambda value: digest(canonical(value).encode()))
        case q.EmailMask(keep_domain=keep_domain) if type_ in _TEXTS:
            return _by_distinct(array, email_mask(digest_with(key), keep_domain=keep_domain))
        case q.TruncateDate(to=to) if type_ == t.DATE:
            # Without its zone, so that no time-zone database is needed: all times are UTC.
            return pc.floor_temporal(array.view(pa.timestamp("us")), unit=to).view(t.DATE.storage)
        case q.TruncateDate() | q.EmailMask() if type_ != t.JSON:
            return _constant_where_valid(array, REDACTED)
    return None


_CANONICAL: Final[dict[t.FieldType, Callable[[Any], str]]] = {
    t.STRING: string_text,
    t.TEXT: string_text,
    t.LONG: str,
    t.OBJECT_ID: lambda value: f'{{"$oid":"{value}"}}',
}
"""Storage value → canonical form, of the types that are hashed most."""


def _constant_where_valid(array: t.ArrowArray, text: str) -> t.ArrowArray:
    return pc.if_else(pc.is_valid(array), pa.scalar(text), pa.scalar(None, pa.string()))


def _partial(texts: t.ArrowArray, keep_last: int) -> t.ArrowArray:
    lengths: t.ArrowArray = pc.utf8_length(texts)
    is_long = pc.greater(lengths, pa.scalar(keep_last))
    hidden = pc.if_else(is_long, pc.subtract(lengths, keep_last), lengths)
    shown = pc.if_else(is_long, pc.utf8_slice_codeunits(texts, start=-keep_last, stop=None), "")
    stars = pc.binary_repeat(pa.scalar(MASK_CHARACTER), hidden)
    return pc.binary_join_element_wise(stars, shown, "")


def _by_distinct(array: t.ArrowArray, text_of: Callable[[Any], str]) -> t.ArrowArray:
    distinct = array.dictionary_encode()
    texts = [text_of(value) for value in distinct.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(distinct.indices)


# --- conversions ------------------------------------------------------------------------------------------------------


def converted(column: Column, to: Target) -> Edited:
    """Every value of the column converted, where there is an exact one."""
    none = np.zeros(len(column.rows), np.bool_)
    if not _may_convert(column.type, to):
        return Edited(column, none, none)
    array = _cast(column, to)
    if array is not None:
        return Edited(Column(_TARGETS[to], array, column.rows), column.valid(), none)
    return _each(column, conversion(to), _TARGETS[to])


def _may_convert(type_: t.FieldType, to: Target) -> bool:
    if to == "json" or type_ == t.JSON:
        return True
    if isinstance(type_, t.Decimal):
        return to in _DECIMALS_CONVERT
    return isinstance(type_, t.Number) or type_ in _SOURCES[to]


def _cast(column: Column, to: Target) -> t.ArrowArray | None:
    """The converted values, when Arrow's cast is exact for all of them: it wraps, cuts and rounds without a word."""
    array, type_ = column.one_array, column.type
    match to:
        case "string" if type_ in _STORED_AS_TEXT or type_ in (t.LONG, t.BOOLEAN):
            return array.cast(pa.string())
        case "long" if type_ in _TEXTS and _all(pc.match_substring_regex(array, _SMALL_LONG)):
            return array.cast(pa.int64())
        case "double" if type_ == t.LONG and _within(array, -EXACT_DOUBLE_MAX, EXACT_DOUBLE_MAX):
            return array.cast(pa.float64())
        case "date" if type_ == t.LONG and _within(array, DATE_MIN_MS, DATE_MAX_MS):
            return pc.multiply(array, 1000).cast(pa.timestamp("us", "UTC"))
    return None


def _all(array: t.ArrowArray) -> bool:
    return bool(pc.all(array, min_count=0).as_py())


def _within(array: t.ArrowArray, low: int, high: int) -> bool:
    return _all(pc.and_(pc.greater_equal(array, pa.scalar(low)), pc.less_equal(array, pa.scalar(high))))


# --- value by value ---------------------------------------------------------------------------------------------------


def _each(column: Column, edit: Callable[[Any], Any], to: t.FieldType) -> Edited:
    """Each distinct value edited as in a document, and fitted into the new type as a document's value is."""
    array = column.one_array
    if isinstance(column.type, _UNHASHABLE) or pa.types.is_nested(array.type) or column.type == t.DOUBLE:
        indices, values = pa.array(np.arange(len(array))), array.to_pylist()
    else:
        distinct = array.dictionary_encode()
        indices, values = distinct.indices, distinct.dictionary.to_pylist()
    known = [None if value is None else bson_value(value, column.type) for value in values]
    edited = [None if value is None else edit(value) for value in known]
    schema = t.DocumentSchema((t.Field("v", to),))
    fitted = walk_documents([{"v": value} for value in edited], schema).columns(schema)[0]
    changed: t.ArrowArray = pa.array([new is not old for new, old in zip(edited, known, strict=True)], pa.bool_())
    result = Column(to, fitted.take(indices), column.rows)
    valid = column.valid()
    return Edited(
        result,
        flags(pc.fill_null(changed.take(indices), False)) & valid,
        valid & ~result.valid(),
    )
