"""Rewriting all rows of a table in other columns: file by file beside the stream, then one commit of all of them.

Until that commit the table is as it was, and whatever is written to it goes on as if nothing was under way. The files
that are live and not rewritten yet are rewritten group after group, those that were written meanwhile too, until so
little is left that the commit itself can do it (`MAX_LATE_ROWS`). Readers of any version find the columns that its
metadata names: no file is ever part of a version with other columns than its own.

What is rewritten lies in the store and, 28 bytes a row, on the local disk; it is lost when the process ends, and
vacuum takes the uploads.
"""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from cdc_shared.delta.actions import AddFile, Metadata
from cdc_shared.delta.schema_history import SchemaCause
from cdc_shared.metrics.prometheus_metrics import MaintenanceTask
from delta_writer.maintenance.budget import Budget
from delta_writer.maintenance.compactor import Conversion, rewrite_files
from delta_writer.maintenance.rewrite_directory import claim_directory
from delta_writer.maintenance.rewrite_plan import MAX_INPUTS, FileShape
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.delta_writer import CommitResult
from delta_writer.writer.file_changes import FileRewrite, RewrittenFile, TableRewrite, TooMuchLeft
from delta_writer.writer.history_writer import HistoryWriter
from delta_writer.writer.index_run import Entries, MemoryRun

MAX_LATE_ROWS: Final = 20_000
MAX_LATE_FILES: Final = 16
"""What the commit rewrites itself at most, while the stream waits: some tenths of a second."""
_UNLIMITED_BYTES_PER_S: Final = 1e15


class ColumnChange(Protocol):
    """What becomes of a table's columns.

    Attributes:
        task: what it is called in metrics.
        operation: what the table's history calls its commit.
    """

    task: MaintenanceTask
    operation: str

    def metadata(self, now: Metadata, version: int) -> Metadata:
        """Return the metadata of the commit of `version`, from the newest before it.

        Raises:
            Overtaken: the change no longer fits.
        """
        ...

    def cause(self, commit_id: str, at_ms: int) -> SchemaCause:
        """Return what the history of the table's schema is to say of the commit, if the schema changes."""
        ...

    def conversion(self, now: Metadata) -> Conversion:
        """Return what makes rows of tables with this metadata into those of the changed one. Raises `Overtaken`."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """Of the live rows and bytes of the table, how many are rewritten."""

    done_rows: int
    rows: int
    done_bytes: int
    bytes: int


class ColumnRewrite:
    """One change of one table, on its way. `step` and `close` in the pipeline's thread.

    `max_age_s`: older uploads are made again, because vacuum may take them.
    """

    def __init__(
        self,
        writer: DeletionVectorWriter | HistoryWriter,
        change: ColumnChange,
        target_bytes: int,
        max_age_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.change = change
        self.result: CommitResult | None = None
        self._writer = writer
        self._target_bytes = target_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._rewrite = TableRewrite(
            change.operation, str(uuid.uuid4()), change.cause, change.metadata, self._rewrite_now
        )
        self._in_hand: frozenset[str] = frozenset()
        self._finished: FileRewrite | None = None  # by the worker, for the pipeline's thread
        self._spool = _Spool(writer.cache_dir)

    def step(self) -> Callable[[Budget], bool] | None:
        """Commit, or return the worker's next job; None when it is committed. Not to be called before a job is over.

        Raises:
            Overtaken: the table has changed so that the change no longer fits. Close this.
            Transient: the store is away. Call it again.
        """
        self._take_up()
        self._drop_old()
        if _is_little(self._left()):
            try:
                self.result = self._writer.rewrite_table(self._rewrite)
                return None
            except TooMuchLeft:  # another writer was quicker
                pass
        metadata = self._writer.snapshot.metadata
        if metadata is None:  # then there are no files, which is little
            raise ValueError("a table with files and no metadata")
        self.change.metadata(metadata, self._writer.version + 1)  # that it still fits
        group = _group(self._left(), self._target_bytes)
        self._in_hand = frozenset(file.path for file in group)
        return partial(self._work, self._writer.version, metadata, group)

    def concerns(self, path: str) -> bool:
        """Tell whether a live file is rewritten, or being rewritten: to compact it is a waste."""
        return path in self._in_hand or self._rewrite.covers(path)

    def progress(self) -> Progress:
        """Return how far it is."""
        live = self._writer.snapshot.files
        left = self._left()
        total, rest = _size(list(live.values())), _size(left)
        return Progress(total[0] - rest[0], total[0], total[1] - rest[1], total[1])

    def close(self) -> None:
        """Forget it, committed or not."""
        self._writer.forget_table_rewrite(self._rewrite.parts)
        self._spool.discard()

    def _left(self) -> list[AddFile]:
        return self._rewrite.left(self._writer.snapshot.files)

    def _take_up(self) -> None:
        """Add what the worker has finished."""
        if self._finished is not None:
            self._writer.prepare_table_rewrite(self._finished)
            self._rewrite.add(self._finished)
            self._finished = None
        self._in_hand = frozenset()

    def _drop_old(self) -> None:
        oldest_ms = (self._clock() - self._max_age_s) * 1000
        old = [
            part for part in self._rewrite.parts if any(out.add.modification_time < oldest_ms for out in part.outputs)
        ]
        if old:
            self._writer.forget_table_rewrite(old)
            self._rewrite.drop(old)

    def _work(self, version: int, metadata: Metadata, files: Sequence[AddFile], budget: Budget) -> bool:
        """In the worker's thread."""
        self._finished = self._spool.keep(self._rewritten(version, metadata, files, budget))
        return False

    def _rewrite_now(self, version: int, metadata: Metadata, files: Sequence[AddFile]) -> FileRewrite:
        """In the pipeline's thread."""
        if not _is_little(files):
            raise TooMuchLeft(f"{len(files)} files have been written since")
        return self._rewritten(version, metadata, files, Budget(1.0, _UNLIMITED_BYTES_PER_S, threading.Event()))

    def _rewritten(self, version: int, metadata: Metadata, files: Sequence[AddFile], budget: Budget) -> FileRewrite:
        return rewrite_files(
            self._writer.location.store,
            version,
            metadata.schema_string,
            files,
            budget,
            self._writer.cache_dir,
            self._clock,
            self.change.conversion(metadata),
        )


class _Spool:
    """Keeps on the local disk what parts hold for each row."""

    def __init__(self, cache_dir: Path) -> None:
        self._directory = claim_directory(cache_dir, "columns")
        self._number = 0

    def keep(self, part: FileRewrite) -> FileRewrite:
        """Return the part with its arrays mapped from files."""
        return replace(part, outputs=[self._kept(out) for out in part.outputs])

    def discard(self) -> None:
        """Delete the files; arrays that are still in use stay readable."""
        self._directory.discard()

    def _kept(self, out: RewrittenFile) -> RewrittenFile:
        keys = out.keys.entries
        entries = Entries(self._mapped(keys.high), self._mapped(keys.low), keys.files, self._mapped(keys.rows))
        run = MemoryRun(out.keys.paths, out.keys.entries_of, entries)
        return RewrittenFile(out.add, run, self._mapped(out.inputs), self._mapped(out.rows))

    def _mapped(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self._number += 1
        path = self._directory.path / f"{self._number}.npy"
        np.save(path, array)
        mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r")
        return mapped


def _is_little(files: Sequence[AddFile]) -> bool:
    shapes = [FileShape.of(file) for file in files]
    rows = sum(shape.rows if shape is not None else MAX_LATE_ROWS + 1 for shape in shapes)
    return len(files) <= MAX_LATE_FILES and rows <= MAX_LATE_ROWS


def _group(files: Sequence[AddFile], target_bytes: int) -> list[AddFile]:
    """Return the files to rewrite into one next: the first ones, up to `target_bytes` of live rows."""
    group: list[AddFile] = []
    size = 0.0
    for file in files[:MAX_INPUTS]:
        shape = FileShape.of(file)
        size += file.size if shape is None else shape.live_bytes
        if group and size > target_bytes:
            break
        group.append(file)
    return group


def _size(files: Sequence[AddFile]) -> tuple[int, int]:
    """Return the live rows, where the log says how many, and the bytes of files."""
    shapes = [shape for file in files if (shape := FileShape.of(file)) is not None]
    return sum(shape.rows - shape.dead for shape in shapes), sum(file.size for file in files)
