"""The key index of one table: where the rows of a key may lie.

It maps 128-bit key hashes to (data file, row) in sorted runs, merged by size like an LSM tree, so that a look-up
searches few runs and an entry is rewritten a logarithmic number of times. Entries are never deleted: a row that a
deletion vector marks, or a file that left the table, just no longer counts, and a later merge drops it. So the index is
only ever a cache of "which rows *might* have this key"; the table says which of them live, and the index can be rebuilt
from the `_cdc_key` columns at any time.

Few entries live in memory, and are read from the table again after a crash; larger merges go to disk, in a background
thread. See docs/adr/0004 and 0009.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import numpy as np
from pyroaring import BitMap

from cdc_shared.delta.key_hash import KeyHashes
from cdc_shared.errors import Transient, shown
from cdc_shared.logging.structured_logger import get_logger
from delta_writer.background_thread import BackgroundThread
from delta_writer.writer.index_directory import IndexDirectory
from delta_writer.writer.index_file import DiskRun, InvalidRun
from delta_writer.writer.index_merge import KnownDead, MergeStopped, merge_in_memory, merge_to_disk
from delta_writer.writer.index_run import IndexRun, MemoryRun, Numbers, entry_count

MERGE_FANOUT: Final = 8
INLINE_MERGE_ENTRIES: Final = 131_072
"""A merge of no more is done at once, in memory: about 10 ms."""
MAX_MEMORY_ENTRIES: Final = 8 * 1024 * 1024
"""With more than these (200 MB) in memory, `add` waits for merges to bring them to disk."""
QUICK_MERGE_ENTRIES: Final = 4 * 1024 * 1024
RETRY_FAILED_MERGE_S: Final = 60.0
_SMALLEST_TIER_ENTRIES: Final = 4096

Rows: TypeAlias = Numbers
R = TypeVar("R", bound=IndexRun)
DeadRowsOf: TypeAlias = Callable[[str], BitMap | None]
"""Of a data file, the rows known to be deleted; None when the file is not in the table.

It is called by the index's owner only, in `add`, `find` and `close`, and for thousands of files at once: it must not
read the store. A row that it leaves out just keeps its entry. The bitmap must never be changed afterwards.
"""

log = get_logger(__name__)


class IndexDamaged(Transient):
    """Part of the index on disk was found damaged and was dropped: ask `missing`, add those files, look up again."""


@dataclass(frozen=True)
class MergeThreads:
    """Where the process merges: two threads, so that no table's small merges wait for another's of a billion keys."""

    quick: Executor = field(default_factory=lambda: BackgroundThread("key-index-quick-merges"))
    long: Executor = field(default_factory=lambda: BackgroundThread("key-index-long-merges"))


MERGE_THREADS: Final = MergeThreads()


@dataclass(frozen=True)
class _Merge:
    """A merge in the background."""

    runs: list[IndexRun]
    thread: Executor
    merged: Future[DiskRun]


class KeyIndex:
    """The runs of the table `table_id`. Not thread-safe; one per table and process.

    Background threads read runs, which never change, and write files; the runs that make up the index are exchanged
    by its owner, in the next `add` or `find` after a merge is done. So nothing here takes a lock.
    """

    def __init__(
        self,
        directory: Path,
        table_id: str,
        dead_rows: DeadRowsOf,
        threads: MergeThreads = MERGE_THREADS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the index of the table under `directory`, keeping what is whole and valid there.

        Raises:
            OSError: the directory cannot be made or locked.
        """
        self.table_id = table_id
        self._dead_rows = dead_rows
        self._threads = threads
        self._clock = clock
        self._directory = IndexDirectory.claim(directory, table_id)
        self._stop = threading.Event()  # tells the background that the index is closed
        on_disk = self._directory.open_runs(table_id)
        self._runs: list[IndexRun] = [*on_disk]
        self._merges: list[_Merge] = []
        self._added_since_review = 0
        self._retry_at = float("-inf")
        self._damaged = False
        self._indexed = self._indexed_paths()
        for run in on_disk:
            threads.long.submit(run.check_all, self._stop)

    @property
    def run_count(self) -> int:
        """How many runs a look-up searches."""
        return len(self._runs)

    def missing(self, paths: Iterable[str]) -> list[str]:
        """Return those of the data files whose keys are not in the index. Add them before the next `find`."""
        self._damaged = False
        return [path for path in paths if path not in self._indexed]

    def add(self, path: str, hashes: KeyHashes) -> None:
        """Add a data file that is in the table by now: its row `i` has the key hash `hashes[i]`."""
        self.add_run(MemoryRun.of_file(path, hashes))

    def add_run(self, run: MemoryRun) -> None:
        """Add a data file as `MemoryRun.of_file`; nothing happens when it is known.

        Sorting the keys of a large file takes a second for ten million: make its run in another thread.
        """
        if self._indexed.issuperset(run.paths):
            return
        self._take_up_merges()
        while self._merges and self._is_crowded():
            wait([merge.merged for merge in self._merges], return_when="FIRST_COMPLETED")
            self._take_up_merges()
        self._runs.append(run)
        self._indexed.update(run.paths)
        self._added_since_review += len(run)
        self._start_merges()

    def find(self, hashes: KeyHashes) -> dict[str, Rows]:
        """Return, for each data file that has any, the rows that have one of the keys, dead ones included.

        Raises:
            IndexDamaged: entries were lost to a damaged disk since `missing` was asked last.
        """
        self._take_up_merges()
        ordered = hashes[np.argsort(hashes[:, 0])]
        found: dict[str, list[Rows]] = defaultdict(list)
        for run in [] if self._damaged else list(self._runs):
            try:
                files, rows = run.find(ordered)
            except InvalidRun as error:
                self._drop(run, error)
                break
            for number, of_file in _by_file(files, rows):
                found[run.paths[number]].append(of_file)
        if self._damaged:
            raise IndexDamaged(f"the key index of table {self.table_id} has lost entries to a damaged local disk")
        return {path: parts[0] if len(parts) == 1 else np.concatenate(parts) for path, parts in found.items()}

    def close(self) -> None:
        """Bring what is in memory to disk, and let other processes use the directory.

        A disk that does not take it is warned of: the next start then reads those keys from the table.
        """
        self._stop_merges()
        if runs := self._in_memory():
            try:
                merge_to_disk(runs, self._known_dead(runs), self._directory.path, self.table_id, threading.Event())
            except (OSError, InvalidRun) as error:
                log.warning("key_index_not_saved", table_id=self.table_id, reason=str(error))
        self._runs = []
        self._directory.release()

    def discard(self) -> None:
        """Close the index and delete it from the disk. Raises `OSError` when that fails."""
        self._stop_merges()
        self._runs = []
        self._directory.discard()

    # -- merges -------------------------------------------------------------------------------------------------------

    def _start_merges(self) -> None:
        """Merge in memory what is small; hand larger merges to the background, one for each thread at a time."""
        if self._stop.is_set():
            return
        while (small := _due(self._in_memory())) and entry_count(small) <= INLINE_MERGE_ENTRIES:
            self._exchange(small, merge_in_memory(small, self._known_dead(small)))
        while self._clock() >= self._retry_at:
            runs = self._next_background_merge()
            if not runs:
                break
            self._hand_over(runs)

    def _next_background_merge(self) -> Sequence[IndexRun]:
        in_memory = self._in_memory()
        on_disk = [run for run in self._idle() if isinstance(run, DiskRun)]
        large = [run for run in in_memory if len(run) > INLINE_MERGE_ENTRIES]
        for runs in (_due(in_memory), large[:1], _due(on_disk)):
            if runs and self._is_free(runs):
                return runs
        if self._added_since_review * MERGE_FANOUT <= entry_count(self._runs):
            return []
        self._added_since_review = 0
        obsolete = [run for run in self._idle() if self._is_obsolete(run)]
        return obsolete if obsolete and self._is_free(obsolete) else []

    def _is_obsolete(self, run: IndexRun) -> bool:
        """Tell whether most entries are of files that left the table, as they do when they are compacted."""
        gone = np.fromiter((self._dead_rows(path) is None for path in run.paths), np.bool_, len(run.paths))
        return bool(run.entries_of[gone].sum() * 2 > len(run))

    def _hand_over(self, runs: Sequence[IndexRun]) -> None:
        thread = self._thread_for(runs)
        dead = self._known_dead(runs)
        merged = thread.submit(merge_to_disk, tuple(runs), dead, self._directory.path, self.table_id, self._stop)
        self._merges.append(_Merge(list(runs), thread, merged))

    def _take_up_merges(self) -> None:
        """Put the outcome of merges that are done in the place of the runs that they merged."""
        done = [merge for merge in self._merges if merge.merged.done()]
        for merge in done:
            self._merges.remove(merge)
            error = merge.merged.exception()
            if error is None:
                self._exchange(merge.runs, merge.merged.result())
                merge.thread.submit(_let_go, merge.runs)
            elif not isinstance(error, MergeStopped):
                self._merge_failed(merge, error)
        if done:
            self._start_merges()

    def _merge_failed(self, merge: _Merge, error: BaseException) -> None:
        for run in merge.runs:
            if isinstance(error, InvalidRun) and isinstance(run, DiskRun) and run.path == error.path:
                self._drop(run, error)
                return
        self._retry_at = self._clock() + RETRY_FAILED_MERGE_S
        log.warning(
            "key_index_merge_failed",
            table_id=self.table_id,
            reason=shown(error),
            remedy=f"nothing is lost; look-ups get slower until {self._directory.path} takes files again",
        )

    def _stop_merges(self) -> None:
        self._stop.set()
        self._merges = [merge for merge in self._merges if not merge.merged.cancel()]  # it may wait for other tables'
        wait([merge.merged for merge in self._merges])
        self._take_up_merges()

    def _exchange(self, runs: Sequence[IndexRun], merged: IndexRun) -> None:
        leaving = set(map(id, runs))
        self._runs = [run for run in self._runs if id(run) not in leaving] + [merged]
        self._indexed.difference_update(*(run.paths for run in runs))
        self._indexed.update(merged.paths)

    def _drop(self, run: IndexRun, error: InvalidRun) -> None:
        if all(other is not run for other in self._runs):
            return
        log.warning("key_index_damaged", table_id=self.table_id, reason=str(error), remedy="its keys are read again")
        self._damaged = True
        self._runs = [other for other in self._runs if other is not run]
        self._indexed = self._indexed_paths()
        with suppress(OSError):  # it is not opened again in this process, and found damaged by the next
            error.path.unlink()

    def _idle(self) -> list[IndexRun]:
        busy = {id(run) for merge in self._merges for run in merge.runs}
        return [run for run in self._runs if id(run) not in busy]

    def _in_memory(self) -> list[MemoryRun]:
        return [run for run in self._idle() if isinstance(run, MemoryRun)]

    def _is_crowded(self) -> bool:
        """Tell whether memory holds too much, and merges to disk do not fail."""
        entries = entry_count(run for run in self._runs if isinstance(run, MemoryRun))
        return entries > MAX_MEMORY_ENTRIES and self._clock() >= self._retry_at

    def _is_free(self, runs: Iterable[IndexRun]) -> bool:
        thread = self._thread_for(runs)
        return all(merge.thread is not thread for merge in self._merges)

    def _thread_for(self, runs: Iterable[IndexRun]) -> Executor:
        return self._threads.quick if entry_count(runs) <= QUICK_MERGE_ENTRIES else self._threads.long

    def _known_dead(self, runs: Iterable[IndexRun]) -> KnownDead:
        return {path: self._dead_rows(path) for run in runs for path in run.paths}

    def _indexed_paths(self) -> set[str]:
        return {path for run in self._runs for path in run.paths}


def _by_file(files: Numbers, rows: Rows) -> Iterator[tuple[int, Rows]]:
    """Give the rows of each data file."""
    order = np.argsort(files, kind="stable")
    files, rows = files[order], rows[order]
    bounds = [0, *(np.flatnonzero(files[1:] != files[:-1]) + 1).tolist(), len(files)] if len(files) else []
    for start, end in pairwise(bounds):
        yield int(files[start]), rows[start:end]


def _due(runs: Sequence[R]) -> list[R]:
    """Return the runs to merge next, if any: `MERGE_FANOUT` of a tier, with all smaller ones."""
    tiers = [_tier(len(run)) for run in runs]
    for tier in sorted(set(tiers)):
        if tiers.count(tier) >= MERGE_FANOUT:
            return [run for run, its in zip(runs, tiers, strict=True) if its <= tier]
    return []


def _tier(entries: int) -> int:
    """Return the size class of a run: each is `MERGE_FANOUT` times the one before."""
    tier = 0
    while entries > _SMALLEST_TIER_ENTRIES:
        entries //= MERGE_FANOUT
        tier += 1
    return tier


def _let_go(runs: list[IndexRun]) -> None:
    """Delete the files of merged runs; freeing gigabytes takes a while, so it is done in the background."""
    while runs:
        run = runs.pop()
        if isinstance(run, DiskRun):
            run.delete()
