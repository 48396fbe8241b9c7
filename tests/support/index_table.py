"""A table as the key index sees it, and threads whose work is done when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pyroaring import BitMap

from cdc_shared.delta.key_hash import KeyHashes
from delta_writer.writer.index_file import InvalidRun
from delta_writer.writer.index_merge import MergeStopped
from delta_writer.writer.key_index import IndexDamaged, KeyIndex, MergeThreads


def hashes_of(keys: Iterable[int]) -> KeyHashes:
    """Hashes of which three by three share the high word."""
    return np.array([(key // 3 << 40, key) for key in keys], np.uint64).reshape(-1, 2)


@dataclass
class IndexTable:
    """Data files with the keys of their rows, and which rows are dead; `unread` are vectors that are not in memory.

    A file's name is never used again; `made` counts them.
    """

    files: dict[str, list[int]] = field(default_factory=dict)
    dead: dict[str, BitMap] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    made: int = 0

    def dead_rows(self, path: str) -> BitMap | None:
        if path not in self.files:
            return None
        return BitMap() if path in self.unread else self.dead.get(path, BitMap())

    def live(self) -> dict[int, set[tuple[str, int]]]:
        rows: dict[int, set[tuple[str, int]]] = {}
        for path, keys in self.files.items():
            for row, key in enumerate(keys):
                if row not in self.dead.get(path, BitMap()):
                    rows.setdefault(key, set()).add((path, row))
        return rows

    def put(self, path: str, keys: list[int]) -> None:
        """Commit a file with new rows of the keys; older rows of theirs die, and files without a live row leave."""
        changed = set(keys)
        for key, rows in self.live().items():
            if key in changed:
                for old, row in rows:
                    self.dead[old] = self.dead.get(old, BitMap()) | BitMap([row])
                    if len(self.dead[old]) == len(self.files[old]):
                        del self.files[old]
        self.files[path] = keys

    def compact(self, paths: list[str], output: str) -> None:
        """Move the live rows of the files to one new file."""
        keys = [key for key, rows in self.live().items() if any(path in paths for path, _ in rows)]
        for path in paths:
            del self.files[path]
        if keys:
            self.files[output] = keys


def catch_up(index: KeyIndex, table: IndexTable) -> None:
    """Add what the index lacks, as a writer does when it opens."""
    for path in index.missing(table.files):
        index.add(path, hashes_of(table.files[path]))


def found(index: KeyIndex, table: IndexTable, keys: Iterable[int]) -> dict[int, set[tuple[str, int]]]:
    """Look the keys up, as a writer does: live rows only, and again after damage was found."""
    while True:
        try:
            candidates = index.find(hashes_of(keys))
            break
        except IndexDamaged:
            catch_up(index, table)
    rows: dict[int, set[tuple[str, int]]] = {}
    for path, hits in candidates.items():
        for row in hits.tolist():
            if path in table.files and row not in table.dead.get(path, BitMap()):
                rows.setdefault(table.files[path][row], set()).add((path, row))
    return rows


class HeldThread(Executor):
    """Keeps what it is given until `work`."""

    def __init__(self) -> None:
        self.held: list[Callable[[], None]] = []
        self.bugs: list[BaseException] = []

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(call(*args, **kwargs))
            except BaseException as error:
                if not isinstance(error, OSError | InvalidRun | MergeStopped):
                    self.bugs.append(error)
                future.set_exception(error)

        self.held.append(run)
        return future

    def work(self) -> int:
        """Do all that was given; return how much it was."""
        held, self.held = self.held, []
        for run in held:
            run()
        return len(held)


class HeldThreads(MergeThreads):
    def __init__(self) -> None:
        super().__init__(HeldThread(), HeldThread())

    quick: HeldThread
    long: HeldThread

    def work(self) -> int:
        """Do all that was given; return how much it was."""
        done = self.quick.work() + self.long.work()
        assert not self.quick.bugs + self.long.bugs
        return done
