"""Whether the place for the tables can be written as the writer writes it, and what is there is this pipeline's."""

import uuid
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import obstore
from obstore import exceptions as obstore_errors
from obstore.store import ObjectStore

from cdc_shared.delta.log import LOG_DIR, DeltaLog
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_metadata import HISTORY, MODE, check_supported, owner_of
from cdc_shared.errors import CdcError, Fatal
from cdc_shared.models.common import HISTORY_SUFFIX, NO_TABLES, PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import local_path, map_store_error, open_store, path_segment, table_url
from control_plane.services.checks.check import Finding, failed, ok

PROBE_PREFIX: Final = ".cdc-preflight-"
LOOKED_AT_TABLES: Final = 100
_STORE_ERRORS: Final = (obstore_errors.BaseError, OSError)


def writable(stores: ObjectStoreSettings, spec: PipelineSpec) -> Finding:
    """An object can be written, and one that exists is not overwritten: what makes a commit atomic. It is deleted."""
    root = stores.root_for(spec.sink.root)
    key = f"{PROBE_PREFIX}{uuid.uuid4().hex}"
    try:
        store = open_store(_existing(root), stores)
        obstore.put(store, key, b"a", mode="create", use_multipart=False)
        try:
            if _overwrites(store, key):
                return failed(
                    f"{root}: the store overwrites an object that must be new (If-None-Match is not honoured), so two "
                    "writers could lose each other's commits: use a store with conditional puts"
                )
        finally:
            obstore.delete(store, key)
    except _STORE_ERRORS as error:
        raise map_store_error(error, f"write to {root}") from None
    return ok(f"{root} can be written, and conditional puts hold")


def target(stores: ObjectStoreSettings, spec: PipelineSpec) -> Finding:
    """Where the tables go there is nothing yet, or tables of this pipeline that the writer will go on with."""
    root = stores.root_for(spec.sink.root)
    place = f"{root.rstrip('/')}/{path_segment(spec.name)}"
    if _is_local(root) and not local_path(place).exists():
        return ok(f"nothing is at {place} yet")
    try:
        tables = _tables(open_store(place, stores), place)
        problems = [
            text for url in tables[:LOOKED_AT_TABLES] if (text := _problem(url, stores, spec, root)) is not None
        ]
    except _STORE_ERRORS as error:
        raise map_store_error(error, f"look at {place}") from None
    if problems:
        return failed(" | ".join(problems[:3]) + (f" | and {len(problems) - 3} more" if len(problems) > 3 else ""))
    if not tables:
        return ok(f"nothing is at {place} yet")
    looked = f"; the first {LOOKED_AT_TABLES} were looked at" if len(tables) > LOOKED_AT_TABLES else ""
    return ok(f"{len(tables)} table{'s' * (len(tables) != 1)} of this pipeline at {place}{looked}")


def _overwrites(store: ObjectStore, key: str) -> bool:
    try:
        obstore.put(store, key, b"b", mode="create", use_multipart=False)
    except obstore_errors.AlreadyExistsError:
        return False
    return True


def _existing(root: str) -> str:
    """`root`, or the nearest directory above it that exists, where opening it would make the directory."""
    if not _is_local(root):
        return root
    path = local_path(root)
    return str(next(each for each in (path, *path.parents) if each.exists()))


def _is_local(root: str) -> bool:
    return urlsplit(root).scheme in ("", "file")


def _tables(store: ObjectStore, place: str) -> list[str]:
    """URLs of all directories where tables of this pipeline may be. Raises `Fatal` for a table where none may be."""
    found = []
    for database in _directories(store, ""):
        if database == LOG_DIR:
            raise Fatal(f"{place} is itself a Delta table: choose another sink.root or name for the pipeline")
        if database in NO_TABLES:
            continue
        for collection in _directories(store, f"{database}/"):
            if collection == LOG_DIR:
                raise Fatal(f"{place}/{database} is itself a Delta table: choose another sink.root, or move it away")
            found.append(f"{place}/{database}/{collection}")
    return found


def _directories(store: ObjectStore, prefix: str) -> list[str]:
    listed = obstore.list_with_delimiter(store, prefix or None)
    return sorted(Path(each).name for each in listed["common_prefixes"])


def _problem(url: str, stores: ObjectStoreSettings, spec: PipelineSpec, root: str) -> str | None:
    """Why the writer would not go on with what is at `url`; None where it would."""
    try:
        table = DeltaLog(open_store(url, stores)).load()
        if table.metadata is None and table.version < 0:
            return f"{url} holds files and no Delta table: move them away"
        _check(table, url, spec, root)
    except CdcError as error:
        return str(error)
    return None


def _check(table: Snapshot, url: str, spec: PipelineSpec, root: str) -> None:
    """Raise the error that the writer would stop with."""
    if table.metadata is None:
        raise Fatal(f"the log of {url} names no schema: the table is damaged; move it away")
    owner = owner_of(table.metadata)
    is_history = table.metadata.configuration.get(MODE) == HISTORY
    name = owner.collection + HISTORY_SUFFIX * is_history
    if owner.pipeline != spec.name or url != table_url(root, spec.name, owner.database, name):
        whose = (
            f"belongs to pipeline {owner.pipeline} ({owner.database}.{owner.collection})"
            if owner.pipeline
            else "was not made by this platform"
        )
        raise Fatal(f"the table at {url} {whose}: move it away, or choose another sink.root or name for the pipeline")
    check_supported(table, owner, HISTORY if is_history else spec.sink.mode, spec.topic_partitions, url)
