"""Which data files are worth rewriting. Like the levels of an LSM tree, so that a row is rewritten O(log n) times.

Two reasons:
* Many small files. A file's tier is the power of `FANOUT` that its live rows reach. `FANOUT` files of one tier make
  one file that is at least one tier up, so a row moves up at most log8(rows of a full file) times, however large the
  table grows. Files of half the target size or more are full and are left alone.
* Dead rows. A file that has `DEAD_SHARE` of its rows deleted is rewritten without them: at most two rows are copied for
  each one dropped, and dropping them is paid for by the changes that made them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cdc_shared.delta.actions import AddFile
from cdc_shared.delta.stats import physical_rows

FANOUT: Final = 8
DEAD_SHARE: Final = 1 / 3
MAX_INPUTS: Final = 64
"""Bounds a job over very many small files; what is left comes next."""


@dataclass(frozen=True, slots=True)
class FileShape:
    """A live data file, and of its rows how many it holds and how many of them are deleted."""

    file: AddFile
    rows: int
    dead: int

    @classmethod
    def of(cls, file: AddFile) -> "FileShape | None":
        """Read the counts off the file's log entry; None when it has none: another program's OPTIMIZE made it."""
        rows, vector = physical_rows(file), file.deletion_vector
        return None if rows is None else cls(file, rows, 0 if vector is None else vector.cardinality)

    @property
    def live_bytes(self) -> float:
        """The size that the file would have without its dead rows, about."""
        return self.file.size * (1 - self.dead / max(1, self.rows))

    @property
    def is_mostly_dead(self) -> bool:
        """Whether rewriting it pays for its dead rows alone."""
        return self.dead >= self.rows * DEAD_SHARE


def choose_files(shapes: Iterable[FileShape], target_bytes: int) -> Sequence[AddFile]:
    """Return the files to rewrite into one next; none when the table is in shape.

    Of the groups that are worth it the cheapest one is taken. Together its live rows take `target_bytes` at most, or
    half as much again when the last file crosses that.
    """
    groups: dict[int | str, list[FileShape]] = {}
    for shape in shapes:
        if shape.is_mostly_dead:
            groups.setdefault("dead", []).append(shape)
        elif shape.live_bytes < target_bytes / 2:
            groups.setdefault(_tier(shape.rows - shape.dead), []).append(shape)
    due = [taken for key, group in groups.items() if (taken := _take(group, target_bytes, dead=key == "dead"))]
    cheapest = min(due, key=lambda taken: sum(shape.live_bytes for shape in taken), default=[])
    return [shape.file for shape in cheapest]


def gather_files(shapes: Iterable[FileShape], target_bytes: int) -> Sequence[AddFile]:
    """Return files that are small or have deleted rows, to rewrite into one next; none when that gains nothing.

    For somebody who asks: no file waits for seven others of its kind, and no deleted row stays.
    """
    taken: list[FileShape] = []
    live_bytes = 0.0
    worth = (shape for shape in shapes if shape.dead or shape.live_bytes < target_bytes / 2)
    for shape in sorted(worth, key=lambda shape: shape.live_bytes):
        if taken and (len(taken) == MAX_INPUTS or live_bytes + shape.live_bytes > 1.5 * target_bytes):
            break
        taken.append(shape)
        live_bytes += shape.live_bytes
    return [shape.file for shape in taken] if len(taken) > 1 or any(shape.dead for shape in taken) else []


def _take(group: list[FileShape], target_bytes: int, *, dead: bool) -> list[FileShape]:
    """Return the files of a group that make one job, or none when it is too soon."""
    taken: list[FileShape] = []
    live_bytes = 0.0
    for shape in sorted(group, key=lambda shape: shape.live_bytes):
        if len(taken) == MAX_INPUTS or live_bytes >= target_bytes:
            break
        if taken and live_bytes + shape.live_bytes > 1.5 * target_bytes:
            break
        taken.append(shape)
        live_bytes += shape.live_bytes
    if len(taken) >= FANOUT or (len(taken) > 1 and live_bytes >= target_bytes):
        return taken
    # A large file with many dead rows is worth a job of its own; small ones wait for company.
    large = [shape for shape in taken if dead and shape.file.size >= target_bytes / FANOUT]
    return large[:1]


def _tier(rows: int) -> int:
    tier = 0
    while rows >= FANOUT:
        rows //= FANOUT
        tier += 1
    return tier
