"""Choose types for fields that have none yet, from the documents that first show them.

A known type never changes: what does not fit it is rescued. So only the batch that creates a column decides its type,
by these rules:

* the kind that most values have wins; the first seen on a tie;
* integers and doubles together make a double, unless every double is integral and some integer is beyond ±2^53, which
  makes a long;
* decimals get scale 10, or 18 when a value needs more than ten places;
* an array that mixes kinds, or whose kinds change from row to row, is JSON, unless odd ones are rarer than one in a
  hundred: a conflict in an array rescues the whole array, so mixing is dearer there than elsewhere;
* a field that the policies name `json` or `string` gets that type, and one that mixes kinds the type of its policy;
* an object of more than `max_struct_fields` members, or below `MAX_DEPTH` levels, is JSON.
"""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Context
from typing import Any, Final

from bson import Decimal128

from cdc_shared.documents import types as t
from cdc_shared.documents.bson_values import DuplicateKeys
from cdc_shared.documents.extended_json import InvalidDocument, parse_document
from cdc_shared.documents.kinds import ARRAY, NOTHING, NUMBER, OBJECT, kind_of
from cdc_shared.documents.pointers import ANY_ELEMENT, pointer_to
from cdc_shared.documents.policies import NONE, FieldPolicies

DEFAULT_MAX_STRUCT_FIELDS: Final = 1000
EXACT_DOUBLE_MAX: Final = 2**53
"""Every integer up to this magnitude is a double exactly."""
ODD_SHARE: Final = 0.01
_WIDE: Final = Context(prec=t.DECIMAL_PRECISION)


def infer(
    texts: Iterable[str],
    known: t.DocumentSchema,
    *,
    policies: FieldPolicies = NONE,
    max_struct_fields: int = DEFAULT_MAX_STRUCT_FIELDS,
) -> t.DocumentSchema:
    """`known`, and a field for whatever else these documents hold. A superset of `known`; no known type is changed.

    Texts that are not documents are passed over. Fields that showed no typed value are there with type `Null`.
    """
    return infer_documents(_documents(texts), known, policies=policies, max_struct_fields=max_struct_fields)


def infer_documents(
    documents: Iterable[dict[str, Any] | DuplicateKeys],
    known: t.DocumentSchema,
    *,
    policies: FieldPolicies = NONE,
    max_struct_fields: int = DEFAULT_MAX_STRUCT_FIELDS,
) -> t.DocumentSchema:
    """`infer` of documents as `parse_document` gives them."""
    root = _Observed()
    for document in documents:
        if isinstance(document, dict):
            root.see(document)
    members = _Widening(policies, max_struct_fields).members(known, root, "", depth=0)
    return known if members == known.fields else t.DocumentSchema(members)


def _documents(texts: Iterable[str]) -> Iterator[dict[str, Any] | DuplicateKeys]:
    for text in texts:
        try:
            yield parse_document(text)
        except InvalidDocument:
            continue


class _Observed:
    """What was seen in one place of the documents: how often each kind, and what lies below."""

    __slots__ = (
        "counts",
        "elements",
        "fine_decimals",
        "fractions",
        "in_array",
        "large_integers",
        "members",
        "mixed_arrays",
    )

    def __init__(self, *, in_array: bool = False) -> None:
        self.counts: dict[Any, int] = {}
        self.members: dict[str, _Observed] = {}
        self.elements: _Observed | None = None
        self.mixed_arrays = 0
        self.in_array = in_array
        self.fractions = self.large_integers = self.fine_decimals = False

    def see(self, value: Any) -> None:
        kind = kind_of(value)
        if kind is NOTHING:
            return
        counts = self.counts
        counts[kind] = counts.get(kind, 0) + 1
        if kind is OBJECT:
            self._see_object(value)
        elif kind is ARRAY:
            self._see_array(value)
        elif kind is NUMBER:
            self._see_number(value)
        elif type(value) is Decimal128 and not self.fine_decimals:
            self.fine_decimals = _needs_fine_scale(value)

    def _see_object(self, value: dict[str, Any]) -> None:
        members = self.members
        for name, member in value.items():
            below = members.get(name)
            if below is None:
                below = members[name] = _Observed(in_array=self.in_array)
            below.see(member)

    def _see_array(self, value: Sequence[Any]) -> None:
        if len({kind_of(element) for element in value} - {NOTHING}) > 1:
            self.mixed_arrays += 1
            return
        if self.elements is None:
            self.elements = _Observed(in_array=True)
        for element in value:
            self.elements.see(element)

    def _see_number(self, value: float) -> None:
        counts = self.counts
        if type(value) is float:
            counts[float] = counts.get(float, 0)  # a mark, without a vote of its own
            if not value.is_integer() or not -(2.0**63) <= value < 2.0**63 or (value == 0 and str(value)[0] == "-"):
                self.fractions = True
        elif not -EXACT_DOUBLE_MAX <= value <= EXACT_DOUBLE_MAX:
            self.large_integers = True


class _Widening:
    """Turns what was seen into types, beside those that are known."""

    def __init__(self, policies: FieldPolicies, max_struct_fields: int) -> None:
        self._policies = policies
        self._max_fields = max_struct_fields

    def members(self, known: t.Struct, seen: _Observed, pointer: str, depth: int) -> tuple[t.Field, ...]:
        """The members of `known`, widened, then the new ones in the order in which they were seen.

        Those that get their first type here stand behind those that have a column, where their column is added.
        """
        untyped = [member for member in known.fields if isinstance(member.type, t.Null)]
        fields = []
        for member in (*known.stored, *untyped):
            at = pointer_to(pointer, member.name)
            type_ = self._widened(member.type, seen.members.get(member.name), at, depth + 1)
            fields.append(t.Field(member.name, type_, member.column))
        taken = set(known.taken_columns)
        for name, below in seen.members.items():
            if name in known.by_name or not known.accepts_new(name, top_level=depth == 0, max_fields=self._max_fields):
                continue
            column = t.column_name(name)
            if len(fields) < self._max_fields and column.casefold() not in taken:
                fields.append(t.Field(name, self._new(below, pointer_to(pointer, name), depth + 1), column))
                taken.add(column.casefold())
        return tuple(fields)

    def _widened(self, known: t.FieldType, seen: _Observed | None, pointer: str, depth: int) -> t.FieldType:
        if seen is None:
            return known
        if isinstance(known, t.Null):
            return self._new(seen, pointer, depth)
        if isinstance(known, t.Struct):
            return t.Struct(self.members(known, seen, pointer, depth))
        if isinstance(known, t.List):
            return t.List(self._widened(known.element, seen.elements, pointer_to(pointer, ANY_ELEMENT), depth + 1))
        return known

    def _new(self, seen: _Observed, pointer: str, depth: int) -> t.FieldType:
        ranked = sorted((kind for kind in seen.counts if seen.counts[kind]), key=lambda kind: -seen.counts[kind])
        total = sum(seen.counts.values())
        for kind in ranked:
            type_ = self._of_kind(kind, seen, pointer, depth)
            if not isinstance(type_, t.Null):
                named = self._policies.named_type(pointer)
                if named is not None:
                    return named
                odd = total - seen.counts[kind]
                if odd and (wanted := self._policies.wanted_type(pointer)) is not None:
                    return wanted
                return t.JSON if seen.in_array and odd > ODD_SHARE * total else type_
        return t.NULL

    def _of_kind(self, kind: Any, seen: _Observed, pointer: str, depth: int) -> t.FieldType:
        if kind is OBJECT:
            return self._object(seen, pointer, depth)
        if kind is ARRAY:
            return self._array(seen, pointer, depth)
        if kind is NUMBER:
            doubles = float in seen.counts and (seen.fractions or not seen.large_integers)
            return t.DOUBLE if doubles else t.LONG
        if isinstance(kind, t.Decimal):
            return t.Decimal(t.FINE_DECIMAL_SCALE if seen.fine_decimals else t.DEFAULT_DECIMAL_SCALE)
        type_: t.FieldType = kind
        return type_

    def _object(self, seen: _Observed, pointer: str, depth: int) -> t.FieldType:
        if not seen.members:
            return t.NULL
        if len(seen.members) > self._max_fields or depth > t.MAX_DEPTH:
            return t.JSON
        struct = t.Struct(self.members(t.Struct(), seen, pointer, depth))
        return struct if struct.stored else t.NULL

    def _array(self, seen: _Observed, pointer: str, depth: int) -> t.FieldType:
        if seen.mixed_arrays > ODD_SHARE * seen.counts[ARRAY] or (depth > t.MAX_DEPTH and seen.elements):
            return t.JSON
        element = self._new(seen.elements, pointer_to(pointer, ANY_ELEMENT), depth + 1) if seen.elements else t.NULL
        return element if element in (t.NULL, t.JSON) else t.List(element)


def _needs_fine_scale(value: Decimal128) -> bool:
    number = value.to_decimal()
    return number.is_finite() and int(_WIDE.normalize(number).as_tuple().exponent) < -t.DEFAULT_DECIMAL_SCALE
