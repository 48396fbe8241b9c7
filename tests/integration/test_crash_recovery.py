"""A writer that dies without a word: its successor goes on where the table stands.

Twenty random moments under load are in `tests/faults/test_kill_writer.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hot_key_load import HotKeyLoad
from pinned_table import check_offset_chain
from tcp_proxy import TcpProxy, is_log_entry
from topic_pipeline import TopicPipeline
from waiting import wait_until
from writer_process import WriterProcess

pytestmark = pytest.mark.integration

TIMEOUT_S = 60.0
RESTART_S = 15.0
"""Well under the session's 30 s: a writer with a name of its own need not wait for the end of its last session."""
NAMED = {"WRITER_INSTANCE_ID": "only"}


def test_a_batch_in_hand_is_read_again_after_a_crash(
    new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random
) -> None:
    pipeline = new_topic_pipeline(start=False)
    load = HotKeyLoad(pipeline.items, rng)
    with TcpProxy(pipeline.stack.s3_endpoint) as proxy:
        pipeline.start(NAMED | {"S3_ENDPOINT": proxy.url})
        load.send(300)
        stands = load.await_equal(TIMEOUT_S)
        held = proxy.hold(is_log_entry)
        load.send(300)
        pipeline.items.flush()
        assert held.happened.wait(TIMEOUT_S)
        pipeline.writer.kill()  # its files are in the store, its log entry is not
    assert load.check_where_it_stands().version == stands.version
    pipeline.start_writer(NAMED)
    load.await_equal(RESTART_S)
    check_offset_chain(pipeline.items.url, pipeline.stack.object_store)


def test_a_commit_that_the_dead_writer_never_heard_of_counts(
    new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random
) -> None:
    pipeline = new_topic_pipeline(start=False)
    load = HotKeyLoad(pipeline.items, rng)
    with TcpProxy(pipeline.stack.s3_endpoint) as proxy:
        pipeline.start(NAMED | {"S3_ENDPOINT": proxy.url})
        load.send(300)
        stands = load.await_equal(TIMEOUT_S)
        lost = proxy.lose_answer(is_log_entry, then_cut=True)
        load.send(300)
        pipeline.items.flush()
        assert lost.happened.wait(TIMEOUT_S)
        pipeline.writer.kill()
    assert load.check_where_it_stands().version == stands.version + 1
    pipeline.start_writer(NAMED)
    load.await_equal(RESTART_S)
    check_offset_chain(pipeline.items.url, pipeline.stack.object_store)


def test_a_collection_that_came_while_the_writer_was_dead_is_taken_up(
    new_topic_pipeline: Callable[..., TopicPipeline],
) -> None:
    """Kafka gives a member of the same name its old partitions back; those of new topics must come as well."""
    pipeline = new_topic_pipeline(start=False, collections=("items", "later"))
    items, later = pipeline.collections.values()
    items.make_topic()
    pipeline.publish()
    pipeline.start_writer(NAMED)
    items.insert({"_id": 1})
    items.await_equal()
    pipeline.writer.kill()
    later.make_topic()
    later.insert({"_id": 2})
    items.update({"_id": 1, "v": 1})
    pipeline.start_writer(NAMED)
    items.await_equal(RESTART_S)
    later.await_equal(RESTART_S)


def test_another_writer_takes_over_when_the_dead_ones_session_ends(
    new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random, tmp_path: Path
) -> None:
    short_session = {"WRITER_SESSION_TIMEOUT_S": "6"}  # the least that brokers allow unless told otherwise
    pipeline = new_topic_pipeline(start=False)
    load = HotKeyLoad(pipeline.items, rng)
    pipeline.start(short_session)
    other = WriterProcess(pipeline.stack, pipeline.specs_topic, tmp_path / "other", short_session)
    try:
        other.wait_ready()
        load.send(300)
        load.await_equal(TIMEOUT_S)
        owner, heir = (pipeline.writer, other) if _commits(pipeline.writer) else (other, pipeline.writer)
        assert not _commits(heir), "one partition has one owner"
        owner.kill()
        load.send(300)
        wait_until(lambda: _commits(heir) > 0, TIMEOUT_S, "the other writer has taken over")
        wait_until(
            lambda: load.changes.is_applied(load.check_where_it_stands().offsets), TIMEOUT_S, "every change is applied"
        )
        check_offset_chain(pipeline.items.url, pipeline.stack.object_store)
    finally:
        if other.alive:
            other.stop()


def _commits(writer: WriterProcess) -> int:
    return sum(event.get("event") == "batch committed" for event in writer.log_events())
