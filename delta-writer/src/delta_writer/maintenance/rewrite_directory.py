"""Where files are rewritten on the local disk: in the writer's cache, where what a killed process has left is found.

A rewrite takes up to three times `maintenance.target_file_mb` there. Each has a directory of its own, claimed by a lock
as those of the key indexes are; the lock goes with the process, however it ends.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from delta_writer.writer.index_directory import IndexDirectory, discard_unclaimed


@contextmanager
def rewrite_directory(cache_dir: Path) -> Iterator[Path]:
    """Lend a directory, deleted at the end. Raises `OSError` when it cannot be made or deleted."""
    directory = claim_directory(cache_dir, "rewrite")
    try:
        yield directory.path
    finally:
        directory.discard()


def claim_directory(cache_dir: Path, name: str) -> IndexDirectory:
    """Claim a directory, to be discarded by the caller. Raises `OSError` when it cannot be made."""
    remove_left_overs(cache_dir)
    return IndexDirectory.claim(_root(cache_dir), name)


def remove_left_overs(cache_dir: Path) -> None:
    """Delete what processes that are no more have left of their rewrites."""
    for path in list(_root(cache_dir).glob("*")):
        discard_unclaimed(path)


def _root(cache_dir: Path) -> Path:
    return cache_dir / "rewrites"
