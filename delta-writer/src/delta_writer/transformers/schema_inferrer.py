"""What a batch of documents calls for: its columns fitted into the table's, and which document shows each new field.

A field's type is chosen once, by the first batch that shows a typed value of it (`documents.inference`, and by name
where a policy wants `string` or `json`), and never changes by a batch: a value that does not fit is rescued. So what a
batch can do to a table's schema is to add fields, at any depth.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cdc_shared.documents import Decoded, DocumentSchema, FieldPolicies, fit
from cdc_shared.documents import types as t
from cdc_shared.documents.pointers import ANY_ELEMENT, pointer_to

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FittedDocuments:
    """Documents in the table's columns.

    Attributes:
        decoded: in the schema that the table is to have: its own, and behind it the fields that are new.
        shown_by: JSON Pointer of each new field, `*` for every element of an array → the first row that has it.
    """

    decoded: Decoded
    shown_by: Mapping[str, int]


def fit_documents(
    documents: Decoded, table: DocumentSchema, policies: FieldPolicies, applied: npt.NDArray[np.bool_]
) -> FittedDocuments:
    """Fit documents into a table's schema, widened by what only they have. No type of a column is changed.

    `applied` says of each row whether it comes into the table: one that does not is never named as the first.
    """
    if documents.schema.typed() == table.typed():
        return FittedDocuments(documents, {})
    decoded = fit(documents, table, policies=policies)
    arrays = [decoded.table.column(member.column).combine_chunks() for member in decoded.schema.stored]
    rows = np.arange(len(decoded.rescued))
    return FittedDocuments(decoded, dict(_first_rows(table, decoded.schema, arrays, rows, applied, "")))


def _first_rows(
    known: t.Struct, members: t.Struct, arrays: list[Any], rows: Rows, applied: npt.NDArray[np.bool_], pointer: str
) -> Iterator[tuple[str, int]]:
    """Yield the members that `known` has no column for. `arrays` are those of the stored ones; `rows`, of the places in
    them the documents that they belong to.
    """
    columns = {member.name: member.type for member in known.stored}
    for member, array in zip(members.stored, arrays, strict=True):
        at = pointer_to(pointer, member.name)
        before = columns.get(member.name, t.NULL)
        if isinstance(before, t.Null):
            shown = rows[array.is_valid().to_numpy(zero_copy_only=False)]
            if len(shown := shown[applied[shown]]):
                yield at, int(shown[0])
        if before != member.type:
            yield from _below(before, member.type, array, rows, applied, at)


def _below(
    known: t.FieldType, type_: t.FieldType, array: Any, rows: Rows, applied: npt.NDArray[np.bool_], at: str
) -> Iterator[tuple[str, int]]:
    while isinstance(type_, t.List):
        rows = rows[array.value_parent_indices().to_numpy()]
        array, type_, at = array.flatten(), type_.element, f"{at}/{ANY_ELEMENT}"
        known = known.element if isinstance(known, t.List) else t.NULL
    if isinstance(type_, t.Struct):
        members = known if isinstance(known, t.Struct) else t.Struct()
        yield from _first_rows(members, type_, array.flatten(), rows, applied, at)
