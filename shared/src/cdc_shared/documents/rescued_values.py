"""What of a document its row's columns do not hold: `_cdc_rescued`, and the conflicts that are counted of it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cdc_shared.documents import types as t
from cdc_shared.documents.extended_json import dump, parse, string_text
from cdc_shared.documents.policies import FieldPolicies

Rows = npt.NDArray[np.int64]
Conflicts = dict[str, Counter[str]]
"""JSON Pointer of a known field → how often values of which kind did not fit it."""


class Entry(NamedTuple):
    """A value that a row's columns do not hold."""

    pointer: str
    value: Any
    field: str | None
    """Pointer of the known field that the value is in conflict with; None if there is no conflict: nothing typed is
    known of the field, or a `text` column shows the value.
    """
    kind: str = ""
    """Kind of the value in that conflict."""


Entries = list[Entry]


def count_conflicts(entries: Iterable[Entry], conflicts: Conflicts) -> None:
    """Add the conflicts among a row's entries to the counts."""
    for entry in entries:
        if entry.field is not None:
            conflicts.setdefault(entry.field, Counter())[entry.kind] += 1


def merge_conflicts(into: Conflicts, others: Mapping[str, Counter[str]]) -> None:
    """Add counts to counts."""
    for pointer, kinds in others.items():
        into.setdefault(pointer, Counter()).update(kinds)


def first_failure(entries: Iterable[Entry], policies: FieldPolicies) -> str | None:
    """Pointer of the first conflict among a row's entries whose field's policy is `fail`."""
    if not policies.may_fail:
        return None
    conflicts = (entry.pointer for entry in entries if entry.field is not None)
    return next((pointer for pointer in conflicts if policies.mode(pointer) == "fail"), None)


def rescued_text(entries: Sequence[tuple[str, Any]]) -> str:
    """The `_cdc_rescued` value of a row: a JSON object from JSON Pointer to canonical Extended JSON."""
    return "{" + ",".join([f"{string_text(pointer)}:{dump(value)}" for pointer, value in entries]) + "}"


class RescuedColumn:
    """The entries of a `_cdc_rescued` column; those of a row are read when one of them is asked for."""

    def __init__(self, texts: pa.StringArray) -> None:
        self._texts = texts
        self._entries: dict[int, dict[str, Any]] = {}
        self.further_values = 0
        """How many values were added, less those taken."""

    def rows_below(self, pointer: str) -> Rows:
        """The rows that have an entry for the pointer or for one below it."""
        if self._texts.null_count == len(self._texts):
            return np.array(sorted(row for row in self._entries if self._below(row, pointer)), np.int64)
        mentioned = pc.match_substring(self._texts, string_text(pointer)[:-1]).fill_null(False)
        candidates = {*np.flatnonzero(mentioned.to_numpy(zero_copy_only=False)).tolist(), *self._entries}
        return np.array(sorted(row for row in candidates if self._below(row, pointer)), np.int64)

    def taken_below(self, row: int, pointer: str) -> dict[str, Any]:
        """Those entries of a row, which are no longer there."""
        entries = self._of_row(row)
        taken = {at: entries.pop(at) for at in self._below(row, pointer)}
        self.further_values -= len(taken)
        return taken

    def add(self, row: int, entries: Sequence[tuple[str, Any]]) -> None:
        self._of_row(row).update(entries)
        self.further_values += len(entries)

    def array(self) -> pa.StringArray:
        """The column as it is now."""
        if not self._entries:
            return self._texts
        rows = np.array(sorted(self._entries), np.int64)
        texts = [rescued_text(list(entries.items())) if (entries := self._entries[row]) else None for row in rows]
        replaced: pa.StringArray = replaced_rows(self._texts, rows, pa.array(texts, pa.string()))
        return replaced

    def _below(self, row: int, pointer: str) -> list[str]:
        return [at for at in self._of_row(row) if at == pointer or at.startswith(f"{pointer}/")]

    def _of_row(self, row: int) -> dict[str, Any]:
        entries = self._entries.get(row)
        if entries is None:
            text = self._texts[row].as_py()
            entries = self._entries[row] = {} if text is None else parse(text)
        return entries


def replaced_rows(array: t.ArrowArray, rows: Rows, values: t.ArrowArray) -> t.ArrowArray:
    """The array with other values in these rows."""
    if len(rows) == len(array):
        return values
    chosen = np.arange(len(array))
    chosen[rows] = len(array) + np.arange(len(rows))
    return pa.concat_arrays([array, values]).take(pa.array(chosen))
