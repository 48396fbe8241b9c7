"""A run of the key index: entries key hash → (data file, row), sorted by the hash's high word, never changed.

`MemoryRun` is the kind for few entries; `index_file.DiskRun` the kind that neither costs memory nor is lost.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from cdc_shared.delta.key_hash import KeyHashes

Words: TypeAlias = npt.NDArray[np.uint64]
Numbers: TypeAlias = npt.NDArray[np.uint32]
Positions: TypeAlias = npt.NDArray[np.int64]


class Entries(NamedTuple):
    """Columns of equal length: high and low word of the key's hash, data file (by number), row."""

    high: Words
    low: Words
    files: Numbers
    rows: Numbers

    def at(self, which: Positions | npt.NDArray[np.bool_] | slice) -> "Entries":
        """Return the entries at the positions."""
        return Entries(self.high[which], self.low[which], self.files[which], self.rows[which])

    @classmethod
    def joined(cls, parts: Sequence["Entries"]) -> "Entries":
        """Return the parts end to end."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True))) if parts else NO_ENTRIES

    @classmethod
    def merged(cls, parts: Sequence["Entries"]) -> "Entries":
        """Return the entries of sorted parts, sorted. The stable sort finds the parts and merges them in O(n)."""
        joined = cls.joined(parts)
        return joined if len(parts) == 1 else joined.at(np.argsort(joined.high, kind="stable"))


NO_ENTRIES = Entries(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint32), np.empty(0, np.uint32))


class IndexRun(Protocol):
    """What a look-up and a merge need of a run.

    A run that names a data file holds every entry of that file, but for rows known to be dead: so each run can be used,
    or lost, without regard to the others.
    """

    @property
    def paths(self) -> Sequence[str]:
        """The data files, by their number in the entries."""
        ...

    @property
    def entries_of(self) -> Positions:
        """How many entries each data file has here, by its number."""
        ...

    def __len__(self) -> int: ...

    def find(self, hashes: KeyHashes) -> tuple[Numbers, Numbers]:
        """Return file numbers and rows of every entry that has one of the hashes, which are sorted by high word.

        Raises:
            InvalidRun: what the search touched is damaged.
        """
        ...

    def read(self, start: int, stop: int) -> Entries:
        """Return the entries from position `start` to before `stop`, which may lie past the end.

        Raises:
            InvalidRun: they are damaged.
        """
        ...


@dataclass(frozen=True, eq=False)
class MemoryRun:
    """A run in memory: 24 bytes an entry."""

    paths: tuple[str, ...]
    entries_of: Positions
    entries: Entries

    @classmethod
    def of_file(cls, path: str, hashes: KeyHashes) -> "MemoryRun":
        """Return the run of one data file whose row `i` has the key hash `hashes[i]`."""
        order = np.argsort(hashes[:, 0])
        ordered = hashes[order]
        entries = Entries(
            np.ascontiguousarray(ordered[:, 0]),
            np.ascontiguousarray(ordered[:, 1]),
            np.zeros(len(hashes), np.uint32),
            order.astype(np.uint32),
        )
        return cls((path,), np.array([len(hashes)]), entries)

    def __len__(self) -> int:
        return len(self.entries.high)

    def find(self, hashes: KeyHashes) -> tuple[Numbers, Numbers]:
        high = self.entries.high
        wanted = np.ascontiguousarray(hashes[:, 0])
        first = np.searchsorted(high, wanted)
        hit = np.flatnonzero(high[np.minimum(first, len(high) - 1)] == wanted) if len(high) else np.empty(0, np.int64)
        first, last = first[hit], np.searchsorted(high, wanted[hit], side="right")
        hits = spans(first, last)
        hits = hits[self.entries.low[hits] == np.repeat(hashes[hit, 1], last - first)]
        return self.entries.files[hits], self.entries.rows[hits]

    def read(self, start: int, stop: int) -> Entries:
        return self.entries.at(slice(start, stop))


def spans(first: Positions, last: Positions) -> Positions:
    """Return all positions from each `first` to before its `last`, end to end."""
    lengths = last - first
    ends = np.cumsum(lengths)
    return np.repeat(last - ends, lengths) + np.arange(ends[-1] if len(ends) else 0)


def entry_count(runs: Iterable[IndexRun]) -> int:
    """Return how many entries the runs have together."""
    return sum(map(len, runs))
