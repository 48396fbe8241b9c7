"""Finding a value wherever a lake could hold it: in files as they are, and in Parquet files as they are read."""

from __future__ import annotations

import io
from collections.abc import Iterator

import obstore
import pyarrow.parquet as pq

from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store


def paths_with(root: str, stores: ObjectStoreSettings, *values: str) -> list[str]:
    """The objects under `root` that hold one of the values, compressed or not."""
    found = []
    for path, content in contents(root, stores):
        if any(value in content for value in values):
            found.append(path)
    return found


def contents(root: str, stores: ObjectStoreSettings) -> Iterator[tuple[str, str]]:
    """Every object under `root` as text; of a Parquet file its rows and its statistics too."""
    store = open_store(root, stores)
    for page in obstore.list(store):
        for item in page:
            body = bytes(obstore.get(store, item["path"]).bytes())
            text = body.decode("utf-8", "replace")
            if item["path"].endswith(".parquet"):
                with pq.ParquetFile(io.BytesIO(body)) as file:
                    text += str(file.read().to_pylist()) + str(file.metadata.to_dict())
            yield item["path"], text
