"""Merges runs of the key index slice by slice: memory does not depend on how many entries they have."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from delta_writer.writer.index_file import BLOCK_ENTRIES, SUFFIX, DiskRun, RunFileWriter
from delta_writer.writer.index_run import Entries, IndexRun, MemoryRun, Numbers, Positions, entry_count

SLICE_ENTRIES: Final = 262_144
"""Entries of a slice: 6 MiB, of which a merge holds about six copies."""
MAX_DEAD_BITS: Final = 8 * 32 * 1024 * 1024
"""Rows of which a merge can remember whether they are dead: 32 MiB. A row beyond that just keeps its entry."""

KnownDead: TypeAlias = Mapping[str, BitMap | None]
"""Of each data file the rows known to be dead at one moment, or None when the file was not in the table any more."""


class MergeStopped(Exception):
    """The merge was told to stop; it has left nothing behind."""


@dataclass(frozen=True)
class _Files:
    """The data files of a merge that are kept, and how many entries each has got."""

    paths: tuple[str, ...]
    entries_of: Positions


def merge_in_memory(runs: Sequence[IndexRun], dead: KnownDead) -> MemoryRun:
    """Return one run of the entries that are not known to be dead, without the files that left the table."""
    parts: list[Entries] = []
    files = _merge(runs, dead, parts.append, threading.Event())
    return MemoryRun(files.paths, files.entries_of, Entries.joined(parts))


def merge_to_disk(
    runs: Sequence[IndexRun], dead: KnownDead, directory: Path, table_id: str, stop: threading.Event
) -> DiskRun:
    """Write the merged run to a file of its own in `directory`; it says which files it replaces.

    May run in any thread: it reads nothing but what it is given, and none of that ever changes.

    Raises:
        MergeStopped: `stop` was set.
        InvalidRun: one of the runs is damaged.
        OSError: the disk does not take it. Nothing is left behind.
    """
    path = directory / f"{uuid4().hex}{SUFFIX}"
    writer = RunFileWriter(path, table_id)
    try:
        files = _merge(runs, dead, writer.append, stop)
        writer.finish(files.paths, files.entries_of, [run.path.name for run in runs if isinstance(run, DiskRun)])
    except BaseException:
        writer.abandon()
        raise
    return DiskRun(path, table_id, just_written=True)


def _merge(runs: Sequence[IndexRun], dead: KnownDead, put: Callable[[Entries], None], stop: threading.Event) -> _Files:
    kept = dict.fromkeys(path for run in runs for path in run.paths if dead[path] is not None)
    numbers = {path: number for number, path in enumerate(kept)}
    dead_rows = _DeadRows([dead[path] for path in kept])
    entries_of = np.zeros(len(kept), np.int64)
    slice_of = SLICE_ENTRIES / max(1, entry_count(runs))
    cursors = [_Cursor(run, numbers, dead_rows, max(1, round(len(run) * slice_of / BLOCK_ENTRIES))) for run in runs]
    while cursors := [cursor for cursor in cursors if cursor.fill()]:
        if stop.is_set():
            raise MergeStopped
        bounds = [cursor.buffer.high[-1] for cursor in cursors if cursor.unread]
        merged = Entries.merged([cursor.take(min(bounds, default=None)) for cursor in cursors])
        entries_of += np.bincount(merged.files, minlength=len(entries_of))
        put(merged)
    return _Files(tuple(kept), entries_of)


class _Cursor:
    """Where the merge is in one run: `buffer` holds what was read and not taken yet, dead entries left out."""

    def __init__(self, run: IndexRun, numbers: Mapping[str, int], dead_rows: "_DeadRows", blocks: int) -> None:
        self._run = run
        self._dead_rows = dead_rows
        self._step = blocks * BLOCK_ENTRIES
        self._next = 0
        self._number_of = np.array([numbers.get(path, -1) for path in run.paths], np.int64)
        self.buffer = run.read(0, 0)

    @property
    def unread(self) -> bool:
        return self._next < len(self._run)

    def fill(self) -> bool:
        """Read on when the buffer is empty. False at the end of the run."""
        while not len(self.buffer.high) and self.unread:
            entries = self._run.read(self._next, self._next + self._step)
            self._next += self._step
            files = self._number_of[entries.files]
            alive = files >= 0
            alive[alive] = self._dead_rows.spare(files[alive], entries.rows[alive])
            high, low, _, rows = entries.at(alive)
            self.buffer = Entries(high, low, files[alive].astype(np.uint32), rows)
        return bool(len(self.buffer.high))

    def take(self, bound: np.uint64 | None) -> Entries:
        """Take the entries whose high word is not above the bound; all of them when there is none."""
        count = None if bound is None else int(np.searchsorted(self.buffer.high, bound, side="right"))
        taken = self.buffer.at(slice(count))
        self.buffer = self.buffer.at(slice(len(taken.high), None))
        return taken


class _DeadRows:
    """Dead rows by data file number, as bits, so that many entries are looked up at once."""

    def __init__(self, dead: Iterable[BitMap | None]) -> None:
        bits: list[npt.NDArray[np.uint8]] = []
        starts, lengths, total = [], [], 0
        for rows in dead:
            length = -(-(rows.max() + 1) // 8) * 8 if rows else 0
            if total + length > MAX_DEAD_BITS:
                length = 0
            if rows and length:
                flags = np.zeros(length, np.uint8)
                flags[np.frombuffer(rows.to_array(), np.uint32)] = 1
                bits.append(np.packbits(flags))
            starts.append(total)
            lengths.append(length)
            total += length
        self._bits = np.concatenate([*bits, np.empty(0, np.uint8)])
        self._starts = np.array(starts, np.int64)
        self._lengths = np.array(lengths, np.int64)

    def spare(self, files: Positions, rows: Numbers) -> npt.NDArray[np.bool_]:
        """Tell which of the rows are not known to be dead."""
        spared = np.ones(len(files), np.bool_)
        known = np.flatnonzero(rows < self._lengths[files])
        at = self._starts[files[known]] + rows[known]
        spared[known] = (self._bits[at >> 3] >> (7 - (at & 7)).astype(np.uint8)) & 1 == 0
        return spared
