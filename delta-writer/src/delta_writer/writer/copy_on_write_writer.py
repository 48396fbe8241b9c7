"""Copy-on-write: the same batches with delta-rs MERGE, for readers that do not know deletion vectors.

The cost grows with the table, since files with a changed row are rewritten. It is also the oracle that the default mode
is tested against: the same events give the same rows.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError

from cdc_shared.delta.actions import Action
from cdc_shared.delta.foreign_commits import ENGINE
from cdc_shared.delta.log import VersionTaken
from cdc_shared.delta.table_metadata import protocol_for
from cdc_shared.errors import CdcError, Fatal, shown
from cdc_shared.storage.object_store import map_store_error
from delta_writer.transformers.change_batch import EncodedBatch
from delta_writer.writer.delta_writer import (
    KEY_COLUMN,
    OFFSET_COLUMN,
    PARTITION_COLUMN,
    CommitResult,
    DeltaWriter,
    rules_info,
)

_ACTION: Final = "__cdc_action"
_INSERT, _DELETE, _CONFIRM = "insert", "delete", "confirm"
# Of a row to insert it is null, which matches none: the rows that it takes the place of are deleted by another row of
# the source. An update would leave a key that the table has twice, by another program's doing, twice.
_MATCHED_KEY: Final = "__cdc_matched_key"
_SAME_KEY: Final = f"target.{KEY_COLUMN} = source.{_MATCHED_KEY}"
# Checkpoints and log clean-up are maintenance's (docs/adr/0007-vacuum-and-log-clean-up.md), not the commit's.
_NO_HOOKS: Final = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


class CopyOnWriteWriter(DeltaWriter):
    """See the module; the contract is `DeltaWriter`'s."""

    mode = "copy_on_write"

    def close(self) -> None:
        pass

    def delete_where(
        self, predicate: str, txns: Mapping[str, int], operation: str, commit_id: str
    ) -> CommitResult | None:
        """Delete the rows that `predicate` (SQL) matches and set `txns` in the same commit; one that is higher stays.

        None, and nothing written, when no row matches and no `txn` rises. `operation` names a commit of `txn`s alone;
        delta-rs names its own DELETE.
        """

        def attempt() -> CommitResult | None:
            raised = self._raised(txns)
            removed = self._delete(predicate, raised, commit_id)
            if commit_id not in self._landed:  # no row matched: delta-rs made no commit
                if not raised:
                    return None
                now_ms = int(self._clock() * 1000)
                info = Action(commit_info=self._commit_info(operation, commit_id, now_ms))
                self._append([info, *self._txns(raised, now_ms)], commit_id)
            return CommitResult(self.version, rows_removed=removed)

        return self._until_landed(commit_id, attempt)

    def _write(self, batch: EncodedBatch) -> CommitResult | None:
        started = time.perf_counter()
        metrics: Mapping[str, int] = {}
        if batch.rows.num_rows or ((batch.deleted_keys or batch.confirmed.keys) and self.version >= 0):
            self._put_schema_in_force(batch)
            metrics = self._merge(batch)
        if batch.commit_id not in self._landed:  # nothing to merge, or no row matched: delta-rs made no commit
            if not batch.must_commit:
                return None
            self._put_schema_in_force(batch)
            self._append(self._offset_actions(batch), batch.commit_id)
        return CommitResult(
            version=self.version,
            rows_written=batch.rows.num_rows,
            rows_removed=metrics.get("num_target_rows_deleted", 0) + metrics.get("num_target_rows_updated", 0),
            files_swapped=metrics.get("num_target_files_removed", 0),
            seconds={"commit": time.perf_counter() - started},
        )

    def _put_schema_in_force(self, batch: EncodedBatch) -> None:
        """Make the table, or widen its schema, in a commit of its own: a MERGE cannot add nested fields."""
        metadata = self._metadata_for(batch)
        if metadata is None:
            return
        info = {"timestamp": int(self._clock() * 1000), "operation": "SET SCHEMA", "engineInfo": ENGINE}
        actions = [Action(commit_info=info), Action(meta_data=metadata)]
        if self.version < 0:
            actions.insert(1, Action(protocol=protocol_for(self.mode)))
        self._append(actions)

    def _merge(self, batch: EncodedBatch) -> Mapping[str, int]:
        """Merge the batch and commit its offsets.

        The fence holds: it was checked against `self.version`, the MERGE starts from that very version, and without
        retries delta-rs refuses to commit when any other entry has come since.
        """
        table = DeltaTable(self.location.url, self.version, storage_options=dict(self.location.storage_options))
        columns = {name: f"source.`{name}`" for name in batch.rows.column_names}
        places = {name: columns[name] for name in (PARTITION_COLUMN, OFFSET_COLUMN)}
        properties = self._commit_properties(batch.commit_id, self._offset_txns(batch), rules_info(batch))
        self._will_put(batch.commit_id)
        try:
            metrics = (
                table.merge(
                    _source(batch, self.partition_base),
                    _SAME_KEY,
                    source_alias="source",
                    target_alias="target",
                    commit_properties=properties,
                    post_commithook_properties=_NO_HOOKS,
                )
                .when_matched_delete(f"source.{_ACTION} = '{_DELETE}'")
                .when_matched_update(places, f"source.{_ACTION} = '{_CONFIRM}'")
                .when_not_matched_insert(columns, f"source.{_ACTION} = '{_INSERT}'")
                .execute()
            )
        except CommitFailedError as error:
            raise VersionTaken(self.version + 1) from error
        except DeltaError as error:
            raise _mapped(error, f"MERGE into {self.location.url}") from error
        self._catch_up()
        return metrics

    def _delete(self, predicate: str, txns: Mapping[str, int], commit_id: str) -> int:
        """Delete rows on top of exactly the version known, as `_merge` does; return how many."""
        table = DeltaTable(self.location.url, self.version, storage_options=dict(self.location.storage_options))
        properties = self._commit_properties(commit_id, txns)
        self._will_put(commit_id)
        try:
            metrics = table.delete(predicate, commit_properties=properties, post_commithook_properties=_NO_HOOKS)
        except CommitFailedError as error:
            raise VersionTaken(self.version + 1) from error
        except DeltaError as error:
            raise _mapped(error, f"DELETE on {self.location.url}") from error
        self._catch_up()
        return int(metrics.get("num_deleted_rows") or 0)

    def _commit_properties(
        self, commit_id: str, txns: Mapping[str, int], info: Mapping[str, int] | None = None
    ) -> CommitProperties:
        """Return what delta-rs writes into the entry. No retries: the fence was checked against `version` alone."""
        numbers = self._watermark_info(txns) | self._schema_info() | dict(info or {})
        return CommitProperties(
            custom_metadata={"txnId": commit_id, "cdcTopic": self.topic.name}
            | {name: str(number) for name, number in numbers.items()},
            app_transactions=[Transaction(name, version) for name, version in txns.items()],
            max_commit_retries=0,
        )


def _mapped(error: DeltaError, what: str) -> CdcError:
    """delta-rs has one class for most errors; only what the store's marks call permanent is."""
    mapped = map_store_error(OSError(shown(error)), what)
    return Fatal(str(mapped)) if "not found" in str(error).lower() else mapped


def _source(batch: EncodedBatch, partition_base: int) -> pa.Table:
    """Return what the batch inserts, deletes and confirms in one table, marked; of the latter two only what is known.

    An upsert deletes every row of its key, and inserts one.
    """
    confirmed, schema = batch.confirmed, batch.rows.schema
    places = {PARTITION_COLUMN: confirmed.partitions + np.int32(partition_base), OFFSET_COLUMN: confirmed.offsets}
    deleted = [*batch.rows.column(KEY_COLUMN).to_pylist(), *batch.deleted_keys]
    return pa.concat_tables(
        [
            _marked(batch.rows, _INSERT, [None] * len(batch.rows)),
            _marked(_sparse(schema, {}, len(deleted)), _DELETE, deleted),
            _marked(_sparse(schema, places, len(confirmed)), _CONFIRM, confirmed.keys),
        ]
    )


def _sparse(schema: pa.Schema, columns: Mapping[str, Any], rows: int) -> pa.Table:
    values = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(values, schema=schema)


def _marked(rows: pa.Table, action: str, matched_keys: Sequence[str | None]) -> pa.Table:
    marks = pa.array([action] * len(rows), pa.string())
    return rows.append_column(_ACTION, marks).append_column(_MATCHED_KEY, pa.array(matched_keys, pa.string()))
