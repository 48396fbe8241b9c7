"""Merge-on-read: new rows go to a new file, old rows are marked in deletion vectors. The cost follows the batch alone.

One commit holds one `add` for the new rows, for each file with superseded rows a `remove` and an `add` with the wider
vector (only the `remove` when no row is left), and the offsets. Besides batches there are two other kinds of commit:
rows are deleted that a sweep found, and files are rewritten.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec.structs import replace
from pyroaring import BitMap

from cdc_shared.delta.actions import Action, AddFile, Metadata
from cdc_shared.delta.key_hash import KeyHashes, hash_keys
from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.delta.row_reading import read_rows
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import TableIdentity, protocol_for, rows_identity
from cdc_shared.errors import Fatal
from cdc_shared.storage.object_store import store_errors
from delta_writer.transformers.change_batch import EncodedBatch
from delta_writer.writer.batch_upload import BatchUpload
from delta_writer.writer.deletion_vectors import DeletionVectors, removal, with_vector
from delta_writer.writer.delta_writer import KEY_COLUMN, OFFSET_COLUMN, PARTITION_COLUMN, CommitResult, DeltaWriter
from delta_writer.writer.file_changes import (
    FileRewrite,
    Overtaken,
    RewrittenFile,
    RowDeletion,
    RowsMoved,
    TableRewrite,
)
from delta_writer.writer.index_directory import discard_others
from delta_writer.writer.index_run import MemoryRun
from delta_writer.writer.key_index import IndexDamaged, KeyIndex, Rows

REWRITE: Final = "CDC REWRITE"


@dataclass(slots=True)
class _Replacement:
    """Live files to take out, files to put in, and those of their rows that are deleted from the start."""

    inputs: list[AddFile] = field(default_factory=list)
    outputs: list[RewrittenFile] = field(default_factory=list)
    vectors: dict[str, BitMap] = field(default_factory=dict)

    def result(self, version: int) -> CommitResult:
        rows = sum(len(out.rows) for out in self.outputs)
        return CommitResult(version, rows_written=rows, files_swapped=len(self.inputs))


class DeletionVectorWriter(DeltaWriter):
    """See the module; the contract is `DeltaWriter`'s."""

    mode = "deletion_vectors"

    def __init__(
        self,
        location: TableLocation,
        identity: TableIdentity,
        topic: ChangeTopic,
        cache_dir: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.vectors = DeletionVectors(location.store, clock)
        self._index: KeyIndex | None = None
        self._index_follows = False
        self._expected: set[str] = set()  # files that a rewrite has prepared, whose keys the index is to keep
        self._upload = BatchUpload(location.store, clock)
        super().__init__(location, identity, topic, cache_dir, clock)

    def reload(self) -> None:
        super().reload()
        with store_errors(f"reading the keys of {self.location.url}"):
            self._open_index()

    def close(self) -> None:
        if self._index is not None:
            index, self._index, self._index_follows = self._index, None, False
            index.close()

    def delete_rows(self, deletion: RowDeletion) -> CommitResult | None:
        """Delete rows that were found beside the stream; None, and nothing written, when there is nothing to do.

        Raises:
            RowsMoved: a file with such rows was rewritten since, or a restore came in between. Nothing was written.
        """
        rows_then = self._rows_identity()

        def attempt() -> CommitResult | None:
            if self._rows_identity() != rows_then:  # rows may live that the caller has deleted before
                raise RowsMoved(f"{self.location.url} was restored since version {deletion.read_version}")
            vectors, removed = {}, 0
            for path, rows in deletion.rows.items():
                if path not in self._snapshot.files:
                    self._moved.check(path, deletion.read_version)
                elif doomed := rows - (deleted := self.vectors.of(self._snapshot.files[path])):
                    vectors[path] = deleted | doomed
                    removed += len(doomed)
            txns = self._raised(deletion.txns)
            if not vectors and not txns:
                return None
            now_ms = int(self._clock() * 1000)
            actions = [Action(commit_info=self._commit_info(deletion.operation, deletion.commit_id, now_ms))]
            actions += self._txns(txns, now_ms) + self.vectors.swaps(self._snapshot.files, vectors)
            self._append(actions, deletion.commit_id)
            self.vectors.committed(self._snapshot.files, vectors)
            return CommitResult(self.version, rows_removed=removed, files_swapped=len(vectors))

        return self._until_landed(deletion.commit_id, attempt)

    def replace_files(self, rewrite: FileRewrite) -> CommitResult | None:
        """Put rewritten files in the place of others; None, and nothing written, when none of those is there any more.

        Rows deleted since the inputs were read are deleted in the outputs, so a rewrite never undoes a change.

        Raises:
            RowsMoved: another rewrite came first, or a restore brought rows back. Nothing was written.
        """

        def attempt() -> CommitResult | None:
            for path in rewrite.inputs:
                if path not in self._snapshot.files:
                    self._moved.check(path, rewrite.read_version)
            replaced = self._carried_over([rewrite])
            if not replaced.inputs:
                return None
            self._exchange(replaced, rewrite.commit_id, REWRITE)
            return replaced.result(self.version)

        return self._until_landed(rewrite.commit_id, attempt)

    def prepare_table_rewrite(self, part: FileRewrite) -> None:
        """Take the keys of files that are to be committed later into the index, so that the commit need not.

        To be called for each part of a `TableRewrite` as it comes to be. Nothing depends on it but time.
        """
        with store_errors(f"indexing the rewritten files of {self.location.url}"):
            self._follow()
            for out in part.outputs:
                self._expected.add(out.add.path)
                if self._index is not None:
                    self._index.add_run(out.keys)

    def forget_table_rewrite(self, parts: Sequence[FileRewrite]) -> None:
        """The parts were committed, or never will be: the index may drop keys of files that the table lacks."""
        self._expected.difference_update(out.add.path for part in parts for out in part.outputs)

    def rewrite_table(self, rewrite: TableRewrite) -> CommitResult | None:
        """Put all rows of the table, rewritten, in the place of what they were, and other metadata with them.

        What was written since the parts were prepared is rewritten here, if it is not too much.

        Raises:
            Overtaken: the table has other columns now, or a restore brought rows back. Nothing was written.
            TooMuchLeft: prepare further parts first. Nothing was written.
        """

        def attempt() -> CommitResult | None:
            after = rewrite.complete(self._snapshot)
            try:
                replaced = self._carried_over(rewrite.parts)
            except RowsMoved as moved:
                raise Overtaken(str(moved)) from None
            metadata = self._recorded(after, rewrite.cause(rewrite.commit_id, int(self._clock() * 1000)))
            self._exchange(replaced, rewrite.commit_id, rewrite.operation, metadata)
            return replaced.result(self.version)

        return self._until_landed(rewrite.commit_id, attempt)

    def _carried_over(self, rewrites: Sequence[FileRewrite]) -> "_Replacement":
        """Return what rewrites come to on the newest version: rows deleted since are deleted in the outputs."""
        live = self._snapshot.files
        replacement = _Replacement()
        for rewrite in rewrites:
            deleted_since: dict[str, BitMap | None] = {}
            for path, deleted_then in rewrite.inputs.items():
                if path not in live:
                    deleted_since[path] = None
                    continue
                replacement.inputs.append(live[path])
                deleted_now = self.vectors.of(live[path])
                if deleted_then - deleted_now:  # these are in no output
                    raise RowsMoved(f"rows of {path} were restored since version {rewrite.read_version}")
                if since := deleted_now - deleted_then:
                    deleted_since[path] = since
            for out in rewrite.outputs:
                deleted = rewrite.deleted_rows(out, deleted_since)
                if len(deleted) < len(out.rows):
                    replacement.outputs.append(out)
                    if deleted:
                        replacement.vectors[out.add.path] = deleted
        return replacement

    def _exchange(
        self, replacement: "_Replacement", commit_id: str, operation: str, metadata: Metadata | None = None
    ) -> None:
        """Write the entry that puts the outputs in the place of the inputs."""
        vectors = replacement.vectors
        descriptors = self.vectors.write(vectors)
        now_ms = int(self._clock() * 1000)
        actions = [Action(commit_info=self._commit_info(operation, commit_id, now_ms))]
        if metadata is not None:
            actions.append(Action(meta_data=metadata))
        actions += [Action(remove=removal(file, now_ms, data_change=False)) for file in replacement.inputs]
        for out in replacement.outputs:
            path = out.add.path
            add = with_vector(out.add, descriptors[path]) if path in descriptors else out.add
            actions.append(Action(add=replace(add, data_change=False)))
        self._follow()  # now: what it lacks would be forgotten once the outputs are in
        self._index_follows = False  # until it holds what the entry adds
        self._append(actions, commit_id)
        self.vectors.committed(self._snapshot.files, vectors)
        self._index_files([out.keys for out in replacement.outputs])

    def _write(self, batch: EncodedBatch) -> CommitResult | None:
        started = time.perf_counter()
        if len(batch.confirmed):
            batch = self._with_confirmed_rows(batch)
        superseded = self._superseded_rows(np.concatenate([batch.row_hashes, batch.deleted_hashes]))
        if not superseded and not batch.rows.num_rows and not batch.must_commit:
            return None
        looked_up = time.perf_counter()
        metadata = self._metadata_for(batch)
        new_file = self._upload.of(batch, self.upload_era, self.version) if batch.rows.num_rows else None
        files = self._snapshot.files
        vectors = {path: self.vectors.of(files[path]) | rows for path, rows in superseded.items()}
        actions = self._offset_actions(batch)
        if self.version < 0:
            actions.append(Action(protocol=protocol_for(self.mode)))
        if metadata is not None:
            actions.append(Action(meta_data=metadata))
        actions += self.vectors.swaps(files, vectors)
        if new_file is not None:
            actions.append(Action(add=new_file))
        written = time.perf_counter()
        self._index_follows = False  # until it holds what the entry adds
        self._append(actions, batch.commit_id)
        committed = time.perf_counter()
        self._upload.committed()
        self.vectors.committed(self._snapshot.files, vectors)
        self._index_files([] if new_file is None else [MemoryRun.of_file(new_file.path, batch.row_hashes)])
        return CommitResult(
            version=self.version,
            rows_written=batch.rows.num_rows,
            rows_removed=sum(map(len, superseded.values())),
            files_swapped=len(vectors),
            seconds={
                "write": written - looked_up,
                "commit": committed - written,
                "index": looked_up - started + time.perf_counter() - committed,
            },
        )

    def _with_confirmed_rows(self, batch: EncodedBatch) -> EncodedBatch:
        """Return the batch with the rows that it confirms, as they are in the newest version, at their new places."""
        confirmed = batch.confirmed
        live = self._superseded_rows(confirmed.hashes)
        rows = read_rows(self.location.store, self._snapshot.files, live, batch.rows.schema)
        if not len(rows):
            return batch
        number = {key: i for i, key in enumerate(confirmed.keys)}
        numbers = np.array([number[key] for key in cast(list[str], rows.column(KEY_COLUMN).to_pylist())])
        for name, places in (
            (PARTITION_COLUMN, confirmed.partitions + np.int32(self.partition_base)),
            (OFFSET_COLUMN, confirmed.offsets),
        ):
            at = rows.schema.get_field_index(name)
            rows = rows.set_column(at, rows.schema.field(at), pa.array(places[numbers]))
        return dataclasses.replace(
            batch,
            rows=pa.concat_tables([batch.rows, rows]),
            row_hashes=np.concatenate([batch.row_hashes, confirmed.hashes[numbers]]),
        )

    def _rows_identity(self) -> str | None:
        metadata = self._snapshot.metadata
        return None if metadata is None else rows_identity(metadata)

    def _superseded_rows(self, hashes: KeyHashes) -> dict[str, BitMap]:
        """Return, for each data file that has any, the live rows that have one of the keys."""
        superseded = {}
        for path, rows in self._candidates(hashes).items():
            file = self._snapshot.files.get(path)
            if file is not None and (live := BitMap(rows) - self.vectors.of(file)):
                superseded[path] = live
        return superseded

    # -- the index ----------------------------------------------------------------------------------------------------

    def _candidates(self, hashes: KeyHashes) -> dict[str, Rows]:
        """Return, for each data file that has any, rows that have or had one of the keys."""
        while True:
            self._follow()
            if self._index is None:
                return {}
            try:
                return self._index.find(hashes)
            except IndexDamaged:
                self._index_follows = False

    def _index_files(self, new_files: Sequence[MemoryRun]) -> None:
        """Take files that a commit of ours has added, which the snapshot holds already, into the index."""
        index = self._index or self._new_index()
        for run in new_files:
            index.add_run(run)
        self._index_follows = True

    def _follow(self) -> None:
        """Bring the index up to the snapshot if something has kept it from following."""
        if not self._index_follows:
            self._open_index()

    def _open_index(self) -> None:
        """Open the key index and bring it up to the snapshot. The table is the truth: what is missing is read."""
        self._index_follows = False  # until everything that is missing was read
        metadata = self._snapshot.metadata
        if self._index is not None and (metadata is None or rows_identity(metadata) != self._index.table_id):
            index, self._index = self._index, None
            index.discard()  # of rows that are no more, or that may live again
        if metadata is None:
            return
        index = self._index or self._new_index()
        for path in index.missing(list(self._snapshot.files)):
            index.add(path, self._read_key_hashes(path))
        self._index_follows = True

    def _new_index(self) -> KeyIndex:
        metadata = self._snapshot.metadata
        if metadata is None:
            raise Fatal(f"{self.location.url} has rows and no metadata: the table is damaged")
        discard_others(self.cache_dir, metadata.id, rows_identity(metadata))
        self._index = KeyIndex(self.cache_dir, rows_identity(metadata), self._known_dead)
        return self._index

    def _after_catch_up(self) -> None:
        self._open_index()

    def _read_key_hashes(self, path: str) -> KeyHashes:
        body = pa.BufferReader(obstore.get(self.location.store, path).bytes())
        keys = pq.read_table(body, columns=[KEY_COLUMN]).column(KEY_COLUMN)
        return hash_keys(key for chunk in keys.chunks for key in cast(list[str], chunk.to_pylist()))

    def _known_dead(self, path: str) -> BitMap | None:
        file = self._snapshot.files.get(path)
        if file is None:
            return BitMap() if path in self._expected else None
        return self.vectors.in_memory(file) or BitMap()
