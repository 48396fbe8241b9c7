"""A range of events that changes no row is not read again for ever: its offsets are committed too."""

from __future__ import annotations

import pytest
from topic_pipeline import TopicPipeline
from waiting import wait_until

pytestmark = pytest.mark.integration


def _send_what_changes_nothing(pipeline: TopicPipeline) -> None:
    items = pipeline.items
    for _ in range(10):
        items.lost_update("kept")
        items.delete("never seen")
        items.send(b"rubbish", b"rubbish")
    items.flush()


def _read_up_to(pipeline: TopicPipeline, offset: int) -> None:
    """The 10 dead letters are the last records: once they are counted, everything before them was read."""
    writer = pipeline.writer
    wait_until(lambda: writer.metric("cdc_dead_letters_total", pipeline=pipeline.name) >= 10, 20, "everything was read")
    assert pipeline.offsets("items") == {0: offset}, "no commit of its own for what changes no row"


def test_offsets_of_what_changes_nothing_ride_with_the_next_change(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    items.insert({"_id": "kept", "v": 1})
    items.await_equal()
    _send_what_changes_nothing(topic_pipeline)
    _read_up_to(topic_pipeline, 1)
    items.update({"_id": "kept", "v": 2})
    items.await_equal()
    assert topic_pipeline.offsets("items") == {0: 1 + 10 * 4 + 1}


def test_a_stop_commits_offsets_of_what_changes_nothing(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    items.insert({"_id": "kept", "v": 1})
    items.await_equal()
    _send_what_changes_nothing(topic_pipeline)
    _read_up_to(topic_pipeline, 1)
    topic_pipeline.writer.stop()
    assert topic_pipeline.offsets("items") == {0: 1 + 10 * 4}
    items.assert_equal()


@pytest.mark.timeout(150)
def test_when_idle_they_are_committed_within_about_a_minute(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    items.insert({"_id": "kept", "v": 1})
    items.await_equal()
    _send_what_changes_nothing(topic_pipeline)
    _read_up_to(topic_pipeline, 1)
    wait_until(lambda: topic_pipeline.offsets("items") == {0: 1 + 10 * 4}, 90, "idle offsets are committed", poll_s=1)
    items.assert_equal()
