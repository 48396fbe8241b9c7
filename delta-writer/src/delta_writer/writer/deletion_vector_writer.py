"""Merge-on-read: new rows go to a new file, old rows are marked in deletion vectors. The cost follows the batch alone.

One commit holds one `add` for the new rows, for each file with superseded rows a `remove` and an `add` with the wider
vector (only the `remove` when no row is left), and the offsets.
"""

import time
import uuid
from collections.abc import Mapping
from typing import Final, cast

import msgspec
import numpy as np
import numpy.typing as npt
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec.structs import replace
from pyroaring import BitMap

from cdc_shared.delta.actions import Action, AddFile, DeletionVectorDescriptor, RemoveFile
from cdc_shared.delta.deletion_vector import (
    decode_stored_vector,
    encode_vector_file,
    vector_file_path,
    vector_location,
)
from cdc_shared.delta.stats import with_loose_bounds
from cdc_shared.errors import Fatal
from cdc_shared.storage.object_store import MULTIPART_CHUNK_BYTES, MULTIPART_CONCURRENCY
from delta_writer.transformers.change_batch import EncodedBatch
from delta_writer.writer.delta_writer import CommitResult, DeltaWriter, store_errors
from delta_writer.writer.key_hash import KeyHashes, hash_keys
from delta_writer.writer.key_index import KeyIndex, Rows
from delta_writer.writer.parquet_file import encode_data_file
from delta_writer.writer.table_metadata import protocol_for

KEY_COLUMN: Final = "_cdc_key"


class _FileStats(msgspec.Struct, rename="camel"):
    num_records: int


_STATS: Final = msgspec.json.Decoder(_FileStats)


class DeletionVectorWriter(DeltaWriter):
    """See the module; the contract is `DeltaWriter`'s."""

    mode = "deletion_vectors"
    _index: KeyIndex | None = None
    _index_follows = False

    def reload(self) -> None:
        super().reload()
        self._vectors: dict[str, tuple[str, BitMap]] = {}
        self._uploaded: tuple[str, AddFile] | None = None
        with store_errors(f"reading the keys of {self.location.url}"):
            self._open_index()

    def close(self) -> None:
        if self._index is not None:
            index, self._index, self._index_follows = self._index, None, False
            index.close()

    def _write(self, batch: EncodedBatch) -> CommitResult | None:
        started = time.perf_counter()
        superseded = self._superseded_rows(np.concatenate([batch.row_hashes, batch.deleted_hashes]))
        metadata = self._metadata_for(batch.schema)
        if not superseded and not batch.rows.num_rows and not batch.must_commit:
            return None
        looked_up = time.perf_counter()
        new_file = self._upload_rows(batch) if batch.rows.num_rows else None
        vectors = {path: self._vector(path) | rows for path, rows in superseded.items()}
        actions = self._offset_actions(batch)
        if self.version < 0:
            actions.append(Action(protocol=protocol_for(self.mode)))
        if metadata is not None:
            actions.append(Action(meta_data=metadata))
        actions += self._swaps(vectors)
        if new_file is not None:
            actions.append(Action(add=new_file))
        written = time.perf_counter()
        self._index_follows = False  # until it holds what the entry adds
        self._append(actions, batch.commit_id)
        committed = time.perf_counter()
        self._remember(vectors, new_file, batch.row_hashes)
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

    def _superseded_rows(self, hashes: KeyHashes) -> dict[str, BitMap]:
        """Return, for each data file that has any, the live rows that have one of the keys."""
        if not self._index_follows:
            self._open_index()
        if self._index is None:
            return {}
        superseded = {}
        for path, rows in self._index.find(hashes).items():
            if path in self._snapshot.files:
                live = BitMap(rows) - self._vector(path)
                if live:
                    superseded[path] = live
        return superseded

    def _upload_rows(self, batch: EncodedBatch) -> AddFile:
        """Write the batch's data file, once for all attempts to commit the batch."""
        if self._uploaded is not None and self._uploaded[0] == batch.commit_id:
            return self._uploaded[1]
        file = encode_data_file(batch.rows)
        path = f"part-{uuid.uuid4()}.zstd.parquet"
        obstore.put(
            self.location.store,
            path,
            memoryview(file.body).cast("B"),
            chunk_size=MULTIPART_CHUNK_BYTES,
            max_concurrency=MULTIPART_CONCURRENCY,
        )
        add = AddFile(
            path=path,
            partition_values={},
            size=file.body.size,
            modification_time=int(self._clock() * 1000),
            data_change=True,
            stats=file.stats,
        )
        self._uploaded = (batch.commit_id, add)
        return add

    def _swaps(self, vectors: Mapping[str, BitMap]) -> list[Action]:
        """Write the vectors to one file and return the actions that put them in force."""
        if not vectors:
            return []
        files = {path: self._snapshot.files[path] for path in vectors}
        partly = {path: rows for path, rows in vectors.items() if len(rows) < _physical_rows(files[path])}
        descriptors: dict[str, DeletionVectorDescriptor] = {}
        if partly:
            file_id = uuid.uuid4()
            body, descriptors = encode_vector_file(file_id, partly)
            obstore.put(self.location.store, vector_file_path(file_id), body)
        now_ms = int(self._clock() * 1000)
        actions = []
        for path, file in files.items():
            actions.append(Action(remove=_remove(file, now_ms)))
            if path in descriptors:
                swapped = replace(
                    file,
                    deletion_vector=descriptors[path],
                    stats=with_loose_bounds(file.stats),
                    modification_time=now_ms,
                    data_change=True,
                )
                actions.append(Action(add=swapped))
        return actions

    def _remember(self, vectors: Mapping[str, BitMap], new_file: AddFile | None, hashes: KeyHashes) -> None:
        """Take the commit, which the snapshot holds already, into vectors and index."""
        for path, rows in vectors.items():
            file = self._snapshot.files.get(path)
            if file is None or file.deletion_vector is None:
                self._vectors.pop(path, None)
            else:
                self._vectors[path] = (file.deletion_vector.unique_id, rows)
        self._uploaded = None
        index = self._index or self._new_index()
        if new_file is not None:
            index.add(new_file.path, hashes)
        self._index_follows = True

    # -- index and vectors --------------------------------------------------------------------------------------------

    def _open_index(self) -> None:
        """Open the key index and bring it up to the snapshot. The table is the truth: what is missing is read."""
        metadata = self._snapshot.metadata
        if self._index is not None and (metadata is None or metadata.id != self._index.table_id):
            self.close()
        if metadata is None:
            return
        index = self._index or self._new_index()
        for path in index.missing(list(self._snapshot.files)):
            index.add(path, self._read_key_hashes(path))
        self._index_follows = True

    def _new_index(self) -> KeyIndex:
        if self._snapshot.metadata is None:
            raise Fatal(f"{self.location.url} has rows and no metadata: the table is damaged")
        self._index = KeyIndex(self._cache_dir, self._snapshot.metadata.id, self._live_rows)
        return self._index

    def _after_catch_up(self) -> None:
        self._open_index()

    def _read_key_hashes(self, path: str) -> KeyHashes:
        body = pa.BufferReader(obstore.get(self.location.store, path).bytes())
        keys = pq.read_table(body, columns=[KEY_COLUMN]).column(KEY_COLUMN)
        return hash_keys(key for chunk in keys.chunks for key in cast(list[str], chunk.to_pylist()))

    def _live_rows(self, path: str, rows: Rows) -> npt.NDArray[np.bool_]:
        if path not in self._snapshot.files:
            return np.zeros(len(rows), np.bool_)
        dead = np.frombuffer(self._vector(path).to_array(), np.uint32)
        return ~np.isin(rows, dead)

    def _vector(self, path: str) -> BitMap:
        """Return the rows of a live data file that are deleted."""
        descriptor = self._snapshot.files[path].deletion_vector
        if descriptor is None:
            return BitMap()
        known = self._vectors.get(path)
        if known is None or known[0] != descriptor.unique_id:
            vector_path, start, length = vector_location(descriptor)
            stored = obstore.get_range(self.location.store, vector_path, start=start, length=length)
            known = (descriptor.unique_id, decode_stored_vector(bytes(stored), descriptor))
            self._vectors[path] = known
        return known[1]


def _physical_rows(file: AddFile) -> int:
    """Return how many rows the data file has, deleted ones included. Our own files always say so in their stats."""
    return _STATS.decode(file.stats or "").num_records


def _remove(file: AddFile, now_ms: int) -> RemoveFile:
    return RemoveFile(
        path=file.path,
        data_change=True,
        deletion_timestamp=now_ms,
        extended_file_metadata=True,
        partition_values=file.partition_values,
        size=file.size,
        deletion_vector=file.deletion_vector,
    )
