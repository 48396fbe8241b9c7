"""Where a pipeline's tables are."""

from collections.abc import Mapping
from dataclasses import dataclass

from obstore.store import ObjectStore

from cdc_shared.models.collection import Collection
from cdc_shared.models.common import HISTORY_SUFFIX, PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store, table_url


@dataclass(frozen=True, slots=True)
class TableLocation:
    """Where a table is: its URL, the store whose root it is, and delta-rs's options for the same store."""

    url: str
    store: ObjectStore
    storage_options: Mapping[str, str]


def table_location(
    spec: PipelineSpec, stores: ObjectStoreSettings, collection: Collection, *, history: bool = False
) -> TableLocation:
    """Return where a collection's table is, or its history. Makes no request."""
    name = collection.name + HISTORY_SUFFIX * history
    url = table_url(stores.root_for(spec.sink.root), spec.name, collection.database, name)
    return TableLocation(url, open_store(url, stores), stores.storage_options())
