"""Deletes take a document's row away, and only that."""

from __future__ import annotations

import pytest
from topic_pipeline import TopicPipeline

pytestmark = pytest.mark.integration


def test_a_delete_takes_the_row_away(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    items.insert(*({"_id": n, "v": 0} for n in range(200)))
    items.await_equal()
    items.delete(*range(0, 200, 3))
    items.await_equal()


def test_a_document_deleted_and_inserted_again_has_its_new_row(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    items.insert({"_id": "a", "v": 1}, {"_id": "b", "v": 1})
    items.delete("a")  # in the batch of its insert
    items.insert({"_id": "a", "v": 2})
    items.await_equal()
    items.delete("a", "b")  # in a batch after it
    items.insert({"_id": "b", "v": 3})
    items.await_equal()


def test_a_delete_of_what_is_not_there_changes_nothing(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    items.delete("never seen")
    items.insert({"_id": 1, "v": 1})
    items.delete("never seen")
    items.await_equal()


def test_a_table_can_become_empty_and_fill_again(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    items.insert(*({"_id": n, "v": 0} for n in range(50)))
    items.await_equal()
    items.delete(*range(50))
    items.await_equal()
    assert topic_pipeline.rows("items") == {}
    items.insert({"_id": 7, "v": 1})
    items.await_equal()
