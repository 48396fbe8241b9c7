"""Changes of a table's files that are not a batch: prepared beside the stream, committed on whatever is newest then."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from cdc_shared.delta.actions import Action, AddFile, Metadata
from cdc_shared.delta.schema_history import SchemaCause
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.errors import CdcError
from delta_writer.writer.index_run import MemoryRun

_MAX_REMEMBERED: Final = 50_000


class RowsMoved(CdcError):
    """A file that the change was prepared for was rewritten meanwhile: its rows lie elsewhere. Prepare it again."""


@dataclass(frozen=True, slots=True)
class RowDeletion:
    """Rows to delete, found at `read_version`.

    Attributes:
        rows: data file → rows; those that were deleted meanwhile are gone anyway.
        txns: `txn`s to set in the same entry; one that stands higher already stays.
        operation: what the table's history calls it.
        commit_id: names the commit, so that a put that timed out but succeeded is recognised.
    """

    read_version: int
    rows: Mapping[str, BitMap]
    txns: Mapping[str, int]
    operation: str
    commit_id: str


@dataclass(frozen=True, slots=True)
class RewrittenFile:
    """A new data file: `add` without a vector; of its row `i` the input (by position) and the row there.

    Rows come in the order of the inputs, and within one in its own order.
    `keys` is `MemoryRun.of_file` of its keys: sorting those of a large file takes too long for the commit path.
    """

    add: AddFile
    keys: MemoryRun
    inputs: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class FileRewrite:
    """Files to put in the place of others, with the rows that lived at `read_version` and no other change.

    Attributes:
        inputs: the files to replace, and which of their rows were deleted at `read_version` already.
        outputs: together exactly the other rows.
        commit_id: as in `RowDeletion`.
    """

    read_version: int
    inputs: Mapping[str, BitMap]
    outputs: Sequence[RewrittenFile]
    commit_id: str

    def deleted_rows(self, output: RewrittenFile, deleted_since: Mapping[str, BitMap | None]) -> BitMap:
        """Return the rows of `output` whose row in an input is in `deleted_since`; None there means all of them."""
        deleted = []
        for number, path in enumerate(self.inputs):
            if path in deleted_since:
                first, end = np.searchsorted(output.inputs, [number, number + 1])
                deleted.append(first + _positions(output.rows[first:end], deleted_since[path]))
        return BitMap(np.concatenate(deleted).astype(np.uint32)) if deleted else BitMap()


class Overtaken(CdcError):
    """The table has changed in a way that what was prepared does not fit any more: it is dropped."""


class TooMuchLeft(CdcError):
    """So much has been written since that it is better rewritten beside the stream than in the commit."""


class TableRewrite:
    """All rows of a table in other columns, prepared file by file beside the stream, for one commit.

    Each part is the rewrite of some files as of a version of its own; no file is in two parts. A file that is live and
    in no part is still to be rewritten: new rows, or rows that a compaction has moved out of files that were. What the
    rows of a part's files have become since, the commit finds out: deleted ones are deleted in the outputs, and so are
    all of a file that is gone. So neither changes nor compactions make anything start again.

    Attributes:
        operation, commit_id: as in `RowDeletion`.
        cause: gives, for the commit's id and time (ms since 1970), what the history of the schema is to say of it.
        metadata: gives the `metaData` of the commit from the table's newest and the version to come. Raises
            `Overtaken`.
        rewrite_now: rewrites files, as they are at the version that the metadata is of, at once; raises `TooMuchLeft`.
    """

    def __init__(
        self,
        operation: str,
        commit_id: str,
        cause: Callable[[str, int], SchemaCause],
        metadata: Callable[[Metadata, int], Metadata],
        rewrite_now: Callable[[int, Metadata, Sequence[AddFile]], FileRewrite],
    ) -> None:
        self.operation = operation
        self.commit_id = commit_id
        self.cause = cause
        self.metadata = metadata
        self.rewrite_now = rewrite_now
        self.parts: list[FileRewrite] = []
        self._covered: set[str] = set()

    def add(self, part: FileRewrite) -> None:
        """Take in the rewrite of files that are in no part yet."""
        self.parts.append(part)
        self._covered.update(part.inputs)

    def drop(self, parts: Sequence[FileRewrite]) -> None:
        """Forget parts: what is live of their files is to be rewritten again."""
        leaving = {id(part) for part in parts}
        self.parts = [part for part in self.parts if id(part) not in leaving]
        self._covered = {path for part in self.parts for path in part.inputs}

    def left(self, files: Mapping[str, AddFile]) -> list[AddFile]:
        """Return those of the live files that are still to be rewritten."""
        return [file for path, file in files.items() if path not in self._covered]

    def covers(self, path: str) -> bool:
        """Tell whether a file is in a part."""
        return path in self._covered

    def complete(self, snapshot: Snapshot) -> Metadata:
        """Rewrite what is left of the newest state; return the metadata of the commit on it.

        Raises:
            Overtaken: the table's columns are no longer those that are to be rewritten.
            TooMuchLeft: nothing was rewritten.
        """
        if snapshot.metadata is None:
            raise Overtaken("the table is gone")
        metadata = self.metadata(snapshot.metadata, snapshot.version + 1)
        if left := self.left(snapshot.files):
            self.add(self.rewrite_now(snapshot.version, snapshot.metadata, left))
        return metadata


def _positions(rows: npt.NDArray[np.uint32], wanted: BitMap | None) -> npt.NDArray[np.intp]:
    """Return where in `rows`, which rise, the wanted ones lie; None wants all. Costs what is wanted, not the rows."""
    if wanted is None:
        return np.arange(len(rows))
    values = np.frombuffer(wanted.to_array(), np.uint32)
    at = np.searchsorted(rows, values)
    inside = at < len(rows)
    at, values = at[inside], values[inside]
    found: npt.NDArray[np.intp] = at[rows[at] == values]
    return found


class MovedFiles:
    """Which files left the table because their rows were moved, in the entries seen since `since`.

    A file that left without being moved has no row left. Bounded: the oldest are forgotten, and `since` moves up.
    """

    def __init__(self, since: int) -> None:
        self._since = since
        self._moved: OrderedDict[str, int] = OrderedDict()

    def see(self, version: int, actions: Iterable[Action]) -> None:
        """Take in the entry of `version`: one that moves rows says `dataChange: false` (protocol: "Remove File")."""
        actions = list(actions)
        added = {action.add.path for action in actions if action.add is not None}
        for action in actions:
            if action.remove is not None and not action.remove.data_change and action.remove.path not in added:
                self._moved[action.remove.path] = version
        while len(self._moved) > _MAX_REMEMBERED:
            _, self._since = self._moved.popitem(last=False)

    def check(self, path: str, read_version: int) -> None:
        """Check that a file of `read_version` that is no longer in the table has no row left.

        Raises:
            RowsMoved: its rows were moved, or may have been.
        """
        if read_version < self._since or path in self._moved:
            raise RowsMoved(f"{path} was rewritten since version {read_version}")
