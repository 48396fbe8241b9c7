"""Where a document and the document that a row holds differ, field by field. Equality is that of the canonical form."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from cdc_shared.documents import canonical_document, pointer_to
from cdc_shared.documents.kinds import NUMBER, kind_name
from reconciliation.reconciler.difference import FieldDifference, How

MAX_FIELDS: Final = 200
_NUMBERS: Final = ("long", "double")


def field_differences(document: Any, row: Any) -> tuple[FieldDifference, ...]:
    """Return where two documents, as BSON values, differ: at most `MAX_FIELDS`, none when they are equal.

    An object is gone into; so is an array, if both have as many elements. Null and a missing field are one.
    """
    found = tuple(islice(_differences("", document, row), MAX_FIELDS))
    if found or _form(document) == _form(row):
        return found
    return (FieldDifference("", How.VALUE),)  # a name twice, say


def _differences(pointer: str, left: Any, right: Any) -> Iterator[FieldDifference]:
    if type(left) is dict and type(right) is dict:
        for name in {**left, **right}:
            yield from _member_differences(pointer_to(pointer, name), left.get(name), right.get(name))
    elif type(left) is list and type(right) is list and len(left) == len(right):
        for i, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from _differences(f"{pointer}/{i}", one, other)
    elif _form(left) != _form(right):
        yield FieldDifference(pointer, How.VALUE if _kind(left) == _kind(right) else How.TYPE)


def _member_differences(pointer: str, left: Any, right: Any) -> Iterator[FieldDifference]:
    if left is None or right is None:
        if left is not right:
            yield FieldDifference(pointer, How.ONLY_IN_TABLE if left is None else How.ONLY_IN_SOURCE)
    else:
        yield from _differences(pointer, left, right)


def _form(value: Any) -> bytes:
    return canonical_document({"": value})


def _kind(value: Any) -> str:
    kind = kind_name(value)
    return NUMBER if kind in _NUMBERS else kind
