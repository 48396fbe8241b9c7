"""Where the values lie in many BSON documents at once: numpy walks through all of them in step, a field at a time.

Nothing of the documents is copied and no Python object made of them. The format: https://bsonspec.org/spec.html.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

MISSING: Final = 0
"""The code of a field that a document does not have; of BSON's own it is the end of a document."""
DOUBLE: Final = 0x01
STRING: Final = 0x02
DOCUMENT: Final = 0x03
ARRAY: Final = 0x04
BINARY: Final = 0x05
OBJECT_ID: Final = 0x07
BOOLEAN: Final = 0x08
DATE: Final = 0x09
NULL: Final = 0x0A
INT32: Final = 0x10
INT64: Final = 0x12
DECIMAL: Final = 0x13

ORDERS: Final = 3
"""How often the fields are gone through: documents whose fields stand in another order than most need more than one."""
MOST_ELEMENTS: Final = 64
"""Of an array: each costs a step for all documents, whoever has so many."""
_PADDING: Final = bytes(32)
_SMALLEST_DOCUMENT_BYTES: Final = 5
_WORD_BYTES: Final = 8

# Bytes of a value, beside those that its own length names. A regex or a dbPointer is not stepped over.
_FIXED_BYTES: Final = np.full(256, -1, np.int64)
_HAS_LENGTH: Final = np.zeros(256, np.bool_)
for _code, _bytes, _length in (
    (DOUBLE, 8, False),
    (STRING, 4, True),
    (DOCUMENT, 0, True),
    (ARRAY, 0, True),
    (BINARY, 5, True),
    (OBJECT_ID, 12, False),
    (BOOLEAN, 1, False),
    (DATE, 8, False),
    (NULL, 0, False),
    (INT32, 4, False),
    (INT64, 8, False),
    (DECIMAL, 16, False),
    (0x06, 0, False),  # undefined
    (0x0D, 4, True),  # code
    (0x0E, 4, True),  # symbol
    (0x0F, 0, True),  # code with scope
    (0x11, 8, False),  # timestamp
    (0x7F, 0, False),  # max key
    (0xFF, 0, False),  # min key
):
    _FIXED_BYTES[_code], _HAS_LENGTH[_code] = _bytes, _length


@dataclass(frozen=True, slots=True)
class Cells:
    """Values of one field: the BSON type of each, and where its bytes begin and end."""

    codes: Codes
    starts: Positions
    ends: Positions

    def __len__(self) -> int:
        return len(self.codes)

    def of(self, rows: Positions | Mask) -> "Cells":
        """Those of these rows."""
        return Cells(self.codes[rows], self.starts[rows], self.ends[rows])


class BsonBlock:
    """Documents side by side in memory, below 2 GB."""

    def __init__(self, raw: Sequence[bytes]) -> None:
        joined = b"".join([*raw, _PADDING])
        self._joined = joined
        self.data = np.frombuffer(joined, np.uint8)
        self.size = len(joined) - len(_PADDING)
        self._words = np.frombuffer(joined, "<u8", len(joined) // _WORD_BYTES)
        lengths = np.fromiter(map(len, raw), np.int64, len(raw))
        ends = np.cumsum(lengths)
        self.documents = Cells(np.full(len(raw), DOCUMENT, np.uint8), ends - lengths, ends)

    def bytes(self, start: int, end: int) -> bytes:
        """What lies there."""
        return self._joined[start:end]

    def words(self, at: Positions) -> Words:
        """The eight bytes from each place on, little-endian."""
        index = at >> 3
        shift = ((at & 7) << 3).astype(np.uint64)
        rest = (self._words[index + 1] << np.uint64(1)) << (np.uint64(63) - shift)
        words: Words = (self._words[index] >> shift) | rest
        return words

    def int32s(self, at: Positions) -> npt.NDArray[np.int32]:
        """The 32-bit integers there."""
        return self.words(at).astype(np.uint32).view(np.int32)

    def are_documents(self, cells: Cells) -> Mask:
        """Whether each cell is as long as its first bytes say and ends as a document does."""
        lengths = self.int32s(cells.starts)
        has_end = self.data[np.maximum(cells.ends - 1, 0)] == 0
        right: Mask = (lengths == cells.ends - cells.starts) & (lengths >= _SMALLEST_DOCUMENT_BYTES) & has_end
        return right

    def members(self, documents: Cells, names: Sequence[str]) -> tuple[list[Cells], Mask]:
        """The cells of each field, MISSING where a document lacks it; and which documents have these fields alone, each
        at most once.
        """
        walk = _Walk(self, documents)
        found = [_Found(len(documents)) for _ in names]
        headers = [_header(name) for name in names]
        for _ in range(ORDERS):
            steps = [len(walk.take(header, cells)) for header, cells in zip(headers, found, strict=True)]
            if walk.is_finished() or not any(steps):
                break
        return [cells.cells() for cells in found], walk.right()

    def elements(self, arrays: Cells) -> tuple[Cells, Positions, Mask]:
        """The elements of all arrays, array by array; how many each array has; and which arrays could be read. Of the
        others there are none.
        """
        walk = _Walk(self, arrays)
        steps, owners = [], []
        for number in range(MOST_ELEMENTS + 1):
            step = _Found(len(arrays))
            rows = walk.take(_header(str(number)), step)
            if not len(rows):
                break
            steps.append(step.cells().of(rows))
            owners.append(rows)
        right = walk.right()
        owner = np.concatenate([np.empty(0, np.int64), *owners])
        order = np.argsort(owner, kind="stable")
        order = order[right[owner[order]]]
        counts = np.bincount(owner[order], minlength=len(arrays))
        return _joined(steps).of(order), counts, right


class _Found:
    """Cells in the making."""

    def __init__(self, rows: int) -> None:
        self.codes: Codes = np.zeros(rows, np.uint8)
        self.starts: Positions = np.zeros(rows, np.int64)
        self.ends: Positions = np.zeros(rows, np.int64)

    def cells(self) -> Cells:
        return Cells(self.codes, self.starts, self.ends)


class _Walk:
    """A place in each of many documents, which goes forward."""

    def __init__(self, block: BsonBlock, documents: Cells) -> None:
        self._block = block
        self._right = block.are_documents(documents)
        self._at = documents.starts + 4
        self._last = documents.ends - 1
        self._at[~self._right] = self._last[~self._right]

    def is_finished(self) -> bool:
        return bool((self._at == self._last).all())

    def right(self) -> Mask:
        """The documents that were walked to their end."""
        right: Mask = self._right & (self._at == self._last)
        return right

    def take(self, header: "_Header", found: _Found) -> Positions:
        """Step over the field where it is next. Return the documents in which it was."""
        block = self._block
        words = block.words(self._at)
        hits = ((words ^ header.words[0]) & header.masks[0]) == 0
        hits &= (words & np.uint64(0xFF)) != 0
        for number in range(1, len(header.words)):
            if not hits.any():
                break
            places = np.minimum(self._at + number * _WORD_BYTES, block.size)
            hits &= ((block.words(places) ^ header.words[number]) & header.masks[number]) == 0
        rows = np.flatnonzero(hits)
        if not len(rows):
            return rows
        codes = words[rows].astype(np.uint8)
        starts = self._at[rows] + header.length
        ends = self._ends(codes, starts, self._last[rows])
        self._right[rows[(ends < 0) | (found.codes[rows] != MISSING)]] = False  # not read, or a name that comes twice
        ends = np.where(ends < 0, self._last[rows], ends)
        found.codes[rows], found.starts[rows], found.ends[rows] = codes, starts, ends
        self._at[rows] = ends
        return rows

    def _ends(self, codes: Codes, starts: Positions, last: Positions) -> Positions:
        """Where the values end; -1 if not within the document."""
        fixed = _FIXED_BYTES[codes]
        lengths = self._block.int32s(np.minimum(starts, self._block.size)).astype(np.int64)
        lengths[~_HAS_LENGTH[codes]] = 0
        ends = starts + fixed + lengths
        return np.where((fixed < 0) | (lengths < 0) | (ends > last), -1, ends)


@dataclass(frozen=True, slots=True)
class _Header:
    """What precedes a value, as words to compare: the type's byte is masked out."""

    words: tuple[np.uint64, ...]
    masks: tuple[np.uint64, ...]
    length: int


@lru_cache(maxsize=4096)
def _header(name: str) -> _Header:
    text = b"\0" + name.encode() + b"\0"
    mask = b"\0" + b"\xff" * (len(text) - 1)
    return _Header(_words_of(text), _words_of(mask), len(text))


def _words_of(text: bytes) -> tuple[np.uint64, ...]:
    padded = text + bytes(-len(text) % _WORD_BYTES)
    return tuple(np.frombuffer(padded, "<u8"))


def _joined(cells: Sequence[Cells]) -> Cells:
    empty = Cells(np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.int64))
    several: list[Any] = [empty, *cells]
    return Cells(
        np.concatenate([each.codes for each in several]),
        np.concatenate([each.starts for each in several]),
        np.concatenate([each.ends for each in several]),
    )
