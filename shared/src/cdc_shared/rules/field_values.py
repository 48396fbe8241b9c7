"""The values that a rule's path reaches: in one document, and in the columns of a batch.

Paths are those of `cdc_shared.rules.paths`. What a check needs beyond them is where a value is *missing*: an object
without the name, or anything else in its place, gives None. `*` on what is missing or null gives nothing at all: an
array that is not there has no elements.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cdc_shared.documents import types as t
from cdc_shared.documents.bson_values import DuplicateKeys
from cdc_shared.rules.paths import EVERY, Tokens

Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]


def one_piece(column: Any) -> t.ArrowArray:
    """A chunked array as an array; copied only when it has several chunks."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def values_at(value: Any, tokens: Tokens) -> Iterator[Any]:
    """Every value that the path reaches from `value`, None for each that is missing."""
    if not tokens:
        yield value
        return
    token, below = tokens[0], tokens[1:]
    type_ = type(value)
    if type_ is list:
        for element in value:
            yield from values_at(element, below if token == EVERY else tokens)
    elif token == EVERY:
        if value is not None:
            yield from values_at(value, below)
    elif type_ is dict:
        yield from values_at(value.get(token), below)
    elif type_ is DuplicateKeys and any(name == token for name, _ in value.pairs):
        for name, member in value.pairs:
            if name == token:
                yield from values_at(member, below)
    else:
        yield from values_at(None, below)


@dataclass(frozen=True)
class Reached:
    """What a path reaches from each of a number of starts, as one array.

    `at[i]` is the start that `values[i]` was reached from, ascending; None when it is one each. `opaque` are starts of
    which the columns do not tell: the path leads into a JSON text. What `values` hold for them means nothing.
    """

    type: t.FieldType
    """`NULL` when no value there has a type: then every value is null."""
    values: t.ArrowArray
    at: Positions | None = None
    opaque: Positions = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def present(self) -> Mask:
        """Which places have a value."""
        return mask_of(self.values.is_valid())

    def starts(self, places: Mask) -> Positions:
        """The starts of the places that are marked. May name one more than once."""
        return self.starts_of(np.flatnonzero(places))

    def starts_of(self, places: Positions) -> Positions:
        """The start of each of these places."""
        return places if self.at is None else self.at[places]

    def elements(self) -> "Reached":
        """The elements of lists, from the same starts."""
        if not isinstance(self.type, t.List):
            raise TypeError(f"a column of {self.type.text} has no elements")
        parents: t.ArrowArray = pc.list_parent_indices(self.values)
        starts = self.starts_of(parents.to_numpy(zero_copy_only=False).astype(np.int64))
        return Reached(self.type.element, pc.list_flatten(self.values), starts, self.opaque)

    def elements_or_null(self) -> "Reached":
        """The elements of lists, and null for each list that is null, from the same starts."""
        elements = self.elements()
        absent = np.flatnonzero(~self.present)
        if not len(absent):
            return elements
        at = np.append(elements.starts_of(np.arange(len(elements.values))), self.starts_of(absent))
        order = np.argsort(at, kind="stable")
        values = pa.concat_arrays([elements.values, pa.nulls(len(absent), elements.values.type)])
        return Reached(elements.type, values.take(order), at[order], self.opaque)

    def repeated(self, starts: Positions) -> "Reached":
        """One value for each of these starts, where there is one for every start."""
        return Reached(self.type, self.values.take(starts), starts, self.opaque)


def reach(type_: t.FieldType, values: t.ArrowArray, tokens: Tokens) -> Reached:
    """What a path reaches from each of `values`."""
    here = Reached(type_, values)
    while tokens:
        token, type_ = tokens[0], here.type
        if isinstance(type_, t.List):
            here = here.elements() if token == EVERY else here.elements_or_null()
            tokens = tokens[1:] if token == EVERY else tokens
        elif isinstance(type_, t.Null) or type_ == t.JSON:
            return _missing(here, tokens)
        elif token == EVERY:
            present = np.flatnonzero(here.present)
            here = Reached(type_, here.values.take(present), here.starts_of(present))
            tokens = tokens[1:]
        else:
            member = type_.by_name.get(token) if isinstance(type_, t.Struct) else None
            if member is None or not isinstance(type_, t.Struct) or member not in type_.stored:
                return _missing(here, tokens)
            here = Reached(member.type, pc.struct_field(here.values, type_.stored.index(member)), here.at)
            tokens = tokens[1:]
    return here


def _missing(here: Reached, tokens: Tokens) -> Reached:
    """The columns hold nothing below: one null each, or, where a `*` is to come, nothing."""
    opaque = here.starts(here.present) if here.type == t.JSON else here.opaque
    if EVERY in tokens:
        return Reached(t.NULL, pa.nulls(0), np.zeros(0, np.int64), opaque)
    return Reached(t.NULL, pa.nulls(len(here.values)), here.at, opaque)


def mask_of(booleans: t.ArrowArray, if_null: bool = False) -> Mask:
    """An Arrow array of booleans as a numpy one."""
    filled: t.ArrowArray = pc.fill_null(booleans, if_null)
    mask: Mask = filled.to_numpy(zero_copy_only=False)
    return mask
