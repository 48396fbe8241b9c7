"""Where a key index lies on disk: one directory for each table and process, claimed by a lock.

Its files are runs; every valid one may be used, so there is no manifest that could be torn or name what is not there. A
run that was merged from others names them, and they are deleted when it is seen. Nothing in here is needed: what is
missing or damaged is read from the table again.
"""

import fcntl
import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from cdc_shared.logging.structured_logger import get_logger
from delta_writer.writer.index_file import SUFFIX, DiskRun, InvalidRun

_LOCK = "lock"

log = get_logger(__name__)


class IndexDirectory:
    """The directory `path`, ours until `release` or `discard`."""

    def __init__(self, path: Path, lock: IO[Any]) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def claim(cls, root: Path, table_id: str) -> "IndexDirectory":
        """Claim the first of the table's directories under `root` that no other process has.

        The lock goes with the process, however it ends, so what it has left is taken up by the next.

        Raises:
            OSError: the directory cannot be made or locked.
        """
        return next(claimed for path in _directories(root, table_id) if (claimed := cls._try_claim(path)))

    @classmethod
    def _try_claim(cls, path: Path) -> "IndexDirectory | None":
        while True:
            path.mkdir(parents=True, exist_ok=True)
            try:
                lock = (path / _LOCK).open("w")
            except FileNotFoundError:  # discarded since the line above
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock.fileno()), (path / _LOCK).stat()):
                    return cls(path, lock)
            lock.close()  # it was discarded between the opening and the locking

    def open_runs(self, table_id: str) -> list[DiskRun]:
        """Open the table's runs and delete all else: damaged runs, replaced ones, what a crash left half-written."""
        runs = {}
        for path in sorted(self.path.glob(f"*{SUFFIX}")):
            try:
                runs[path.name] = DiskRun(path, table_id)
            except InvalidRun as error:
                log.warning("key_index_run_discarded", reason=str(error))
        for replaced in {name for run in runs.values() for name in run.replaces}:
            runs.pop(replaced, None)
        for path in self.path.iterdir():
            if path.name != _LOCK and path.name not in runs:
                with suppress(OSError):
                    path.unlink()
        return list(runs.values())

    def release(self) -> None:
        """Let other processes have the directory, with what is in it."""
        self._lock.close()

    def discard(self) -> None:
        """Delete the directory. Raises `OSError` when that fails."""
        try:
            with suppress(FileNotFoundError):  # somebody has deleted the cache while we run
                for file in self.path.iterdir():
                    file.unlink(missing_ok=True)  # a merge thread may be deleting old runs just now
                self.path.rmdir()
        finally:
            self._lock.close()


def discard_others(root: Path, table: str, table_id: str) -> None:
    """Delete the indexes under `root` whose id begins with `table`, but for `table_id`'s: those from before a restore.

    What another process has open, and what cannot be deleted, stays: it is of no use to anybody, and in nobody's way.
    """
    for path in root.glob(f"{table}*"):
        if path.name != table_id and not path.name.startswith(f"{table_id}."):
            discard_unclaimed(path)


def discard_unclaimed(path: Path) -> None:
    """Delete a directory that was claimed once, if no living process has it. What cannot be deleted stays."""
    with suppress(OSError):
        if claimed := IndexDirectory._try_claim(path):
            claimed.discard()


def _directories(root: Path, table_id: str) -> Iterator[Path]:
    yield root / table_id
    for number in itertools.count(2):
        yield root / f"{table_id}.{number}"
