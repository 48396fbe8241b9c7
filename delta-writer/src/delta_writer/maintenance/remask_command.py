"""`delta-writer remask`: ask for the masks of the rules in force in all rows of a pipeline's tables.

The command decides nothing about rows and writes none: it leaves the request in the table's properties, and the writer
that maintains the table carries it out.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping

import msgspec

from cdc_shared.delta.actions import Action
from cdc_shared.delta.foreign_commits import ENGINE
from cdc_shared.delta.log import DeltaLog, VersionTaken
from cdc_shared.delta.pipeline_tables import collections_with_tables
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_location import TableLocation, table_location
from cdc_shared.delta.table_metadata import HISTORY, MODE, masked_by
from cdc_shared.errors import Fatal
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import store_errors, table_url
from delta_writer.maintenance.remask import PURGE, REMASK, made_by, missing_masks, plain_in_table

COPY_ON_WRITE = "copy_on_write"


def remask(
    stores: ObjectStoreSettings,
    spec: PipelineSpec,
    versions: Mapping[int, QualitySpec],
    collection: str | None,
    say: Callable[[str], None],
    *,
    now_ms: int,
    dry_run: bool,
    confirm: Callable[[], None],
) -> None:
    """Ask for it in the tables of one collection, or of all, histories too. `versions` are the pipeline's rules.

    Tables where nothing is plain, and those that were asked already, are left alone. `confirm` is called before the
    others are asked, and raises when that is not to be.

    Raises:
        Fatal: there is no such table, or one cannot be masked as it is stored. Then nothing was asked for.
    """
    target = spec.quality
    if target.version == 0:
        raise Fatal(f"pipeline {spec.name} has no rules: publish them first")
    if spec.sink.mode == COPY_ON_WRITE:
        raise Fatal(
            "tables with sink.mode copy_on_write are not rewritten: resync the collection, which brings every row "
            "under the rules in force; its older versions go when maintenance.retention_days have passed"
        )
    tables = list(_tables(stores, spec, collection))
    if not tables:
        raise _no_table(stores, spec, collection)
    asks = []
    for name, location, state in tables:
        summary, is_to_ask = _summary(name, location, state, target, versions)
        say(summary)
        asks += [location] * is_to_ask
    if dry_run or not asks:
        say("nothing was asked for" + " (--dry-run)" * dry_run)
        return
    confirm()
    for location in asks:
        _ask(location, target.version, now_ms)
    say("asked for; the pipeline's writer does it in the background, within its budget: see its status and log")


def _no_table(stores: ObjectStoreSettings, spec: PipelineSpec, collection: str | None) -> Fatal:
    database = spec.source.database
    where = f"under {table_url(stores.root_for(spec.sink.root), spec.name, database, '').rstrip('/')}"
    if collection is None:
        return Fatal(f"there is no table of database {database} {where}")
    return Fatal(
        f"there is no table of {collection} {where}; there are tables of: "
        f"{', '.join(each.name for each in collections_with_tables(stores, spec)) or 'no collection'}"
    )


def _tables(
    stores: ObjectStoreSettings, spec: PipelineSpec, collection: str | None
) -> Iterator[tuple[str, TableLocation, Snapshot]]:
    """Yield the tables, each collection's history behind its table."""
    named = [Collection(spec.source.database, collection)] if collection else collections_with_tables(stores, spec)
    for where in named:
        for history in (False, True):
            location = table_location(spec, stores, where, history=history)
            with store_errors(f"reading the log of {location.url}"):
                state = DeltaLog(location.store).load()
            # Where a history would be may be the table of a collection of that name.
            if state.metadata is not None and (state.metadata.configuration.get(MODE) == HISTORY) == history:
                yield where.name, location, state


def _summary(
    collection: str, location: TableLocation, state: Snapshot, target: QualitySpec, versions: Mapping[int, QualitySpec]
) -> tuple[str, bool]:
    """Say what would be done, and whether there is anything to ask for. Raises `NotMaskable`."""
    if state.metadata is None:
        raise ValueError("a table without metadata")
    asked = state.metadata.configuration
    if asked.get(REMASK) == str(target.version):
        return f"{location.url}: asked for already; its masking is under way or waits for the pipeline's writer", False
    if asked.get(PURGE) and masked_by(state.metadata) >= target.version:
        return f"{location.url}: its rows are masked; the older versions are being deleted", False
    files = list(state.files.values())
    with store_errors(f"reading {location.url}"):
        made = made_by(location.store, files)
        plain = plain_in_table(location.store, state.metadata, collection, target, versions, made)
    if not plain:
        return f"{location.url}: nothing is plain that version {target.version} of the rules masks", False
    missing = missing_masks(collection, target, versions, made)
    fields = sorted(
        {rule.path for version in made for rule in missing.by_version.get(version, ()) if hasattr(rule, "path")}
    )
    what = f"masks {', '.join(fields)} in {len(files)} data files" if fields else "no row lacks a mask"
    return (
        f"{location.url}: {what}; then version {state.version} and all before it are deleted for good: readers of "
        "older versions and time travel lose them"
    ), True


def _ask(location: TableLocation, version: int, now_ms: int) -> None:
    """Put the request into the table's properties, as the newest version."""
    log = DeltaLog(location.store)
    while True:
        with store_errors(f"committing to {location.url}"):
            state = log.load()
            if state.metadata is None or masked_by(state.metadata) > version:
                raise Fatal(f"{location.url} has the masks of a later version of the rules: publish the pipeline again")
            configuration = {**state.metadata.configuration, REMASK: str(version)}
            info = {
                "timestamp": now_ms,
                "operation": "CDC ASK FOR MASKS",
                "operationParameters": {"rulesVersion": str(version)},
                "engineInfo": ENGINE,
                "txnId": str(uuid.uuid4()),
            }
            changed = msgspec.structs.replace(state.metadata, configuration=configuration)
            try:
                log.append(state.version + 1, [Action(commit_info=info), Action(meta_data=changed)])
                return
            except VersionTaken:
                continue
