"""How the schema of a collection's table came to be. Blocks on the object store."""

import json

from cdc_shared.delta.schema_history import read_schema_history
from cdc_shared.delta.table_location import table_location
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import store_errors
from control_plane.models.data_quality import SchemaHistory, SchemaVersion
from control_plane.problems import Problem


def schema_history(
    spec: PipelineSpec, collection: str, stores: ObjectStoreSettings, *, history_table: bool
) -> SchemaHistory:
    """The history of the schema of a collection's table, or of its history table.

    Raises `Problem` 404 when there is no table yet, or one that was made before schemas had a history.
    """
    location = table_location(spec, stores, Collection(spec.source.database, collection), history=history_table)
    with store_errors(f"reading {location.url}"):
        changes = read_schema_history(location.store)
    if not changes:
        raise Problem(404, "no_table", f"there is no table {location.url} yet: its first event makes it")
    return SchemaHistory(
        table=location.url,
        complete=changes[0].previous is None,
        versions=[SchemaVersion.of(each) for each in changes],
        columns=json.loads(changes[-1].schema),
    )
