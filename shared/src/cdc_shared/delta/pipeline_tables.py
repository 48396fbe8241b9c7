"""Which collections of a pipeline have a table."""

from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.table_metadata import MODE, owner_of
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import directories, open_store, store_errors, table_url


def collections_with_tables(stores: ObjectStoreSettings, spec: PipelineSpec) -> list[Collection]:
    """Return the collections that have a table of their current state, as the tables themselves say, by name.

    Histories are none. Raises `Transient` or `Fatal`.
    """
    root = table_url(stores.root_for(spec.sink.root), spec.name, spec.source.database, "").rstrip("/")
    with store_errors(f"looking for tables under {root}"):
        urls = [f"{root}/{name}" for name in directories(root, stores)]
        found = [DeltaLog(open_store(url, stores)).load().metadata for url in urls]
    owners = [owner_of(each) for each in found if each and each.configuration.get(MODE) == spec.sink.mode]
    return sorted((Collection(each.database, each.collection) for each in owners), key=lambda each: each.name)
