"""Updates replace a document's row, in Kafka's order."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from change_load import ChangeLoad
from topic_pipeline import TopicPipeline

pytestmark = pytest.mark.integration


def test_an_update_replaces_the_row(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    items.insert(*({"_id": n, "v": 0, "gone": True} for n in range(200)))
    items.await_equal()
    items.update(*({"_id": n, "v": 1} for n in range(0, 200, 3)))
    items.await_equal()


def test_the_last_of_many_changes_in_one_batch_wins(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    items.insert({"_id": "busy", "v": 0})
    for v in range(1, 300):
        items.update({"_id": "busy", "v": v})
    items.await_equal()


def test_an_update_of_a_document_that_is_not_there_makes_its_row(topic_pipeline: TopicPipeline) -> None:
    topic_pipeline.items.update({"_id": "new", "v": 1})
    topic_pipeline.items.await_equal()


def test_an_update_that_lost_its_document_changes_nothing(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    items.insert({"_id": 1, "v": 1}, {"_id": 2, "v": 1})
    items.lost_update(1)
    items.update({"_id": 2, "v": 2})
    items.await_equal()


def test_random_changes_in_small_batches_over_several_partitions(
    new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random
) -> None:
    pipeline = new_topic_pipeline(partitions=2, max_seconds=0.1, max_rows=150)
    ChangeLoad(pipeline.items, rng).run(3_000)
    pipeline.items.await_equal(60)
