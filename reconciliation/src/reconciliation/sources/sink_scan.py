"""One task of a table's scan: live rows of a pinned version → hashes of their keys and of what they hold.

A task has about `TASK_ROWS` rows, whatever the files: slices of large ones, many small ones together. Memory is what
`BATCH_ROWS` rows take decoded, and 60 bytes a row of the task.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from cdc_shared.delta.actions import AddFile
from cdc_shared.delta.key_hash import KeyHashes
from cdc_shared.delta.stats import physical_rows
from cdc_shared.documents import DocumentSchema, from_delta_schema, has_soft_deletes, parquet_schema
from cdc_shared.errors import Fatal
from cdc_shared.models.reconciliation import Mode
from cdc_shared.settings import ObjectStoreSettings, load_settings
from cdc_shared.storage.object_store import map_store_error, open_store
from reconciliation.reconciler.independent_path import canonical_of_rows
from reconciliation.reconciler.row_digest import row_digests
from reconciliation.reconciler.spill import ScannedPart, sink_part
from reconciliation.sources.data_file import deleted_rows, read_batches
from reconciliation.sources.deltalake_reader import DELETED_COLUMN
from reconciliation.sources.key_column import KEY_COLUMN, hash_key_column
from reconciliation.sources.key_selection import KeySelection
from reconciliation.workers.checkpoint import checkpoint
from reconciliation.workers.task_progress import tell_progress

TASK_ROWS: Final = 1_000_000
_SPARSE_SHARE: Final = 0.5
"""Rows of a batch are copied out when fewer than this are wanted; else it costs less to hash them all."""
_RESCUED: Final = "_cdc_rescued"
_RULES_VERSION: Final = "_cdc_rules_version"


class FileSlice(msgspec.Struct, frozen=True):
    """Rows of a data file: its number in the manifest, and the row groups that begin in [first_row, end_row)."""

    file: int
    first_row: int = 0
    end_row: int | None = None


@dataclass(frozen=True)
class SinkScanTask:
    """What a worker needs to know; how the store is reached it knows from its own environment.

    Attributes:
        url: of the table.
        slices: with the file that each is of, as it is in the version that is compared.
        schema: the `schemaString` of that version.
        sample_mask: as in `SourceScanTask`.
        selection: only rows with these keys; None is all.
    """

    number: int
    url: str
    slices: Sequence[tuple[FileSlice, AddFile]]
    mode: Mode
    schema: str
    sample_mask: int | None
    selection: KeySelection | None = None

    def __repr__(self) -> str:
        return f"SinkScanTask({self.url}, {self.number})"


def plan_sink_scan(files: Sequence[AddFile], task_rows: int = TASK_ROWS) -> list[list[FileSlice]]:
    """Return what each task reads of the data files, which count from 0. The same files give the same plan."""
    tasks: list[list[FileSlice]] = []
    room = 0
    for number, file in enumerate(files):
        for piece, rows in _pieces(number, file, task_rows):
            if not tasks or rows > room:
                tasks.append([])
                room = task_rows
            tasks[-1].append(piece)
            room -= rows
    return tasks


def scan_sink(task: SinkScanTask) -> ScannedPart:
    """Read the rows and return their part.

    `facts`: `rescued` rows, `keyless` ones (of another program, without `_cdc_key`), `deleted` ones that a vector
    marks, `read` rows in all, `sampled`. In mode `keys` digests are zero.

    Raises:
        Transient: the store stays away.
        Fatal: a file is gone (vacuum has taken it: the version is too old), or is not readable as the table's.
    """
    return scan_slices(task, open_store(task.url, load_settings(ObjectStoreSettings)))


def scan_slices(task: SinkScanTask, store: ObjectStore) -> ScannedPart:
    """As `scan_sink`, from the store whose root is the table."""
    rows = _HashedRows(task)
    for piece, file in task.slices:
        try:
            for batch in _marked_batches(store, piece, file, rows.columns):
                rows.add(piece.file, *batch)
                checkpoint()
                tell_progress(rows.read)
        except FileNotFoundError as error:
            raise Fatal(
                f"{task.url} has lost {file.path}, which the version that is compared needs: vacuum has deleted it. "
                "Run it again, which takes a newer version"
            ) from error
        except (BaseError, OSError) as error:
            raise map_store_error(error, f"reading {file.path} of {task.url}") from error
        except pa.ArrowException as error:
            # Its message may show values of the file.
            raise Fatal(
                f"{task.url}: the data file {file.path} cannot be read as the table's schema says "
                f"({type(error).__name__}): another program has written it, or it is damaged. Restore the table to a "
                "version without it"
            ) from None
    return rows.part()


def _marked_batches(
    store: ObjectStore, piece: FileSlice, file: AddFile, columns: pa.Schema
) -> Iterator[tuple[npt.NDArray[np.uint32], pa.Table, npt.NDArray[np.bool_]]]:
    """Yield rows with their positions, and which of them live."""
    deleted = np.frombuffer(deleted_rows(store, file).to_array(), np.uint32)
    for start, rows in read_batches(store, file, columns, piece.first_row, piece.end_row):
        live = np.ones(len(rows), np.bool_)
        first, end = np.searchsorted(deleted, [start, start + len(rows)])
        live[deleted[first:end] - np.uint32(start)] = False
        yield np.arange(start, start + len(rows), dtype=np.uint32), rows, live


class _HashedRows:
    """The rows of a part, as they grow. `columns` are those that it needs of a file."""

    def __init__(self, task: SinkScanTask) -> None:
        self._task = task
        self._schema: DocumentSchema = from_delta_schema(task.schema)
        self._soft_deletes = has_soft_deletes(task.schema)
        stored = parquet_schema(self._schema, soft_deletes=self._soft_deletes)
        own = [KEY_COLUMN, _RULES_VERSION, _RESCUED, *[DELETED_COLUMN] * self._soft_deletes]
        keys_only = task.mode is Mode.KEYS
        document = [] if keys_only else [field.column for field in self._schema.stored]
        self.columns = pa.schema([stored.field(name) for name in (*own, *document)])
        self._hashes: list[KeyHashes] = [np.empty((0, 2), np.uint64)]
        self._digests: list[KeyHashes] = [np.empty((0, 2), np.uint64)]
        self._files: list[npt.NDArray[np.uint32]] = [np.empty(0, np.uint32)]
        self._positions: list[npt.NDArray[np.uint32]] = [np.empty(0, np.uint32)]
        self._rules_versions: list[pa.Array[Any]] = [pa.array([], pa.int32())]
        self._rescued: list[npt.NDArray[np.bool_]] = [np.empty(0, np.bool_)]
        self._canonical: dict[int, bytes] = {}
        self._rows = self._deleted = self._keyless = 0
        self.read = 0
        """Rows that were looked at, those that are not taken in too."""

    def add(self, file: int, positions: npt.NDArray[np.uint32], rows: pa.Table, live: npt.NDArray[np.bool_]) -> None:
        """Take in those rows of a file that live."""
        self.read += len(rows)
        self._deleted += len(rows) - int(live.sum())
        if self._soft_deletes:
            live = live & ~np.asarray(rows.column(DELETED_COLUMN).fill_null(pa.scalar(False)))
        hashes = hash_key_column(rows.column(KEY_COLUMN))
        kept = live if self._task.selection is None else live & self._task.selection.chosen(hashes)
        if kept.sum() < _SPARSE_SHARE * len(rows):
            rows, positions, hashes = rows.filter(pa.array(kept)), positions[kept], hashes[kept]
            kept = kept[kept]
        keys_only = self._task.mode is Mode.KEYS
        digests = np.zeros_like(hashes) if keys_only else row_digests(rows, self._schema)
        if not keys_only:
            self._sample(rows, hashes, kept)
        own = rows.select([_RULES_VERSION, _RESCUED, KEY_COLUMN]).filter(pa.array(kept))
        self._hashes.append(hashes[kept])
        self._digests.append(digests[kept])
        self._files.append(np.full(len(own), file, np.uint32))
        self._positions.append(positions[kept])
        self._rules_versions += own.column(_RULES_VERSION).chunks
        self._rescued.append(np.asarray(pc.is_valid(own.column(_RESCUED))))
        self._keyless += own.column(KEY_COLUMN).null_count
        self._rows += len(own)

    def part(self) -> ScannedPart:
        """All of them."""
        rescued = np.concatenate(self._rescued)
        return sink_part(
            self._task.number,
            np.concatenate(self._hashes),
            np.concatenate(self._digests),
            np.concatenate(self._files),
            np.concatenate(self._positions),
            pa.concat_arrays(self._rules_versions),
            rescued,
            self._canonical,
            {
                "rescued": int(rescued.sum()),
                "keyless": self._keyless,
                "deleted": self._deleted,
                "read": self.read,
                "sampled": len(self._canonical),
            },
        )

    def _sample(self, rows: pa.Table, hashes: KeyHashes, kept: npt.NDArray[np.bool_]) -> None:
        mask = self._task.sample_mask
        if mask is None:
            return
        sampled = np.flatnonzero(kept & (hashes[:, 1] & np.uint64(mask) == 0))
        if len(sampled):
            numbers = self._rows + np.cumsum(kept)[sampled] - 1
            canonical = canonical_of_rows(rows.take(sampled), self._schema)
            self._canonical |= dict(zip(numbers.tolist(), canonical, strict=True))


def _pieces(number: int, file: AddFile, task_rows: int) -> Iterator[tuple[FileSlice, int]]:
    """Yield the slices of a file, and about how many rows each has: `stats` say, which other programs may leave out."""
    rows = physical_rows(file)
    if rows is None:
        yield FileSlice(number), task_rows
        return
    slices = max(1, -(-rows // task_rows))
    borders = [rows * each // slices for each in range(slices)]
    for first, end in zip(borders, [*borders[1:], None], strict=True):
        yield FileSlice(number, first, end), -(-rows // slices)
