"""DuckDB, delta-rs QueryBuilder and Polars read the same rows, the ones that the events describe."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from bson_documents import golden_document, uniform_document
from change_load import ChangeLoad
from delta_reading import READERS, deletion_vectors, open_table, versions
from topic_pipeline import TopicPipeline
from trial_pipeline import difference

from cdc_shared.delta.oldest_version import announce_oldest_version
from cdc_shared.storage.object_store import open_store

pytestmark = pytest.mark.integration

COMMITS = 22
CHECKPOINT_AT = 12


def test_every_reader_sees_the_same_rows(new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random) -> None:
    pipeline = new_topic_pipeline(max_seconds=0.1)
    items, store = pipeline.items, pipeline.stack.object_store
    load = ChangeLoad(items, rng)
    for commit in range(COMMITS):
        load.run(60)
        items.await_applied()
        if commit == CHECKPOINT_AT:
            table = open_table(items.url, store)
            assert table is not None
            table.create_checkpoint()
    assert versions(items.url, store) >= COMMITS
    announce_oldest_version(open_store(items.url, store), COMMITS // 2)
    assert deletion_vectors(items.url, store)
    for name, read in READERS.items():
        told = difference(items.model, pipeline.rows("items", read))
        assert not told, f"{name}:\n{told}"


def test_readers_agree_on_columns_and_values_of_every_type(topic_pipeline: TopicPipeline) -> None:
    items, store = topic_pipeline.items, topic_pipeline.stack.object_store
    documents = [uniform_document(n) for n in range(60)]
    items.insert(*documents, {"_id": "golden", **golden_document()})
    items.await_equal()
    items.delete(*(each["_id"] for each in documents[3:9]))
    items.update(documents[10] | {"int32": "no number"}, documents[11] | {"obj": {"n": 2.5}})
    items.await_equal()
    assert deletion_vectors(items.url, store)
    tables = {name: read(items.url, store) for name, read in READERS.items()}
    names = {name: table.column_names for name, table in tables.items()}
    assert len({tuple(each) for each in names.values()}) == 1, names
    rows = {name: sorted(map(repr, table.to_pylist())) for name, table in tables.items()}
    assert rows["duckdb"] == rows["query_builder"] == rows["polars"]
