"""Deleting what no retained version names: files that were replaced, and uploads that were never committed.

Kept is whatever the oldest retained version names, whatever the newest names, and whatever is not much older than the
oldest retained one. That covers every version between: an entry after the oldest retained version names files of the
state before it, and files uploaded for it, which are at most `upload_grace_s` older than the entry; and the oldest
retained version is itself an entry before it. (A RESTORE names older files again; `_restored` reads those.) So the cost
follows the files listed, not the number of versions retained. A vector file holds vectors of many data files and goes
when none of them is named.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import obstore
from obstore.store import ObjectStore

from cdc_shared.delta.actions import AddFile
from cdc_shared.delta.deletion_vector import vector_location
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_metadata import RESTORE_ID
from cdc_shared.logging.structured_logger import get_logger
from delta_writer.maintenance.budget import Budget
from delta_writer.maintenance.retention import RetainedLog, Retention

DELETE_BATCH: Final = 1000
"""As many as one request of S3's takes."""
_AFTER_THE_LOG: Final = "_delta_log0"  # sorts after everything in `_delta_log/` and before our own names
_OURS: Final = re.compile(r"part-[^/]+\.parquet|(deletion_vector)_[^/]+\.bin")

log = get_logger(__name__)


@dataclass(slots=True)
class Deleted:
    """How many files and bytes were deleted, or would be, by kind: data, deletion_vector, log."""

    files: dict[str, int] = field(default_factory=dict)
    size_bytes: int = 0

    def count(self, kind: str, size: int) -> None:
        """Count one file."""
        self.files[kind] = self.files.get(kind, 0) + 1
        self.size_bytes += size


@dataclass(frozen=True, slots=True)
class _Found:
    path: str
    kind: str
    size: int


def vacuum(
    store: ObjectStore, retained: RetainedLog, retention: Retention, budget: Budget, *, dry_run: bool = False
) -> Deleted:
    """Delete the data and vector files under the table's root that no retained version names. May be run at any time.

    Raises:
        Stopped: the budget's stop event was set; what is left is found again next time.
        VersionGone: the log does not lead to the oldest retained version. Nothing was deleted.
    """
    keep = named_files(store, retained)
    before = retained.oldest_at - retention.upload_grace_s
    deleted = Deleted()
    for garbage in _garbage(store, keep, before, budget):
        if not dry_run:
            delete_paths(store, [found.path for found in garbage])
        for found in garbage:
            deleted.count(found.kind, found.size)
        if len(garbage) == DELETE_BATCH:
            log.info("vacuum under way", files=sum(deleted.files.values()), bytes=deleted.size_bytes, dry_run=dry_run)
        budget.used()
    return deleted


def clean_up_log(store: ObjectStore, retained: RetainedLog, budget: Budget, *, dry_run: bool = False) -> Deleted:
    """Delete the entries and checkpoints of the log that no retained version needs.

    delta-rs's own clean-up looks for a checkpoint one version too far: docs/adr/0007-vacuum-and-log-clean-up.md.
    """
    deleted = Deleted()
    for start in range(0, len(retained.expired), DELETE_BATCH):
        batch = retained.expired[start : start + DELETE_BATCH]
        if not dry_run:
            delete_paths(store, [file.path for file in batch])
        for file in batch:
            deleted.count("log", file.size)
        budget.used()
    return deleted


def named_files(store: ObjectStore, retained: RetainedLog) -> set[str]:
    """Return what the oldest retained and the newest version name, and what a RESTORE between brought back."""
    table_log = DeltaLog(store)
    oldest, newest = table_log.load_version(retained.oldest), table_log.load()
    named = {*_names(oldest.files.values()), *_names(newest.files.values())}
    for version in _restores(table_log, oldest, newest):
        actions = table_log.read_entry(version) or []
        named |= set(_names(action.add for action in actions if action.add is not None))
    return named


def _restores(table_log: DeltaLog, older: Snapshot, newer: Snapshot) -> list[int]:
    """Return the versions between two that are a RESTORE, found by halving: each leaves an id of its own."""
    if _restore_id(older) == _restore_id(newer):
        return []
    if newer.version - older.version == 1:
        return [newer.version]
    middle = table_log.load_version((older.version + newer.version) // 2)
    return _restores(table_log, older, middle) + _restores(table_log, middle, newer)


def _restore_id(state: Snapshot) -> str | None:
    return None if state.metadata is None else state.metadata.configuration.get(RESTORE_ID)


def delete_paths(store: ObjectStore, paths: list[str]) -> None:
    """Delete the objects; one that another vacuum has deleted already is no error."""
    try:
        obstore.delete(store, paths)
    except FileNotFoundError:
        for path in paths:
            with suppress(FileNotFoundError):
                obstore.delete(store, path)


def _names(files: Iterable[AddFile]) -> Iterator[str]:
    for file in files:
        yield file.path
        if file.deletion_vector is not None:
            yield vector_location(file.deletion_vector)[0]


def _garbage(store: ObjectStore, keep: set[str], before: float, budget: Budget) -> Iterator[list[_Found]]:
    """Yield our files that are older than `before` and not to be kept, in batches, as the listing goes on."""
    batch: list[_Found] = []
    for page in obstore.list(store, offset=_AFTER_THE_LOG, chunk_size=1000):
        for item in page:
            match = _OURS.fullmatch(item["path"])
            if match is None or item["path"] in keep or item["last_modified"].timestamp() >= before:
                continue
            batch.append(_Found(item["path"], match[1] or "data", item["size"]))
            if len(batch) == DELETE_BATCH:
                yield batch
                batch = []
        budget.used()
    if batch:
        yield batch
