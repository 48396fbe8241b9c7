"""Reading and extending a table's log in an object store.

The log is `_delta_log/<20 digits>.json`, one entry a version, with a Parquet checkpoint now and then. An entry is
written with put-if-absent, which is what makes a commit atomic: of two writers of one version one wins.
"""

import io
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
import obstore
import pyarrow.parquet as pq
from obstore.store import LocalStore, ObjectStore

from cdc_shared.delta.actions import Action, decode_actions, encode_actions
from cdc_shared.delta.oldest_version import oldest_version
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.errors import Fatal

LOG_DIR: Final = "_delta_log"
LAST_CHECKPOINT_PATH: Final = f"{LOG_DIR}/_last_checkpoint"
_VERSION_DIGITS: Final = 20
_CHECKPOINT: Final = re.compile(r"(\d{20})\.checkpoint(?:\.\d{10}\.(\d{10}))?\.parquet")
_LOOK_BACK_VERSIONS: Final = (256, 4096)
"""How far before a version its checkpoint is looked for before the whole log is listed."""


class VersionTaken(Exception):
    """Another writer (or our own put that seemed to fail) has written this version already."""


class VersionGone(Fatal):
    """The version does not exist (yet), or log clean-up has deleted what led to it."""


class _LastCheckpoint(msgspec.Struct, frozen=True, rename="camel"):
    version: int
    parts: int | None = None


def entry_path(version: int) -> str:
    """Return the path of a version's log entry, relative to the table's root."""
    return f"{LOG_DIR}/{version:020d}.json"


class DeltaLog:
    """The log of the table at the root of `store`.

    Every method blocks on the store and lets the store's own errors through (`map_store_error` sorts them).
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def load(self) -> Snapshot:
        """Return the newest state. A table that does not exist has version -1 and no metadata.

        Raises:
            Fatal: an entry between the checkpoint and the newest version is missing.
        """
        snapshot = Snapshot()
        checkpoint = self._last_checkpoint()
        if checkpoint is not None:
            self._apply_checkpoint(snapshot, checkpoint)
        self._apply_entries_after(snapshot)
        return snapshot

    def load_version(self, version: int) -> Snapshot:
        """Return the state at a version, as far back as the log is kept. That its data files still exist is not said.

        Raises:
            VersionGone: the log no longer leads to it, or it does not exist.
        """
        checkpoint = self._checkpoint_before(version)
        snapshot = Snapshot()
        if checkpoint is not None:
            self._apply_checkpoint(snapshot, checkpoint)
        while snapshot.version < version:
            actions = self.read_entry(snapshot.version + 1)
            if actions is None:
                raise VersionGone(
                    f"version {version} cannot be read: {entry_path(snapshot.version + 1)} does not exist"
                )
            snapshot.apply(snapshot.version + 1, actions)
        return snapshot

    def readable_versions(self) -> range:
        """Return the versions that can be read: those that the log leads to, and whose files vacuum keeps.

        The log leads from its beginning, or its first whole checkpoint, to the newest version. Lists its beginning and
        what came after the last checkpoint. What lies between must be there: versions follow each other, and log
        clean-up deletes from the beginning on.

        Raises:
            Fatal: there are entries, but nothing leads to them.
        """
        first = self._first_readable()
        if first is None:
            return range(0)
        since = max(first, self.last_checkpoint())
        newest = max(since, self._newest_after(since))
        kept = oldest_version(self._store)
        # One beyond the newest was announced of a table that was here before.
        return range(first if kept is None or kept.version > newest else max(first, kept.version), newest + 1)

    def read_entry(self, version: int) -> list[Action] | None:
        """Return the actions of one version, or None when the version does not exist (yet)."""
        body = self._read(entry_path(version))
        return None if body is None else decode_actions(body)

    def last_checkpoint(self) -> int:
        """Return the version of the checkpoint that readers begin with; -1 when none is named."""
        checkpoint = self._last_checkpoint()
        return -1 if checkpoint is None else checkpoint.version

    def append(self, version: int, actions: Iterable[Action]) -> None:
        """Write the entry of `version`.

        Raises:
            VersionTaken: the version exists. Nothing was changed.
        """
        try:
            obstore.put(self._store, entry_path(version), encode_actions(actions), mode="create", use_multipart=False)
        except obstore.exceptions.AlreadyExistsError as error:
            raise VersionTaken(version) from error

    def _read(self, path: str) -> bytes | None:
        try:
            return bytes(obstore.get(self._store, path).bytes())
        except FileNotFoundError:
            return None

    def _checkpoint_before(self, version: int) -> _LastCheckpoint | None:
        """Return the newest whole checkpoint of the version or one before it."""
        for since in (*(version - back for back in _LOOK_BACK_VERSIONS if back < version), None):
            offset = None if since is None else entry_path(since)
            found: dict[_LastCheckpoint, int] = {}
            for name in self._log_names(offset, entry_path(version + 1)):
                match = _CHECKPOINT.fullmatch(name)
                if match is not None and int(match[1]) <= version:
                    checkpoint = _LastCheckpoint(int(match[1]), None if match[2] is None else int(match[2]))
                    found[checkpoint] = found.get(checkpoint, 0) + 1
            whole = [each for each, parts in found.items() if parts == (each.parts or 1)]
            if whole:
                return max(whole, key=lambda each: each.version)
        return None

    def _first_readable(self) -> int | None:
        """Return the first version with an entry and, unless it is 0, a whole checkpoint at or before it."""
        names: Iterable[str] = self._log_names(None, f"{LOG_DIR}/:")  # behind everything that begins with a digit
        if isinstance(self._store, LocalStore):  # which lists in no order
            names = sorted(names)
        parts: dict[tuple[str, str | None], int] = {}
        leads, earliest = False, -1
        for name in names:
            version = _entry_version(name)
            if version == 0 or (version > 0 and leads):
                return version
            if version > 0 and earliest < 0:
                earliest = version
            if (match := _CHECKPOINT.fullmatch(name)) is not None:
                checkpoint = match[1], match[2]
                parts[checkpoint] = parts.get(checkpoint, 0) + 1
                leads |= parts[checkpoint] == int(match[2] or 1)
        if earliest < 0:
            return None
        raise Fatal(f"the table's log begins with {entry_path(earliest)}, and no whole checkpoint leads there")

    def _log_names(self, offset: str | None, end: str) -> Iterator[str]:
        """Yield the names of the log's files after `offset`, and at least all those before `end`."""
        lists_in_order = not isinstance(self._store, LocalStore)
        for page in obstore.list(self._store, f"{LOG_DIR}/", offset=offset):
            for item in page:
                if lists_in_order and item["path"] > end:
                    return
                yield item["path"].rpartition("/")[2]

    def _last_checkpoint(self) -> _LastCheckpoint | None:
        body = self._read(LAST_CHECKPOINT_PATH)
        return None if body is None else msgspec.json.decode(body, type=_LastCheckpoint)

    def _apply_checkpoint(self, snapshot: Snapshot, checkpoint: _LastCheckpoint) -> None:
        version, parts = checkpoint.version, checkpoint.parts
        stem = f"{LOG_DIR}/{version:020d}.checkpoint"
        paths = (
            [f"{stem}.parquet"]
            if parts is None
            else [f"{stem}.{part:010d}.{parts:010d}.parquet" for part in range(1, parts + 1)]
        )
        for path in paths:
            body = self._read(path)
            if body is None:
                raise Fatal(f"the table's log names checkpoint {path}, which does not exist")
            snapshot.apply_unordered(_checkpoint_actions(body))
        snapshot.version = version

    def _apply_entries_after(self, snapshot: Snapshot) -> None:
        newest = self._newest_after(snapshot.version)
        for version in range(snapshot.version + 1, newest + 1):
            actions = self.read_entry(version)
            if actions is None:
                raise Fatal(f"the table's log lacks {entry_path(version)}, although version {newest} exists")
            snapshot.apply(version, actions)

    def _newest_after(self, version: int) -> int:
        """Return the newest version that has an entry, if it is newer than `version`; else -1."""
        offset = entry_path(version) if version >= 0 else None
        newest = -1
        for page in obstore.list(self._store, f"{LOG_DIR}/", offset=offset):
            for item in page:
                newest = max(newest, _entry_version(item["path"]))
        return newest


def _entry_version(path: str) -> int:
    """Return the version that a path of the log names as a JSON entry, else -1."""
    stem, dot, suffix = path.rpartition("/")[2].partition(".")
    is_entry = dot == "." and suffix == "json" and len(stem) == _VERSION_DIGITS and stem.isdigit()
    return int(stem) if is_entry else -1


_CHECKPOINT_COLUMNS: Final = ["protocol", "metaData", "txn", "add"]


def _checkpoint_actions(body: bytes) -> Iterable[Action]:
    """Yield the actions of a checkpoint that describe live state: its `remove`s are tombstones for vacuum only."""
    file = pq.ParquetFile(io.BytesIO(body))
    columns = [name for name in _CHECKPOINT_COLUMNS if name in file.schema_arrow.names]
    for batch in file.iter_batches(columns=columns):
        for row in batch.to_pylist(maps_as_pydicts="strict"):
            action = {name: _without_nulls(value) for name, value in row.items() if value is not None}
            if action:
                yield msgspec.convert(action, Action)


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(inner) if key == "deletionVector" else inner
        for key, inner in value.items()
        if inner is not None
    }
