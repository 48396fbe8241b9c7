"""The writer of a history table: one row for every event, appended, under the same exactly-once rule.

It stands beside the table of the current state and has offsets of its own. A batch is committed here first: so every
offset that the current table has is in the history, unless the history was begun later, and then it begins where the
current table stood.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from cdc_shared.delta.actions import Action, Metadata
from cdc_shared.delta.offsets import ChangeTopic, is_offset
from cdc_shared.delta.positions import PARTITION_BASE, partition_base
from cdc_shared.delta.schema_history import SchemaCause, SchemaOperation
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import (
    HISTORY,
    KEY_MASK,
    TOPIC_PARTITIONS,
    TableIdentity,
    check_supported,
    new_metadata,
    protocol_for,
    schema_of,
)
from cdc_shared.errors import Fatal, ResyncNeeded
from delta_writer.transformers.change_batch import EncodedBatch
from delta_writer.writer.batch_upload import BatchUpload
from delta_writer.writer.deletion_vectors import removal
from delta_writer.writer.delta_writer import CommitResult, DeltaWriter
from delta_writer.writer.file_changes import FileRewrite, RowsMoved, TableRewrite

BEGIN: Final = "CDC BEGIN HISTORY"
_SHARED: Final = (PARTITION_BASE, TOPIC_PARTITIONS, KEY_MASK)
REWRITE: Final = "CDC REWRITE"


class HistoryWriter(DeltaWriter):
    """See the module; the contract is `DeltaWriter`'s."""

    mode = HISTORY

    def __init__(
        self,
        location: TableLocation,
        identity: TableIdentity,
        topic: ChangeTopic,
        cache_dir: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._upload = BatchUpload(location.store, clock)
        super().__init__(location, identity, topic, cache_dir, clock)

    def close(self) -> None:
        pass

    def next_offset(self, partition: int, low: int, high: int) -> int:
        """Return the offset to read next. Raises `Fatal`: no new snapshot brings back events that are gone."""
        try:
            super()._check_supported(self._snapshot)
            return super().next_offset(partition, low, high)
        except ResyncNeeded as error:
            raise Fatal(
                f"the history table {self.location.url} cannot go on without a gap ({error}). Move it away: a new one "
                "begins where the table of the current state stands; or set sink.history to false"
            ) from None

    def follow(self, current: Snapshot) -> CommitResult | None:
        """Take over where the table of the current state stands, where this one cannot know; None when it knows.

        That is: when there is no history yet, of a partition that was first read without one, and after the table has
        started anew. From there on both read the same, and rows count their partitions from the same base.
        """
        commit_id = str(uuid.uuid4())

        def attempt() -> CommitResult | None:
            if current.metadata is None:
                return None
            known = self._snapshot.txns
            base = partition_base(current.metadata)
            began_anew = base > self.partition_base
            offsets = {
                name: to
                for name, to in current.txns.items()
                if is_offset(name) and (began_anew or name not in known) and known.get(name) != to
            }
            if not offsets and not began_anew and self.version >= 0:
                return None
            now_ms = int(self._clock() * 1000)
            actions = [Action(commit_info=self._commit_info(BEGIN, commit_id, now_ms))]
            if self.version < 0:
                actions.append(Action(protocol=protocol_for(self.mode)))
            if self.version < 0 or began_anew:
                actions.append(Action(meta_data=self._metadata_beside(current.metadata, commit_id, now_ms)))
            self._append(actions + self._txns(offsets, now_ms), commit_id)
            return CommitResult(self.version)

        return self._until_landed(commit_id, attempt)

    def replace_files(self, rewrite: FileRewrite) -> CommitResult | None:
        """Put rewritten files in the place of others.

        Raises:
            RowsMoved: one of those is no longer there. Nothing was written.
        """

        def attempt() -> CommitResult | None:
            live = self._snapshot.files
            if gone := [path for path in rewrite.inputs if path not in live]:
                raise RowsMoved(f"{gone[0]} was rewritten since version {rewrite.read_version}")
            now_ms = int(self._clock() * 1000)
            self._append(
                [
                    Action(commit_info=self._commit_info(REWRITE, rewrite.commit_id, now_ms)),
                    *(Action(remove=removal(live[path], now_ms, data_change=False)) for path in rewrite.inputs),
                    *(Action(add=replace(out.add, data_change=False)) for out in rewrite.outputs),
                ],
                rewrite.commit_id,
            )
            rows = sum(len(out.rows) for out in rewrite.outputs)
            return CommitResult(self.version, rows_written=rows, files_swapped=len(rewrite.inputs))

        return self._until_landed(rewrite.commit_id, attempt)

    def prepare_table_rewrite(self, part: FileRewrite) -> None:
        """See `DeletionVectorWriter.prepare_table_rewrite`: a history has no index."""

    def forget_table_rewrite(self, parts: Sequence[FileRewrite]) -> None:
        """See `DeletionVectorWriter.forget_table_rewrite`."""

    def rewrite_table(self, rewrite: TableRewrite) -> CommitResult | None:
        """As `DeletionVectorWriter.rewrite_table`. Parts whose files are not all there any more are dropped from it.

        Raises:
            Overtaken: the table has other columns now. Nothing was written.
            TooMuchLeft: prepare further parts first. Nothing was written.
        """

        def attempt() -> CommitResult | None:
            live = self._snapshot.files
            rewrite.drop([part for part in rewrite.parts if any(path not in live for path in part.inputs)])
            after = rewrite.complete(self._snapshot)
            outputs = [out for part in rewrite.parts for out in part.outputs]
            now_ms = int(self._clock() * 1000)
            metadata = self._recorded(after, rewrite.cause(rewrite.commit_id, now_ms))
            self._append(
                [
                    Action(commit_info=self._commit_info(rewrite.operation, rewrite.commit_id, now_ms)),
                    Action(meta_data=metadata),
                    *(Action(remove=removal(file, now_ms, data_change=False)) for file in list(live.values())),
                    *(Action(add=replace(out.add, data_change=False)) for out in outputs),
                ],
                rewrite.commit_id,
            )
            rows = sum(len(out.rows) for out in outputs)
            return CommitResult(self.version, rows_written=rows, files_swapped=len(rewrite.parts))

        return self._until_landed(rewrite.commit_id, attempt)

    def _write(self, batch: EncodedBatch) -> CommitResult | None:
        if not batch.rows.num_rows and not batch.must_commit:
            return None
        started = time.perf_counter()
        actions = self._offset_actions(batch)
        if self.version < 0:
            actions.append(Action(protocol=protocol_for(self.mode)))
        if (metadata := self._metadata_for(batch)) is not None:
            actions.append(Action(meta_data=metadata))
        if batch.rows.num_rows:
            actions.append(Action(add=self._upload.of(batch, self.upload_era, self.version)))
        written = time.perf_counter()
        self._append(actions, batch.commit_id)
        self._upload.committed()
        seconds = {"write": written - started, "commit": time.perf_counter() - written}
        return CommitResult(self.version, rows_written=batch.rows.num_rows, seconds=seconds)

    def _check_supported(self, snapshot: Snapshot) -> None:
        """Leave it to `next_offset` whether the topic's partitions are still the same: `follow` comes in between."""
        partitions = self.topic.partitions
        if snapshot.metadata is not None:
            partitions = int(snapshot.metadata.configuration.get(TOPIC_PARTITIONS, partitions))
        check_supported(snapshot, self._identity, self.mode, partitions, self.location.url)

    def _metadata_beside(self, current: Metadata, commit_id: str, now_ms: int) -> Metadata:
        """Return the metadata of a history that begins beside a table, or that starts anew together with it."""
        metadata = self._snapshot.metadata
        if metadata is None:
            metadata = self._recorded(
                new_metadata(self._identity, schema_of(current), self.mode, self.topic.partitions, now_ms),
                SchemaCause(SchemaOperation.CREATED, commit_id, now_ms),
            )
        shared = {name: current.configuration[name] for name in _SHARED if name in current.configuration}
        return replace(metadata, configuration={**metadata.configuration, **shared})
