"""Which type a column should be promoted to, from the kinds of the values that did not fit it."""

from collections.abc import Collection
from typing import Final

from cdc_shared.documents import types as t
from cdc_shared.documents.kinds import NAME_CLASH

_NUMBERS: Final = frozenset([t.LONG.text, t.DOUBLE.text])
_WIDER_NUMBERS: Final[dict[t.FieldType, t.FieldType]] = {t.LONG: t.DOUBLE, t.DOUBLE: t.Number()}


def type_wide_enough(known: t.FieldType, kinds: Collection[str]) -> t.FieldType | None:
    """The narrowest type for a column of type `known` and for values of these kinds (see `DecodeStats.conflicts`).

    A long column that meets doubles becomes double (where one of its values is no double exactly, it must become number
    instead: only who reads them all knows); a double column that meets integers beyond the doubles becomes number;
    anything else becomes JSON. None when there is no wider type: JSON and text hold everything, and a clash of names is
    no matter of types.
    """
    met = {kind for kind in kinds if kind != NAME_CLASH}
    if not met or known in (t.JSON, t.TEXT):
        return None
    if not met <= _NUMBERS:
        return t.JSON
    return _WIDER_NUMBERS.get(known, t.JSON)
