"""A writer told to stop under load finishes what it has in hand; the next one goes on where the table stands."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from change_load import ChangeLoad
from topic_pipeline import TopicPipeline
from waiting import wait_until

pytestmark = pytest.mark.integration

RESTARTS = 3


def _batches(pipeline: TopicPipeline) -> float:
    return pipeline.writer.metric("cdc_batch_rows_count", pipeline=pipeline.name)


def test_stopped_and_started_under_load_nothing_is_lost_or_doubled(
    new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random
) -> None:
    pipeline = new_topic_pipeline(partitions=2, max_seconds=0.2)
    load = ChangeLoad(pipeline.items, rng)
    with load.running(changes_a_second=400):
        for _ in range(RESTARTS):
            wait_until(lambda: _batches(pipeline) >= 2, 20, "batches are committed")
            pipeline.writer.stop()
            pipeline.start_writer()
        wait_until(lambda: _batches(pipeline) >= 2, 20, "batches are committed")
    pipeline.items.await_equal()
    assert load.changes > 500


def test_a_stop_finishes_the_batch_in_hand(new_topic_pipeline: Callable[..., TopicPipeline]) -> None:
    pipeline = new_topic_pipeline(collections=("items", "others"), max_seconds=600, max_rows=150)
    items, others = pipeline.collections.values()
    items.insert(*({"_id": n} for n in range(50)))  # stays open: too few rows, and its time is far
    items.flush()
    others.insert(*({"_id": n} for n in range(200)))
    others.flush()
    # What came later is committed, so what came before has been read.
    wait_until(lambda: pipeline.offsets("others"), 20, "a batch of the other collection is committed")
    assert pipeline.rows("items") == {}
    pipeline.writer.stop()
    items.assert_equal()
    others.assert_equal()
    assert (pipeline.offsets("items"), pipeline.offsets("others")) == ({0: 50}, {0: 200})


def test_a_lost_cache_is_rebuilt_from_the_table(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    items.insert(*({"_id": n, "v": 0} for n in range(300)))
    items.await_equal()
    topic_pipeline.writer.stop()
    topic_pipeline.delete_cache()
    topic_pipeline.start_writer()
    items.update(*({"_id": n, "v": 1} for n in range(0, 300, 2)))
    items.delete(*range(1, 300, 4))
    items.await_equal()
