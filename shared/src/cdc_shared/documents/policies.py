"""What each field does with values that its column cannot hold, as a pipeline's spec says it: for one collection.

A field is named by its JSON Pointer; `*` stands for an array's elements. What is said of a field is said of everything
below it that is not named itself. What stands in an array conflicts as the array does, because a conflict there rescues
the whole array: so `fail` for a path with `*` is `fail` for the array.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cdc_shared.documents import types as t
from cdc_shared.models.data_quality import ConflictMode, EvolutionSpec

_WANTED: Final[dict[ConflictMode, t.FieldType]] = {"string": t.TEXT, "json": t.JSON}
_IN_ARRAY: Final = "/*"


@dataclass(frozen=True)
class FieldPolicies:
    """`named` are pointer and mode of the fields that the spec names; `default` is the mode of the others.

    A named field of mode `json` or `string` gets that type with its first typed value. By default the two modes change
    only fields that conflict: one that has kinds mixed when it is first seen, and at promotion any other.
    """

    named: tuple[tuple[str, ConflictMode], ...] = ()
    default: ConflictMode = "rescue"

    @classmethod
    def of(cls, evolution: EvolutionSpec, collection: str) -> "FieldPolicies":
        """The policies for documents of this collection. The last of several for one field is in force."""
        fields = [field for field in evolution.fields if field.concerns(collection)]
        return cls(
            tuple((field.path, field.conflict_resolution_mode) for field in fields),
            evolution.conflict_resolution_mode,
        )

    def mode(self, pointer: str) -> ConflictMode:
        """What becomes of a conflict at this pointer."""
        return self.governing(pointer)[1]

    def governing(self, pointer: str) -> tuple[str, ConflictMode]:
        """The named field that this pointer is, or lies below, and its mode; or the pointer itself and the default."""
        at = pointer
        while self._modes and at:
            mode = self._modes.get(at)
            if mode is not None:
                return at, mode
            at = at.rpartition("/")[0]
        return pointer, self.default

    def named_type(self, pointer: str) -> t.FieldType | None:
        """The type that a named field gets with its first value, whatever that value is; None if it has a choice."""
        mode = self._modes.get(pointer)
        return None if mode is None else _WANTED.get(mode)

    def wanted_type(self, pointer: str) -> t.FieldType | None:
        """The type that a field should be promoted to when it conflicts; None if it is to be chosen by its values."""
        return _WANTED.get(self.mode(pointer))

    @property
    def may_fail(self) -> bool:
        """Whether any conflict may stop the pipeline."""
        return self.default == "fail" or "fail" in self._modes.values()

    @cached_property
    def _modes(self) -> dict[str, ConflictMode]:
        modes = dict(self.named)
        for pointer, mode in self.named:
            array, in_array, _ = pointer.partition(_IN_ARRAY)
            if in_array and mode == "fail":
                modes.setdefault(array, mode)
        return modes


NONE: Final = FieldPolicies()
"""Every conflict is rescued."""
