"""The named steps between poll and index update at which a writer can be killed, wrapped around the product's own code.

Nothing in the product knows of them. `arm` is called in the process that is to die.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import obstore
from deltalake import DeltaTable
from recorded_topic import RecordedConsumer

from cdc_shared.delta.schema_history import SchemaOperation
from delta_writer import pipeline
from delta_writer.maintenance import column_changes, column_rewrite, table_maintenance, vacuum
from delta_writer.writer import delta_writer, key_index
from delta_writer.writer.deletion_vector_writer import DeletionVectorWriter
from delta_writer.writer.index_file import DiskRun, RunFileWriter
from delta_writer.writer.parquet_file import DataFileStream

Moment = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """At the `hit`th time (from 1) that a process comes to the step it is killed, or put to sleep (SIGSTOP)."""

    step: str
    hit: int
    signal: signal.Signals = signal.SIGKILL


@dataclass(frozen=True, slots=True)
class _Step:
    """Before or after a call of `owner.name` whose arguments `when` accepts."""

    owner: Any
    name: str
    moment: Moment
    when: Callable[..., bool] = lambda *_, **__: True


def _path_of_put(pattern: str) -> Callable[..., bool]:
    return lambda _, path, *__, **___: re.search(pattern, path) is not None


def _is_rewrite(_: Any, path: str, body: Any, *__: Any, **___: Any) -> bool:
    return re.search(_ENTRY, path) is not None and b'"dataChange":false' in body


def _is_promotion(_: Any, path: str, body: Any, *__: Any, **___: Any) -> bool:
    return re.search(_ENTRY, path) is not None and b'"CDC PROMOTE"' in body


def _promotes(change: Any) -> bool:
    return change.operation is SchemaOperation.PROMOTED


_ENTRY = r"^_delta_log/\d{20}\.json$"
_DATA_FILE = r"^part-"
_VECTOR_FILE = r"^deletion_vector_"

PROMOTION_STEPS: dict[str, _Step] = {
    "promotion asked for": _Step(
        delta_writer.DeltaWriter, "set_properties", "after", lambda _, properties: callable(properties)
    ),
    "promotion announced": _Step(column_changes.ColumnChanges, "_begin", "after"),
    "promoted file stored": _Step(column_rewrite, "rewrite_files", "after"),
    "promoted file indexed": _Step(DeletionVectorWriter, "prepare_table_rewrite", "after"),
    "promotion's schema recorded": _Step(delta_writer, "put_change", "after", lambda _, change: _promotes(change)),
    "promotion's entry on its way": _Step(obstore, "put", "before", _is_promotion),
    "promotion's entry stored, answer unheard": _Step(obstore, "put", "after", _is_promotion),
    "promotion landed": _Step(DeletionVectorWriter, "rewrite_table", "after"),
}
"""Only tables with conflicts come to them."""

STEPS: dict[str, _Step] = {
    "table read": _Step(delta_writer.DeltaWriter, "reload", "after"),
    "partition assigned": _Step(pipeline.Pipeline, "_assigned", "after"),
    "records polled": _Step(RecordedConsumer, "poll", "after"),
    "events read": _Step(pipeline, "read_events", "after"),
    "dead letters acknowledged": _Step(pipeline.Pipeline, "_reject", "after", lambda *args: bool(args[2])),
    "batch encoded": _Step(pipeline, "encode_batch", "after"),
    "superseded rows looked up": _Step(key_index.KeyIndex, "find", "after"),
    "data file on its way": _Step(obstore, "put", "before", _path_of_put(_DATA_FILE)),
    "data file stored": _Step(obstore, "put", "after", _path_of_put(_DATA_FILE)),
    "vector file stored": _Step(obstore, "put", "after", _path_of_put(_VECTOR_FILE)),
    "log entry on its way": _Step(obstore, "put", "before", _path_of_put(_ENTRY)),
    "log entry stored, answer unheard": _Step(obstore, "put", "after", _path_of_put(_ENTRY)),
    "snapshot moved on": _Step(delta_writer.DeltaWriter, "_append", "after"),
    "index knows the file": _Step(key_index.KeyIndex, "add_run", "after"),
    "index merge under way": _Step(RunFileWriter, "append", "after"),
    "index run on its way to disk": _Step(RunFileWriter, "finish", "before"),
    "index run on disk": _Step(RunFileWriter, "finish", "after"),
    "index run taken up": _Step(key_index.KeyIndex, "_exchange", "after"),
    "merged index run deleted": _Step(DiskRun, "delete", "after"),
    "checkpoint on its way": _Step(DeltaTable, "create_checkpoint", "before"),
    "checkpoint stored": _Step(DeltaTable, "create_checkpoint", "after"),
    "rewrite reads": _Step(DataFileStream, "write", "after"),
    "rewritten file stored": _Step(table_maintenance, "rewrite_files", "after"),
    "rewrite's entry on its way": _Step(obstore, "put", "before", _is_rewrite),
    "rewrite's entry stored, answer unheard": _Step(obstore, "put", "after", _is_rewrite),
    "rewrite landed": _Step(DeletionVectorWriter, "replace_files", "after"),
    "vacuum deletes": _Step(vacuum, "delete_paths", "before"),
    "vacuum has deleted": _Step(vacuum, "delete_paths", "after"),
    "offsets hinted": _Step(RecordedConsumer, "hint_offsets", "after"),
}


def arm(point: CrashPoint) -> None:
    """Have this process send itself the signal when it comes to the point."""
    step = {**STEPS, **PROMOTION_STEPS}[point.step]
    real = getattr(step.owner, step.name)
    left = point.hit

    def counted(*args: Any, **kwargs: Any) -> None:
        nonlocal left
        if step.when(*args, **kwargs):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), point.signal)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if step.moment == "before":
            counted(*args, **kwargs)
        result = real(*args, **kwargs)
        if step.moment == "after":
            counted(*args, **kwargs)
        return result

    setattr(step.owner, step.name, wrapped)
