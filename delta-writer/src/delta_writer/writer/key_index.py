"""The key index of one table: where the rows of a key may lie.

It maps 128-bit key hashes to (data file, row) in sorted runs, merged by size like an LSM tree, so that a look-up
searches few runs and an entry is rewritten a logarithmic number of times. Entries are never deleted: a row that a
deletion vector marks, or a file that left the table, just no longer counts, and a later merge drops it. So the index is
only ever a cache of "which rows *might* have this key"; the table says which of them live, and the index can be rebuilt
from the `_cdc_key` columns at any time.

Small runs live in memory and are re-read from the table after a crash; a merged run of `PERSIST_ENTRIES` or more goes
to disk together with all older ones.
"""

import fcntl
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from delta_writer.writer.index_run import IndexRun, InvalidRun
from delta_writer.writer.key_hash import KeyHashes

MERGE_FANOUT: Final = 8
PERSIST_ENTRIES: Final = 262_144
_SMALLEST_TIER_ENTRIES: Final = 4096
_MANIFEST: Final = "manifest.json"

Rows: TypeAlias = npt.NDArray[np.uint32]
LiveRows: TypeAlias = Callable[[str, Rows], npt.NDArray[np.bool_]]
"""Tells of the given rows of a data file which are live; all are dead when the file left the table."""


class KeyIndex:
    """Runs from oldest to newest, of the table `table_id`. Not thread-safe; one per table and process."""

    def __init__(self, directory: Path, table_id: str, live_rows: LiveRows) -> None:
        """Open the index of the table under `directory`, keeping what is whole and valid there.

        When another process holds the directory, a private temporary one is used instead.
        """
        self.table_id = table_id
        self._live_rows = live_rows
        self._runs: list[IndexRun] = []
        self._persisted: list[Path] = []  # the files of the first runs, in their order
        self._private: tempfile.TemporaryDirectory[str] | None = None
        self._directory, self._lock = self._claim(directory / table_id)
        self._load()
        self._indexed = {path for run in self._runs for path in run.paths}

    @property
    def run_count(self) -> int:
        """How many runs a look-up searches."""
        return len(self._runs)

    def missing(self, paths: Sequence[str]) -> list[str]:
        """Return those of the data files whose keys are not in the index."""
        return [path for path in paths if path not in self._indexed]

    def add(self, path: str, hashes: KeyHashes) -> None:
        """Add a data file whose row `i` has the key hash `hashes[i]`."""
        self._runs.append(IndexRun.of_file(path, hashes))
        self._indexed.add(path)
        self._merge_small_runs()

    def find(self, hashes: KeyHashes) -> dict[str, Rows]:
        """Return, for each data file that has any, the rows that have one of the keys, dead ones included."""
        ordered = hashes[np.argsort(hashes[:, 0])]
        found: dict[str, list[Rows]] = {}
        for run in self._runs:
            files, rows = run.find(ordered)
            for number in np.unique(files):
                found.setdefault(run.paths[number], []).append(rows[files == number])
        return {path: np.concatenate(parts) for path, parts in found.items()}

    def close(self) -> None:
        """Persist, and let other processes use the directory. Raises `OSError` when the disk does not take it."""
        try:
            self.persist()
        finally:
            self._runs = []
            self._lock.close()
            if self._private is not None:
                self._private.cleanup()

    def _merge_small_runs(self) -> None:
        while True:
            tier = _tier(len(self._runs[-1]))
            first = len(self._runs)
            while first > 0 and _tier(len(self._runs[first - 1])) <= tier:
                first -= 1
            if len(self._runs) - first < MERGE_FANOUT:
                return
            merged = self._merged(self._runs[first:])
            self._indexed -= {path for run in self._runs[first:] for path in run.paths} - set(merged.paths)
            self._runs[first:] = [merged]
            del self._persisted[first:]  # their files are deleted when the next manifest is written
            if len(merged) >= PERSIST_ENTRIES:
                self.persist()

    def _merged(self, runs: list[IndexRun]) -> IndexRun:
        """Merge runs into one, without the entries of dead rows and the files that have no live row."""
        numbers: dict[str, int] = {}
        parts = []
        for run in runs:
            alive = self._alive_entries(run)
            number_of = np.zeros(len(run.paths), np.uint32)
            for number in np.unique(run.files[alive]):
                number_of[number] = numbers.setdefault(run.paths[number], len(numbers))
            parts.append((run.high[alive], run.low[alive], number_of[run.files[alive]], run.rows[alive]))
        high, low, files, rows = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return IndexRun.sorted(tuple(numbers), high, low, files, rows)

    def _alive_entries(self, run: IndexRun) -> npt.NDArray[np.intp]:
        by_file = np.argsort(run.files, kind="stable")
        bounds = np.searchsorted(run.files[by_file], np.arange(len(run.paths) + 1))
        alive = np.zeros(len(run), np.bool_)
        for number, path in enumerate(run.paths):
            entries = by_file[bounds[number] : bounds[number + 1]]
            alive[entries] = self._live_rows(path, run.rows[entries])
        return np.flatnonzero(alive)

    # -- the directory ------------------------------------------------------------------------------------------------

    def _claim(self, directory: Path) -> tuple[Path, IO[Any]]:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            self._private = tempfile.TemporaryDirectory(prefix="cdc-key-index-")
            directory = Path(self._private.name)
            lock = (directory / "lock").open("w")
        return directory, lock

    def _load(self) -> None:
        try:
            manifest = json.loads((self._directory / _MANIFEST).read_text())
            paths = [self._directory / name for name in manifest["runs"]]
            self._runs = [IndexRun.open(path, self.table_id) for path in paths]
            self._persisted = paths
        except (OSError, ValueError, KeyError, TypeError, InvalidRun):
            self._runs, self._persisted = [], []
        self._delete_strays()

    def persist(self) -> None:
        """Bring the directory up to the runs in memory, so that the next start reads nothing from the table.

        New runs are written first, then the manifest, then old runs are deleted.
        """
        for position in range(len(self._persisted), len(self._runs)):
            path = self._directory / f"{uuid.uuid4().hex}.run"
            self._runs[position].write(path, self.table_id)
            self._runs[position] = IndexRun.open(path, self.table_id)
            self._persisted.append(path)
        partial = self._directory / f"{_MANIFEST}.partial"
        with partial.open("w") as file:
            json.dump({"tableId": self.table_id, "runs": [path.name for path in self._persisted]}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._directory / _MANIFEST)
        self._delete_strays()

    def _delete_strays(self) -> None:
        keep = {path.name for path in self._persisted} | {_MANIFEST, "lock"}
        for path in self._directory.iterdir():
            if path.name not in keep:
                path.unlink(missing_ok=True)


def _tier(entries: int) -> int:
    """Return the size class of a run: each is `MERGE_FANOUT` times the one before."""
    tier = 0
    while entries > _SMALLEST_TIER_ENTRIES:
        entries //= MERGE_FANOUT
        tier += 1
    return tier
