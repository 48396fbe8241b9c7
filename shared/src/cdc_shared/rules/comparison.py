"""Comparison of two fields of a document, and of values for being the same.

Numbers are compared by value whatever their types, strings by code points, dates by time. Of any other kind, values are
the same or not (by their canonical form). Values of two kinds are not the same and have no order.
"""

import operator
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bson import DatetimeMS

from cdc_shared.documents import types as t
from cdc_shared.documents.canonical import canonical_document
from cdc_shared.documents.inference import EXACT_DOUBLE_MAX
from cdc_shared.models.data_quality import Compare
from cdc_shared.rules.batch import Batch, pointer_pattern
from cdc_shared.rules.field_values import Mask, Reached, mask_of, reach, values_at
from cdc_shared.rules.numbers import longs_within, number_of
from cdc_shared.rules.paths import Tokens, tokens_of

Relation = Callable[[Any, Any], Any]
_PYTHON: Final[dict[str, Relation]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARROW: Final[dict[str, Relation]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_ORDERED: Final = (t.LONG, t.DOUBLE, t.STRING, t.TEXT, t.DATE)
_SAME_TEXT: Final = (t.BOOLEAN, t.OBJECT_ID, t.UUID)
"""Types without an order here, whose storage values are the same when the BSON values are."""


def identity(value: Any) -> Hashable:
    """Equal for two values (not null) that are the same: numbers by value, every NaN, else of one kind and canonical
    form.
    """
    if type(value) is str:
        return "string", value
    number = number_of(value)
    if number is not None:
        return "number", number if number == number else "NaN"
    return "value", canonical_document({"": value})


def stands(relation: str, one: Any, other: Any) -> bool:
    """Whether two values that are not null stand in a relation."""
    left, right = _ordered(one), _ordered(other)
    if left is not None and right is not None and left[0] == right[0]:
        if left[1] != left[1] or right[1] != right[1]:  # NaN; decimals would raise
            return relation == "!="
        return bool(_PYTHON[relation](left[1], right[1]))
    if relation == "==" or relation == "!=":
        return (left is None and right is None and identity(one) == identity(other)) == (relation == "==")
    return False


def _ordered(value: Any) -> tuple[str, Any] | None:
    if type(value) is str:
        return "string", value
    if type(value) is DatetimeMS:
        return "date", int(value)
    number = number_of(value)
    return None if number is None else ("number", number)


def _column_stands(relation: str, one: Reached, other: Reached) -> t.ArrowArray | bool | None:
    """`stands`, value by value, of two columns of one length; None where they do not tell."""
    left, right = (_text_as_string(one.type), _text_as_string(other.type))
    values, others = one.values, other.values
    if t.JSON in (left, right):
        return None
    if {left, right} == {t.LONG, t.DOUBLE}:
        longs = values if left == t.LONG else others
        if pc.any(pc.invert(longs_within(longs, -EXACT_DOUBLE_MAX, EXACT_DOUBLE_MAX))).as_py():
            return None
        values, others = values.cast(pa.float64(), safe=False), others.cast(pa.float64(), safe=False)
    elif left != right:
        alike = (_is_number(left) and _is_number(right)) or (type(left) is type(right) and type(left) is not t.Scalar)
        return None if alike else relation == "!="
    elif left in _SAME_TEXT:
        if relation not in ("==", "!="):
            return False
    elif left not in _ORDERED and not isinstance(left, t.Decimal):
        return None
    return _ARROW[relation](values, others)


def _text_as_string(type_: t.FieldType) -> t.FieldType:
    return t.STRING if type_ == t.TEXT else type_


def _is_number(type_: t.FieldType) -> bool:
    return type_ == t.LONG or type_ == t.DOUBLE or isinstance(type_, t.Decimal | t.Number)


@dataclass(frozen=True)
class FieldsCompared:
    """Fields below one object, or one element of an array, are compared within it: `/lines/*/from` with
    `/lines/*/to` of the same line. Every pair must stand in the relation.
    """

    shared: Tokens
    one: Tokens
    other: Tokens
    relation: str
    failure: str

    @classmethod
    def of(cls, rule: Compare) -> "FieldsCompared":
        """Raises ValueError, with what is wrong, when both paths are the same."""
        one, other = tokens_of(rule.path), tokens_of(rule.other)
        if one == other:
            raise ValueError("compares a field with itself")
        shared = 0
        while shared < min(len(one), len(other)) - 1 and one[shared] == other[shared]:
            shared += 1
        return cls(one[:shared], one[shared:], other[shared:], rule.operator, f"is not {rule.operator} {rule.other}")

    def passes(self, document: Any) -> bool:
        return all(self._passes_within(place) for place in values_at(document, self.shared))

    def _passes_within(self, place: Any) -> bool:
        if type(place) is list:
            return all(self._passes_within(element) for element in place)
        others = [value for value in values_at(place, self.other) if value is not None]
        return all(
            stands(self.relation, value, other)
            for value in values_at(place, self.one)
            if value is not None
            for other in others
        )

    def failing(self, batch: Batch) -> Mask:
        """The rows that fail."""
        places, one, other = self._reached(batch)
        unsure = batch.touched(pointer_pattern(self.shared + self.one))
        unsure |= batch.touched(pointer_pattern(self.shared + self.other))
        unsure[places.opaque] = True
        unsure[places.starts_of(np.append(one.opaque, other.opaque))] = True
        failing = batch.none()
        paired = _paired(one, other)
        if paired is None:
            unsure[places.starts_of(one.starts(one.present))] = True
            return batch.decide(failing, unsure, self.passes)
        one, other = paired
        both = one.present & other.present
        stand = _column_stands(self.relation, one, other) if both.any() else True
        if stand is None:
            unsure[places.starts_of(one.starts(both))] = True
        elif stand is not True:
            failing[places.starts_of(one.starts(both if stand is False else both & ~mask_of(stand)))] = True
        return batch.decide(failing, unsure, self.passes)

    def _reached(self, batch: Batch) -> tuple[Reached, Reached, Reached]:
        """The objects within which the fields are compared, from the rows; and the fields, from those objects."""
        if not self.shared:
            rows = Reached(t.NULL, pa.nulls(batch.rows))
            return rows, batch.reach(self.one), batch.reach(self.other)
        places = batch.reach(self.shared)
        while isinstance(places.type, t.List):
            places = places.elements()
        return places, reach(places.type, places.values, self.one), reach(places.type, places.values, self.other)


def _paired(one: Reached, other: Reached) -> tuple[Reached, Reached] | None:
    """Both with one value for each pair; None when a start has several values of each."""
    if one.at is None:
        return (one, other) if other.at is None else (one.repeated(other.at), other)
    if other.at is None:
        return one, other.repeated(one.at)
    one_each = np.array_equal(one.at, other.at) and len(np.unique(one.at)) == len(one.at)
    return (one, other) if one_each else None
