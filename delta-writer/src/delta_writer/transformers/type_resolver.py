"""Which columns should get a wider type: those whose fields keep showing values of other kinds.

A batch never changes the type of a column; a promotion does, in the background (docs/architecture/schema-evolution.md).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cdc_shared.documents import DocumentSchema, FieldPolicies, pointer_names, pointer_to, type_wide_enough
from cdc_shared.documents import types as t
from cdc_shared.models.data_quality import PromotionSpec


@dataclass(frozen=True, slots=True)
class Promotion:
    """A field whose column is to be rewritten to a wider type.

    `to_type` double means number (`types.Number`) where an integer of the column is no double exactly: only who reads
    all of them knows.
    """

    pointer: str
    from_type: t.FieldType
    to_type: t.FieldType


@dataclass(slots=True)
class _Met:
    """The kinds of the values that did not fit a field while it had a type of this name, and how many each."""

    type: str
    kinds: Counter[str] = field(default_factory=Counter)


class TypeResolver:
    """Counts what did not fit the columns of one table, since it was opened, and says what to do about it."""

    def __init__(self, policies: FieldPolicies, promotion: PromotionSpec) -> None:
        self._policies = policies
        self._promotion = promotion
        self._met: dict[str, _Met] = {}

    def count(self, table: DocumentSchema, conflicts: Mapping[str, Counter[str]]) -> None:
        """Take in the conflicts of a committed batch (`DecodeStats.conflicts`) with the columns of this schema."""
        for pointer, kinds in conflicts.items():
            type_ = type_at(table, pointer)
            if type_ is None:
                continue
            met = self._met.get(pointer)
            if met is None or met.type != type_.text:  # promoted meanwhile: what did not fit before does not count
                met = self._met[pointer] = _Met(type_.text)
            met.kinds.update(kinds)

    def promotions(self, table: DocumentSchema) -> list[Promotion]:
        """Return the fields that are to be promoted, outer ones first, each to the narrowest type that holds it all.

        A field below one that is promoted is not named: it will be no column of its own.
        """
        if not self._promotion.enabled or not self._met:
            return []
        found: list[Promotion] = []
        for pointer, known in _fields(table, ""):
            met = self._met.get(pointer)
            if met is None or met.type != known.text or any(pointer.startswith(f"{each.pointer}/") for each in found):
                continue
            wider = self._wider(pointer, known, met.kinds)
            if wider is not None:
                found.append(Promotion(pointer, known, wider))
        return found

    def _wider(self, pointer: str, known: t.FieldType, kinds: Counter[str]) -> t.FieldType | None:
        """Return the type that a field needs; None when too few values did not fit it, or no other type is better.

        Values of the column's own kind do not count: a date after 9999 or a decimal with too many digits is no reason
        to make texts of a million others.
        """
        others = {kind: count for kind, count in kinds.items() if kind != known.text.partition(":")[0]}
        if sum(others.values()) < self._promotion.after_conflicts:
            return None
        wider = type_wide_enough(known, others)
        wanted = self._policies.wanted_type(pointer)
        return wider if wider is None or wanted is None or known == wanted else wanted


def type_at(schema: DocumentSchema, pointer: str) -> t.FieldType | None:
    """Return the type of the field that a pointer names, which may lie in structs; None when there is none."""
    type_: t.FieldType = schema
    for name in pointer_names(pointer):
        member = type_.by_name.get(name) if isinstance(type_, t.Struct) else None
        if member is None:
            return None
        type_ = member.type
    return type_


def _fields(struct: t.Struct, pointer: str) -> Iterator[tuple[str, t.FieldType]]:
    """Yield the fields that have a column, outer ones first; what lies in arrays conflicts as the array does."""
    for member in struct.stored:
        at = pointer_to(pointer, member.name)
        yield at, member.type
        if isinstance(member.type, t.Struct):
            yield from _fields(member.type, at)
