"""Requests to the writer of a table, left in the table's properties: it carries them out, who asks writes no row."""

import uuid
from collections.abc import Callable, Iterator, Mapping

import msgspec

from cdc_shared.delta.actions import Action, Metadata
from cdc_shared.delta.foreign_commits import ENGINE
from cdc_shared.delta.log import DeltaLog, VersionTaken
from cdc_shared.delta.pipeline_tables import collections_with_tables
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_location import TableLocation, table_location
from cdc_shared.delta.table_metadata import HISTORY, MODE
from cdc_shared.errors import Fatal
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import store_errors, table_url


def requested_tables(
    stores: ObjectStoreSettings, spec: PipelineSpec, collection: str | None
) -> list[tuple[str, TableLocation, Snapshot]]:
    """Return the tables of one collection, or of all: the collection's name, the place and the newest state of each.

    A collection's history stands behind its table. Raises `Fatal` when there is none.
    """
    tables = list(_tables(stores, spec, collection))
    if not tables:
        raise _no_table(stores, spec, collection)
    return tables


def ask(
    location: TableLocation,
    properties: Callable[[Metadata], Mapping[str, str]],
    operation: str,
    parameters: Mapping[str, str],
    now_ms: int,
) -> None:
    """Put a request into the table's properties, as the newest version. `operation` names it in the log.

    Raises `Fatal` when there is no table, and what `properties` does.
    """
    log = DeltaLog(location.store)
    while True:
        with store_errors(f"committing to {location.url}"):
            state = log.load()
            if state.metadata is None:
                raise Fatal(f"there is no table at {location.url} any more")
            info = {
                "timestamp": now_ms,
                "operation": operation,
                "operationParameters": dict(parameters),
                "engineInfo": ENGINE,
                "txnId": str(uuid.uuid4()),
            }
            configuration = {**state.metadata.configuration, **properties(state.metadata)}
            changed = msgspec.structs.replace(state.metadata, configuration=configuration)
            try:
                log.append(state.version + 1, [Action(commit_info=info), Action(meta_data=changed)])
                return
            except VersionTaken:
                continue


def _tables(
    stores: ObjectStoreSettings, spec: PipelineSpec, collection: str | None
) -> Iterator[tuple[str, TableLocation, Snapshot]]:
    named = [Collection(spec.source.database, collection)] if collection else collections_with_tables(stores, spec)
    for where in named:
        for history in (False, True):
            location = table_location(spec, stores, where, history=history)
            with store_errors(f"reading the log of {location.url}"):
                state = DeltaLog(location.store).load()
            # Where a history would be may be the table of a collection of that name.
            if state.metadata is not None and (state.metadata.configuration.get(MODE) == HISTORY) == history:
                yield where.name, location, state


def _no_table(stores: ObjectStoreSettings, spec: PipelineSpec, collection: str | None) -> Fatal:
    database = spec.source.database
    where = f"under {table_url(stores.root_for(spec.sink.root), spec.name, database, '').rstrip('/')}"
    if collection is None:
        return Fatal(f"there is no table of database {database} {where}")
    return Fatal(
        f"there is no table of {collection} {where}; there are tables of: "
        f"{', '.join(each.name for each in collections_with_tables(stores, spec)) or 'no collection'}"
    )
