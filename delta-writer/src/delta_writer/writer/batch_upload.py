"""The data file of a batch: written once, however many attempts its commit takes."""

import uuid
from collections.abc import Callable
from typing import Final

import obstore
from obstore.store import ObjectStore

from cdc_shared.delta.actions import AddFile
from cdc_shared.storage.object_store import MULTIPART_CHUNK_BYTES, MULTIPART_CONCURRENCY
from delta_writer.transformers.change_batch import EncodedBatch
from delta_writer.writer.parquet_file import encode_data_file

MAX_UPLOAD_AGE_S: Final = 6 * 3600.0
"""Older uploads are not committed: another writer's vacuum may have taken them (`retention.UPLOAD_GRACE_S`)."""


class BatchUpload:
    """Keeps the file of the batch in hand until it is committed. `clock` is the wall clock in seconds."""

    def __init__(self, store: ObjectStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._uploaded: tuple[str, AddFile] | None = None

    def of(self, batch: EncodedBatch, era: str, version: int) -> AddFile:
        """Write the batch's rows to a new file, unless an earlier attempt has, not too long ago; return its `add`.

        `era` is the writer's `upload_era`: the file holds for no other. `version` is the table's: rows that the batch
        confirms were read from it.
        """
        upload = f"{batch.commit_id}@{era}"
        if len(batch.confirmed):
            upload += f"@{version}"
        known = self._uploaded
        if known is not None and known[0] == upload and not is_too_old(known[1], self._clock()):
            return known[1]
        file = encode_data_file(batch.rows)
        path = f"part-{uuid.uuid4()}.zstd.parquet"
        obstore.put(
            self._store,
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
        self._uploaded = (upload, add)
        return add

    def committed(self) -> None:
        """The batch is in the table; its file is the table's now."""
        self._uploaded = None


def is_too_old(uploaded: AddFile, now: float) -> bool:
    """Tell whether a file was uploaded so long ago that it must not be committed any more. `now`: the wall clock."""
    return now - uploaded.modification_time / 1000 > MAX_UPLOAD_AGE_S
