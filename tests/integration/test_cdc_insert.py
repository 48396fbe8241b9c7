"""Inserts, as a snapshot reads them and as a stream brings them, become rows on the object store."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from topic_pipeline import TopicPipeline

pytestmark = pytest.mark.integration


def test_inserted_documents_are_rows(topic_pipeline: TopicPipeline) -> None:
    topic_pipeline.items.insert(*({"_id": n, "name": f"item {n}", "price": n / 4} for n in range(500)))
    topic_pipeline.items.await_equal()


def test_a_snapshot_and_the_stream_after_it_give_one_row_a_document(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    items.insert(*({"_id": n, "name": f"snapshot {n}"} for n in range(100)), op="r")
    items.insert(*({"_id": n, "name": f"stream {n}"} for n in range(100, 200)))
    items.insert(*({"_id": n, "name": f"snapshot {n}"} for n in range(50)), op="r")  # a snapshot that started over
    items.await_equal()
    assert topic_pipeline.writer.metric("cdc_events_total", pipeline=topic_pipeline.name, op="r") == 150
    assert topic_pipeline.writer.metric("cdc_events_total", pipeline=topic_pipeline.name, op="c") == 100


def test_later_documents_may_bring_fields_and_types_of_their_own(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    items.insert({"_id": 1, "a": 1, "n": None})
    items.await_equal()
    items.insert({"_id": 2, "b": {"c": [1, 2]}, "n": "typed now"})
    items.await_equal()
    items.insert({"_id": 3, "a": "no longer a number", "b": {"c": [1, 2], "d": True}}, {"_id": 4, "a": 2.5, "b": 7})
    items.await_equal()


def test_each_collection_has_a_table_of_its_own(new_topic_pipeline: Callable[..., TopicPipeline]) -> None:
    pipeline = new_topic_pipeline(collections=("orders", "Kunden & Städte"))
    for n, collection in enumerate(pipeline.collections.values()):
        collection.insert(*({"_id": each, "n": n} for each in range(20 + n)))
    for collection in pipeline.collections.values():
        collection.await_equal()


def test_the_partitions_of_a_topic_come_together_in_one_table(new_topic_pipeline: Callable[..., TopicPipeline]) -> None:
    pipeline = new_topic_pipeline(partitions=3)
    pipeline.items.insert(*({"_id": f"key {n}", "n": n} for n in range(600)))
    pipeline.items.update(*({"_id": f"key {n}", "n": -n} for n in range(0, 600, 2)))
    pipeline.items.await_equal()
    assert set(pipeline.offsets("items")) == {0, 1, 2}
