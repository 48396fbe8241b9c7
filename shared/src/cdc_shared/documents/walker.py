"""The slow, exact path: any valid document becomes a row, and what does not fit its column becomes a rescued entry.

The fast path must agree with this one on every text that it accepts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import pyarrow as pa

from cdc_shared.documents import types as t
from cdc_shared.documents.bson_values import DuplicateKeys
from cdc_shared.documents.extended_json import InvalidDocument, parse_document
from cdc_shared.documents.inference import DEFAULT_MAX_STRUCT_FIELDS
from cdc_shared.documents.kinds import (
    DUPLICATE_NAMES,
    NAME_CLASH,
    TOO_MANY_MEMBERS,
    kind_name,
)
from cdc_shared.documents.pointers import pointer_to
from cdc_shared.documents.policies import NONE, FieldPolicies
from cdc_shared.documents.readable_text import readable_text
from cdc_shared.documents.rescued_values import (
    Conflicts,
    Entries,
    Entry,
    count_conflicts,
    first_failure,
    rescued_text,
)
from cdc_shared.documents.scalar_fits import (
    MISFIT,
    SCALAR_FITS,
    Fit,
    binary_fit,
    decimal_fit,
    number_fit,
)

_EMPTY: Final = (dict, list)

Document = dict[str, Any] | DuplicateKeys


@dataclass
class WalkedRows:
    """Rows of consecutive documents. `rows[i]` maps stored column to storage value; `rescued[i]` is the row's
    `_cdc_rescued` text or None.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    rescued: list[str | None] = field(default_factory=list)
    invalid: dict[int, str] = field(default_factory=dict)
    rescued_values: int = 0
    conflicts: Conflicts = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    """Row → pointer of its first conflict that the policies call a failure."""

    def add(self, row: dict[str, Any], entries: Entries, policies: FieldPolicies) -> None:
        """A further row."""
        if entries:
            count_conflicts(entries, self.conflicts)
            failure = first_failure(entries, policies)
            if failure is not None:
                self.failures[len(self.rows)] = failure
        self.rows.append(row)
        self.rescued.append(rescued_text([entry[:2] for entry in entries]) if entries else None)
        self.rescued_values += len(entries)

    def spread(self, rows: Sequence[int], total: int) -> "WalkedRows":
        """The same as `rows` among `total` rows of which the others are empty."""
        spread = WalkedRows([{}] * total, [None] * total, {}, self.rescued_values, self.conflicts)
        for row, values, rescued in zip(rows, self.rows, self.rescued, strict=True):
            spread.rows[row], spread.rescued[row] = values, rescued
        spread.invalid = {rows[index]: reason for index, reason in self.invalid.items()}
        spread.failures = {rows[index]: pointer for index, pointer in self.failures.items()}
        return spread

    def columns(self, schema: t.DocumentSchema) -> list[t.ArrowArray]:
        """One array a stored field of the schema, of its storage type."""
        if not schema.stored:
            return []
        table: t.ArrowArray = pa.array(self.rows, type=schema.storage)
        return list(table.flatten())


class UnknownField(Exception):
    """A document has a field, or a first typed value of a field, that the schema could have a column for but does not
    have.
    """


def walk(
    texts: Iterable[str],
    schema: t.DocumentSchema,
    *,
    may_widen: bool = False,
    policies: FieldPolicies = NONE,
    max_struct_fields: int = DEFAULT_MAX_STRUCT_FIELDS,
) -> WalkedRows:
    """Decode each text on its own. With `may_widen`, UnknownField is raised at the first document that calls for a
    wider schema.
    """
    walked = WalkedRows()

    def documents() -> Iterator[Document]:
        for index, text in enumerate(texts):
            try:
                yield parse_document(text)
            except InvalidDocument as error:
                walked.invalid[index] = str(error)
                yield {}

    _walk(documents(), schema, walked, may_widen, policies, max_struct_fields)
    return walked


def walk_documents(
    documents: Iterable[Document],
    schema: t.DocumentSchema,
    *,
    may_widen: bool = False,
    policies: FieldPolicies = NONE,
    max_struct_fields: int = DEFAULT_MAX_STRUCT_FIELDS,
) -> WalkedRows:
    """`walk` of documents as `parse_document` gives them."""
    walked = WalkedRows()
    _walk(documents, schema, walked, may_widen, policies, max_struct_fields)
    return walked


def _walk(
    documents: Iterable[Document],
    schema: t.DocumentSchema,
    walked: WalkedRows,
    may_widen: bool,
    policies: FieldPolicies,
    max_fields: int,
) -> None:
    members = _compiled(schema, may_widen, max_fields)
    for document in documents:
        entries: Entries = []
        row: dict[str, Any] = {}
        if isinstance(document, DuplicateKeys):
            entries.append(Entry("", document, "", kind_name(document)))
        else:
            row = members.fit(document, entries)
        walked.add(row, entries, policies)


@lru_cache(maxsize=64)
def _compiled(schema: t.DocumentSchema, may_widen: bool, max_fields: int) -> "MembersFit":
    return MembersFit(schema, "", may_widen, max_fields)


class WholeField(Exception):
    """A name came twice somewhere below: the whole top-level field is rescued."""


class MembersFit:
    """Fits an object into a struct that no array surrounds: a member that does not fit is rescued under its own
    pointer.
    """

    def __init__(
        self,
        struct: t.Struct,
        pointer: str,
        may_widen: bool = False,
        max_fields: int = DEFAULT_MAX_STRUCT_FIELDS,
    ) -> None:
        self._struct = struct
        self._pointer = pointer
        self._top_level = pointer == ""
        self._may_widen = may_widen
        self._max_fields = max_fields
        self._scalars: dict[str, tuple[str, Fit]] = {}
        self._structs: dict[str, tuple[str, MembersFit]] = {}
        self._texts = {member.name: member.column for member in struct.fields if member.type == t.TEXT}
        self._untyped = {member.name for member in struct.fields if isinstance(member.type, t.Null)}
        for member in struct.fields:
            if isinstance(member.type, t.Struct):
                below = MembersFit(member.type, pointer_to(self._pointer, member.name), may_widen, max_fields)
                self._structs[member.name] = (member.column, below)
            else:
                self._scalars[member.name] = (member.column, _strict(member.type, may_widen, max_fields))

    def fit(self, document: dict[str, Any], entries: Entries) -> dict[str, Any]:
        """The row of an object; what did not fit is added to `entries`."""
        row: dict[str, Any] = {}
        for name, value in document.items():
            found = self._scalars.get(name)
            if found is not None:
                if value is None:
                    continue
                fitted = found[1](value)
                if fitted is not MISFIT:
                    row[found[0]] = fitted
                    continue
            elif (struct := self._structs.get(name)) is not None:
                if value is None:
                    continue
                if type(value) is dict and (fitted := self._fit_struct(struct[1], value, entries)) is not None:
                    row[struct[0]] = fitted
                    continue
            elif self._may_widen and self._struct.accepts_new(
                name, top_level=self._top_level, max_fields=self._max_fields
            ):
                raise UnknownField
            if value is not None:
                self._rescue(name, value, entries)
                if name in self._texts:
                    row[self._texts[name]] = readable_text(value)
        return row

    def _fit_struct(self, members: "MembersFit", value: dict[str, Any], entries: Entries) -> dict[str, Any] | None:
        """None when the whole field must be rescued, which only a top-level field can be."""
        mark = len(entries)
        try:
            return members.fit(value, entries)
        except WholeField:
            if not self._top_level:
                raise
            del entries[mark:]
            return None

    def _rescue(self, name: str, value: Any, entries: Entries) -> None:
        if not self._top_level and _has_duplicates(value):
            raise WholeField
        pointer = pointer_to(self._pointer, name)
        if name in self._texts or name in self._untyped:
            entries.append(Entry(pointer, value, None))
        elif name in self._scalars:
            entries.append(Entry(pointer, value, pointer, kind_name(value)))
        elif name in self._structs:
            kind = DUPLICATE_NAMES if type(value) is dict else kind_name(value)
            entries.append(Entry(pointer, value, pointer, kind))
        else:
            taken = t.column_name(name).casefold() in self._struct.taken_columns
            reserved = self._top_level and t.column_name(name).casefold().startswith(t.RESERVED_PREFIX)
            entries.append(Entry(pointer, value, self._pointer, NAME_CLASH if taken or reserved else TOO_MANY_MEMBERS))


def _has_duplicates(value: Any) -> bool:
    type_ = type(value)
    if type_ is dict:
        return any(_has_duplicates(member) for member in value.values())
    if type_ is list:
        return any(_has_duplicates(element) for element in value)
    return type_ is DuplicateKeys


def _fit_nothing(_value: Any) -> Any:
    return MISFIT


def _fit_unknown(value: Any) -> Any:
    if type(value) in _EMPTY and not value:
        return MISFIT
    if has_type(value):
        raise UnknownField
    return MISFIT


def has_type(value: Any) -> bool:
    """Whether a value would give a field a type: an empty array, or an object of nulls, does not."""
    type_ = type(value)
    if type_ is dict:
        return any(has_type(member) for member in value.values())
    if type_ is list:
        return any(has_type(element) for element in value)
    return value is not None and type_ is not DuplicateKeys


def _strict(type_: t.FieldType, may_widen: bool, max_fields: int) -> Fit:
    """Fit a value wholly, or not at all: what an array surrounds has no pointer of its own."""
    if isinstance(type_, t.Struct):
        return _strict_struct(type_, may_widen, max_fields)
    if isinstance(type_, t.List):
        return _strict_list(type_, may_widen, max_fields)
    if isinstance(type_, t.Decimal):
        return decimal_fit(type_.scale)
    if isinstance(type_, t.Number):
        return number_fit(type_.scale)
    if isinstance(type_, t.Binary):
        return binary_fit(type_.subtype)
    if isinstance(type_, t.Null):
        return _fit_unknown if may_widen else _fit_nothing
    return SCALAR_FITS[type_.kind]


def _strict_struct(struct: t.Struct, may_widen: bool, max_fields: int) -> Fit:
    known = {member.name: (member.column, _strict(member.type, may_widen, max_fields)) for member in struct.fields}

    def fit(value: Any) -> Any:
        if type(value) is not dict:
            return MISFIT
        row: dict[str, Any] = {}
        for name, member in value.items():
            found = known.get(name)
            if found is None:
                if may_widen and struct.accepts_new(name, top_level=False, max_fields=max_fields):
                    raise UnknownField
                if member is not None:
                    return MISFIT
            elif member is not None:
                fitted = found[1](member)
                if fitted is MISFIT:
                    return MISFIT
                row[found[0]] = fitted
        return row

    return fit


def _strict_list(list_: t.List, may_widen: bool, max_fields: int) -> Fit:
    fit_element = _strict(list_.element, may_widen, max_fields)

    def fit(value: Any) -> Any:
        if type(value) is not list:
            return MISFIT
        row: list[Any] = []
        for element in value:
            if element is None:
                row.append(None)
                continue
            fitted = fit_element(element)
            if fitted is MISFIT:
                return MISFIT
            row.append(fitted)
        return row

    return fit
