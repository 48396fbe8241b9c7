"""The object store goes away under load, and answers get lost: the writer waits, drops nothing, doubles nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hot_key_load import HotKeyLoad
from kafka_reading import end_offset, records_since
from pinned_table import check_offset_chain
from private_object_store import PrivateObjectStore
from stack_endpoints import Stack
from tcp_proxy import TcpProxy, is_log_entry
from topic_pipeline import TopicPipeline
from trial_pipeline import trial_name
from waiting import wait_until

from cdc_shared.kafka.topics import DEAD_LETTERS_TOPIC

pytestmark = pytest.mark.faults

OUTAGE_S = 30.0
CHANGES_PER_S = 200
TIMEOUT_S = 60.0


@pytest.fixture
def private_store(stack: Stack, tmp_path: Path) -> Iterator[PrivateObjectStore]:
    """A running object store that the test may kill."""
    store = PrivateObjectStore(stack, tmp_path / "store")
    try:
        store.start()
        yield store
    finally:
        store.kill()


@pytest.fixture
def stored_privately(
    private_store: PrivateObjectStore, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[TopicPipeline]:
    """A running pipeline whose tables are in the private store."""
    name = trial_name(request.node.name)
    pipeline = TopicPipeline(private_store.stack, name, private_store.stack.tests_root, tmp_path / name)
    try:
        pipeline.start()
        yield pipeline
    finally:
        pipeline.close()


def test_writer_waits_out_a_store_that_is_stopped(
    stored_privately: TopicPipeline, private_store: PrivateObjectStore, rng: random.Random
) -> None:
    """Attacks I1, I2, I13."""
    pipeline, writer = stored_privately, stored_privately.writer
    load = HotKeyLoad(pipeline.items, rng)
    load.send(300)
    load.await_equal(TIMEOUT_S)
    member = _member_id(pipeline)
    dead_letters_end = end_offset(pipeline.stack.kafka, DEAD_LETTERS_TOPIC)
    with load.running(CHANGES_PER_S):
        before = load.check_where_it_stands()
        private_store.kill()
        stopped_at = time.monotonic()
        reason = writer.wait_state(pipeline.name, "retrying", TIMEOUT_S)
        assert pipeline.items.url in str(reason)
        assert writer.get("/ready").status_code == 503
        assert writer.get("/health").is_success, "an outage of the store is nothing that a restart of the writer cures"
        time.sleep(max(0.0, stopped_at + OUTAGE_S - time.monotonic()))  # the length of the outage is the test
        waits = [event["wait_s"] for event in writer.log_events() if event.get("event") == "waiting to try again"]
        assert writer.metric("cdc_retries_total", pipeline=pipeline.name) == len(waits) >= 4
        assert waits[-1] > 4 * waits[0], f"no backoff: {waits}"
        assert writer.metric("cdc_consumer_paused", pipeline=pipeline.name) == 1
        private_store.start()
        writer.wait_state(pipeline.name, "running", TIMEOUT_S)
        assert writer.metric("cdc_consumer_paused", pipeline=pipeline.name) == 0
    after = load.await_equal(TIMEOUT_S)
    assert after.version > before.version
    assert writer.get("/ready").is_success
    assert _member_id(pipeline) == member, "the writer left its group"
    assert _dead_letters(pipeline, dead_letters_end) == []
    assert writer.metric("cdc_dead_letters_total", pipeline=pipeline.name) == 0
    check_offset_chain(pipeline.items.url, pipeline.stack.object_store)


@pytest.mark.parametrize("then_cut", [False, True], ids=["connection breaks", "store stays away for a while"])
def test_put_that_succeeded_unheard_is_not_repeated(
    new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random, then_cut: bool
) -> None:
    """Attacks I3: the store has written the log entry, but the writer does not hear of it."""
    pipeline = new_topic_pipeline(start=False)
    pipeline.items.make_topic()
    pipeline.publish()
    load = HotKeyLoad(pipeline.items, rng)
    with TcpProxy(pipeline.stack.s3_endpoint) as proxy:
        writer = pipeline.start_writer({"S3_ENDPOINT": proxy.url})
        with load.running(CHANGES_PER_S):
            for _ in range(4):  # the first of them makes the table
                lost = proxy.lose_answer(is_log_entry, then_cut=then_cut)
                assert lost.happened.wait(TIMEOUT_S)
                unheard = load.check_where_it_stands()
                if then_cut:
                    writer.wait_state(pipeline.name, "retrying", TIMEOUT_S)
                    proxy.restore()
                    writer.wait_state(pipeline.name, "running", TIMEOUT_S)
                wait_until(
                    lambda: load.check_where_it_stands().version > unheard.version,  # noqa: B023
                    TIMEOUT_S,
                    "the writer goes on",
                )
        load.await_equal(TIMEOUT_S)
        check_offset_chain(pipeline.items.url, pipeline.stack.object_store)


def _member_id(pipeline: TopicPipeline) -> str:
    group = f"cdc-writer.{pipeline.name}"
    members = pipeline.admin.describe_consumer_groups([group])[group].result(TIMEOUT_S).members
    assert len(members) == 1, f"{group} has {len(members)} members"
    return str(members[0].member_id)


def _dead_letters(pipeline: TopicPipeline, since: int) -> list[bytes]:
    keys = [message.key() or b"" for message in records_since(pipeline.stack.kafka, DEAD_LETTERS_TOPIC, since)]
    return [key for key in keys if key.startswith(pipeline.items.topic.encode())]
