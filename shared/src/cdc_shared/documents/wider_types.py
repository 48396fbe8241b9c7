"""Which type a column should be promoted to, from the kinds of the values that did not fit it."""

from collections.abc import Collection
from typing import Final

from cdc_shared.documents import types as t
from cdc_shared.documents.kinds import NAME_CLASH

_NUMBERS: Final = frozenset([t.LONG.text, t.DOUBLE.text])


def type_wide_enough(
    known: t.FieldType, kinds: Collection[str], *, longs_are_exact_doubles: bool = True
) -> t.FieldType | None:
    """The narrowest type for a column of type `known` and for values of these kinds (see `DecodeStats.conflicts`).

    A long column that meets doubles becomes double, or, where the caller knows of a long that is no double exactly (see
    `convert_column`), number; a double or number column that meets numbers becomes number, or JSON if it was one
    already; anything else becomes JSON. None when there is no wider type: JSON and text hold everything, and a clash of
    names is no matter of types.
    """
    met = {kind for kind in kinds if kind != NAME_CLASH}
    if not met or known in (t.JSON, t.TEXT):
        return None
    if not met <= _NUMBERS:
        return t.JSON
    if known == t.LONG and longs_are_exact_doubles:
        return t.DOUBLE
    if known in (t.LONG, t.DOUBLE):
        return t.Number()
    return t.JSON
