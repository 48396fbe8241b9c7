"""Documents and rows by their hashes: what is alone with its partner, and equals it, is done with.

A range of hashes of both sides is put in one order, in which a document and its row stand side by side, a piece at a
time that stays in the processor's cache. Parts are nearly in that order already, so it is a merge of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reconciliation.reconciler.spill import Side, SourceStatus, Spill

Values = npt.NDArray[Any]
BORDER: Final = 2**32
"""Ranges begin and end at multiples of this: below them parts are in no order."""
PIECE_ROWS: Final = 65_536
_WORDS: Final = ("hash_hi", "hash_lo", "digest_hi", "digest_lo")
_NO_STATUS: Final = 255
"""Of what is a row and no document."""


@dataclass(frozen=True, slots=True)
class PartRange:
    """A range of one part: `words` are the halves of hashes and digests; `status` of a row is `_NO_STATUS`."""

    words: tuple[Values, ...]
    status: Values

    def cut(self, border: int) -> int:
        """Return how many of its rows have a hash below the border."""
        return len(self.status) if border == 2**64 else int(np.searchsorted(self.words[0], np.uint64(border)))

    def slice(self, start: int, end: int) -> "PartRange":
        """Return some of its rows."""
        return PartRange(tuple(word[start:end] for word in self.words), self.status[start:end])


class PartReader:
    """Reads ranges of a spill's parts, whose footers it reads once."""

    def __init__(self, spill: Spill) -> None:
        self._parts = [(side, path, pq.read_metadata(path)) for side in Side for path in spill.parts(side)]

    def read(self, first: int, end: int) -> list[PartRange]:
        """Return what the parts have of the hashes in [first, end), documents before rows. Both are `BORDER`s."""
        found = []
        for side, path, metadata in self._parts:
            if groups := _row_groups(metadata, first, end):
                names = [*_WORDS, "status"] if side is Side.SOURCE else list(_WORDS)
                with pq.ParquetFile(path, metadata=metadata) as file:
                    table = file.read_row_groups(groups, columns=names, use_threads=False)
                columns = [table.column(name).to_numpy() for name in names]
                status = columns[4] if side is Side.SOURCE else np.full(len(table), _NO_STATUS, np.uint8)
                part = PartRange(tuple(columns[:4]), status)
                found.append(part.slice(part.cut(first), part.cut(end)))
        return found


def unpaired(parts: Sequence[PartRange], first: int, end: int) -> tuple[int, pa.Table]:
    """Return how many documents have an equal row and are alone with it, and all that is in no such pair.

    Alone: no other document or row has the same `hash_hi`. Equal: the digests are, and there should be a row. What is
    left has the columns of `_WORDS` and `status`, which is null of rows.
    """
    pieces = max(1, sum(len(part.status) for part in parts) // PIECE_ROWS)
    borders = [
        first,
        *((first + (end - first) * piece // pieces) // BORDER * BORDER for piece in range(1, pieces)),
        end,
    ]
    cuts = [[part.cut(border) for border in borders] for part in parts]
    equal, left = 0, []
    for piece in range(pieces):
        slices = [part.slice(cut[piece], cut[piece + 1]) for part, cut in zip(parts, cuts, strict=True)]
        found, rest = _unpaired(slices)
        equal += found
        left.append(rest)
    words = [np.concatenate([np.empty(0, np.uint64), *(rest.words[each] for rest in left)]) for each in range(4)]
    status = np.concatenate([np.empty(0, np.uint8), *(rest.status for rest in left)])
    columns = [*map(pa.array, words), pa.array(status, mask=status == _NO_STATUS)]
    return equal, pa.table(dict(zip([*_WORDS, "status"], columns, strict=True)))


def _unpaired(parts: Sequence[PartRange]) -> tuple[int, PartRange]:
    """As `unpaired`, of what is small enough to be sorted at once."""
    status = np.concatenate([np.empty(0, np.uint8), *(part.status for part in parts)])
    high, *words = (
        np.concatenate([np.empty(0, np.uint64), *(part.words[each] for part in parts)]) for each in range(4)
    )
    order = np.argsort(high, kind="stable")  # so documents stay before rows
    ordered = high[order]
    begins = np.ones(len(high) + 1, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:-1])
    twos = np.flatnonzero(begins[:-2] & ~begins[1:-1] & begins[2:]) if len(high) > 1 else np.empty(0, np.intp)
    documents, rows = order[twos], order[twos + 1]
    equal = (status[documents] == SourceStatus.EXPECTED) & (status[rows] == _NO_STATUS)
    for word in words:
        equal &= word[documents] == word[rows]
    left = np.ones(len(high), np.bool_)
    left[documents[equal]] = left[rows[equal]] = False
    return int(equal.sum()), PartRange(tuple(word[left] for word in (high, *words)), status[left])


def _row_groups(metadata: pq.FileMetaData, first: int, end: int) -> list[int]:
    """Return those of a part's row groups that may have hashes of the range."""
    groups = []
    for number in range(metadata.num_row_groups):
        statistics: Any = metadata.row_group(number).column(0).statistics
        if statistics is None or (statistics.min < end and statistics.max >= first):
            groups.append(number)
    return groups
