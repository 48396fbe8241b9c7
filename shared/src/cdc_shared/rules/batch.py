"""A batch of decoded documents, as validation rules look at it: columns first, documents where columns do not tell."""

import re
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc_shared.documents import types as t
from cdc_shared.documents.decoder import Decoded
from cdc_shared.documents.extended_json import parse_document, string_text
from cdc_shared.documents.pointers import pointer_token
from cdc_shared.rules.field_values import Mask, Reached, mask_of, one_piece, reach
from cdc_shared.rules.paths import EVERY, Tokens, names_of

_WHOLE_DOCUMENT = '{"":'
"""How `_cdc_rescued` begins when it holds a document that repeats a top-level name."""


class Batch:
    """One `check`. `is_open` marks the rows that no rule has rejected so far."""

    def __init__(self, decoded: Decoded, texts: Sequence[str], keys: Sequence[str]) -> None:
        self.keys = keys
        self.rows = len(texts)
        self.schema = decoded.schema
        self.is_open: Mask = np.ones(self.rows, np.bool_)
        self.is_open[list(decoded.invalid)] = False
        self._table = decoded.table
        self._texts = texts
        self._rescued = decoded.rescued
        self._columns: dict[int, t.ArrowArray] = {}
        self._documents: dict[int, Any] = {}

    def document(self, row: int) -> Any:
        """The row's document, parsed when first asked for."""
        if row not in self._documents:
            self._documents[row] = parse_document(self._texts[row])
        return self._documents[row]

    def column(self, index: int) -> t.ArrowArray:
        """The column of `schema.stored[index]`, in one piece."""
        if index not in self._columns:
            self._columns[index] = one_piece(self._table.column(index))
        return self._columns[index]

    def reach(self, tokens: Tokens) -> Reached:
        """What a path, which begins with a field's name, reaches from each row."""
        name, below = _beginning(tokens)
        for index, field in enumerate(self.schema.stored):
            if field.name == name:
                return reach(field.type, self.column(index), below)
        return reach(t.NULL, pa.nulls(self.rows), below)

    def touched(self, pattern: str) -> Mask:
        """The rows of which values were rescued under a pointer that the pattern, in RE2, may stand for.

        It may be more: text that looks like a pointer may stand in a rescued value. Such rows cost more, no less.
        """
        if not self._has_rescued:
            return self.none()
        found = pc.match_substring_regex(self._rescued, pattern)
        return mask_of(pc.or_(found, self._rescues_whole))

    def decide(self, failing: Mask, unsure: Mask, passes: Callable[[Any], bool]) -> Mask:
        """`failing`, with the open rows that are unsure decided by their documents."""
        failing = failing & ~unsure
        for row in np.flatnonzero(unsure & self.is_open):
            failing[row] = not passes(self.document(int(row)))
        return failing

    def none(self) -> Mask:
        """A mask with no row marked."""
        return np.zeros(self.rows, np.bool_)

    @cached_property
    def _has_rescued(self) -> bool:
        return bool(self._rescued.null_count < len(self._rescued))

    @cached_property
    def _rescues_whole(self) -> t.ArrowArray:
        return pc.starts_with(self._rescued, _WHOLE_DOCUMENT)


@cache
def pointer_pattern(tokens: Tokens) -> str:
    """Matches `_cdc_rescued` texts with a pointer at, above or below a path: pointers go into no array."""
    return nested_pattern([re.escape(string_text(pointer_token(name))[1:-1]) for name in names_of(tokens)])


def nested_pattern(names: Sequence[str]) -> str:
    """Matches the JSON text of a pointer at, above or below the one whose tokens these patterns match."""
    pattern = '["/]'
    for name in reversed(names[1:]):
        pattern = f'(?:"|/{name}{pattern})'
    return f'"/{names[0]}{pattern}'


def _beginning(tokens: Tokens) -> tuple[str, Tokens]:
    """The first name and what follows: `*` on a document stands for the document."""
    start = next((index for index, token in enumerate(tokens) if token != EVERY), None)
    if start is None:
        raise ValueError("a path without a name")
    return tokens[start], tokens[start + 1 :]
