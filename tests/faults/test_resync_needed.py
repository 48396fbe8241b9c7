"""Attacks I2: Kafka no longer holds what a table needs next: the pipeline stops and says so, nothing is dropped."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions
from hot_key_load import HotKeyLoad
from pinned_table import PinnedTable, read_pinned
from tcp_proxy import TcpProxy
from topic_pipeline import TopicPipeline
from waiting import wait_until
from writer_process import asleep

from cdc_shared.delta.offsets import ChangeTopic

pytestmark = pytest.mark.faults

TIMEOUT_S = 60.0
CHANGES = 200
FETCH_WAIT_S = 1.0
"""Brokers hold a consumer's fetch for 0.5 s at most."""


@dataclass
class Pair:
    """A pipeline that something happens to, and another one in the same process that must not notice."""

    victim: TopicPipeline
    neighbour: TopicPipeline
    load: HotKeyLoad
    topic: ChangeTopic = field(init=False)
    before: PinnedTable = field(init=False)

    def fill(self) -> None:
        """Bring rows into both tables; remember how the victim's is."""
        self.load.send(CHANGES)
        self.load.end_with_a_row()
        self.neighbour.items.insert(*({"_id": n} for n in range(10)))
        self.before = self.load.await_equal(TIMEOUT_S)
        self.neighbour.items.await_equal(TIMEOUT_S)
        self.topic = self.load.topic

    def table(self) -> PinnedTable:
        """The victim's table now, at the offsets in the topic that it was filled from."""
        return read_pinned(self.victim.items.url, self.victim.stack.object_store, self.topic)

    def check_resync_needed(self) -> None:
        """The victim says so everywhere; the neighbour goes on."""
        writer, name = self.victim.writer, self.victim.name
        reason = writer.wait_state(name, "resync_needed", TIMEOUT_S)
        assert "resync needed" in str(reason)
        assert self.victim.items.name in str(reason)
        health = writer.get("/health")
        assert health.status_code == 503
        assert health.json()["pipelines"][name] == {"state": "resync_needed", "reason": reason}
        assert writer.metric("cdc_pipeline_state", pipeline=name, state="resync_needed") == 1
        logged = [e for e in writer.log_events() if e.get("event") == "pipeline stopped" and e.get("pipeline") == name]
        assert [event["reason"] for event in logged] == [reason]
        self.check_neighbour_runs()

    def check_neighbour_runs(self) -> None:
        self.neighbour.items.insert({"_id": "afterwards"})
        self.neighbour.items.await_equal(TIMEOUT_S)


@pytest.fixture
def pair(new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random) -> Pair:
    neighbour, victim = new_topic_pipeline(start=False), new_topic_pipeline(start=False)
    neighbour.run_beside(victim)
    neighbour.items.make_topic()
    neighbour.publish()
    return Pair(victim, neighbour, HotKeyLoad(victim.items, rng))


def make_again(pair: Pair, changes: int) -> None:
    """Delete the change topic, make it again under its name, and put `changes` new events into it."""
    admin, items = pair.victim.admin, pair.victim.items
    admin.delete_topics([items.topic])[items.topic].result(TIMEOUT_S)
    wait_until(lambda: items.topic not in admin.list_topics(timeout=TIMEOUT_S).topics, TIMEOUT_S, "the topic is gone")
    items.make_topic()
    items.insert(*({"_id": f"new {n}"} for n in range(changes)))
    items.flush()


def make_again_empty(pair: Pair) -> None:
    """Its end lies before the table's offset."""
    make_again(pair, 0)


def make_again_shorter(pair: Pair) -> None:
    make_again(pair, 5)


def make_again_longer(pair: Pair) -> None:
    """The table's offset exists in the new topic as well, and means something else there."""
    make_again(pair, 3 * CHANGES)


def add_partitions(pair: Pair) -> None:
    """Keys move between partitions from now on."""
    topic = pair.victim.items.topic
    pair.victim.admin.create_partitions([NewPartitions(topic, 3)])[topic].result(TIMEOUT_S)


def expire(pair: Pair, up_to: int) -> None:
    """Kafka's retention drops everything before `up_to`."""
    deleted = pair.victim.admin.delete_records([TopicPartition(pair.victim.items.topic, 0, up_to)])
    for result in deleted.values():
        result.result(TIMEOUT_S)


def expire_unread(pair: Pair) -> None:
    """More changes come, and are dropped before the writer has read them."""
    pair.load.send(CHANGES)
    pair.victim.items.flush()
    expire(pair, pair.before.offsets[0] + CHANGES // 2)


@pytest.mark.parametrize("damage", [make_again_empty, make_again_shorter, make_again_longer, add_partitions])
def test_a_running_writer_stops(pair: Pair, damage: Callable[[Pair], None]) -> None:
    pair.victim.start()
    pair.fill()
    damage(pair)
    pair.check_resync_needed()
    assert pair.table() == pair.before


@pytest.mark.parametrize("damage", [make_again_empty, make_again_longer, add_partitions, expire_unread])
def test_a_writer_that_starts_afterwards_stops(pair: Pair, damage: Callable[[Pair], None]) -> None:
    pair.victim.start()
    pair.fill()
    pair.victim.writer.stop()
    damage(pair)
    pair.victim.start_writer(ready=False)
    pair.check_resync_needed()
    assert pair.table() == pair.before


def test_a_writer_that_waited_longer_than_kafka_keeps_stops(pair: Pair) -> None:
    """The store is away until Kafka has dropped what comes after the batch in hand. That batch is whole."""
    with TcpProxy(pair.victim.stack.s3_endpoint) as proxy:
        pair.victim.start(environment={"S3_ENDPOINT": proxy.url})
        pair.fill()
        proxy.cut()
        pair.load.send(5)
        pair.load.end_with_a_row()
        pair.victim.writer.wait_state(pair.victim.name, "retrying", TIMEOUT_S)
        with asleep(pair.victim.writer):  # else it may have fetched the records by the time that they expire
            time.sleep(FETCH_WAIT_S)  # a fetch under way is answered by then
            expire_unread(pair)
        proxy.restore()
        pair.check_resync_needed()
    assert pair.load.check_where_it_stands().version <= pair.before.version + 1


def test_records_that_expire_after_they_were_applied_are_not_missed(pair: Pair) -> None:
    pair.victim.start()
    pair.fill()
    expire(pair, pair.before.offsets[0])
    pair.victim.writer.stop()
    pair.victim.start_writer()
    pair.load.send(CHANGES)
    pair.load.await_equal(TIMEOUT_S)
    pair.check_neighbour_runs()


def test_publishing_the_spec_again_does_not_talk_a_pipeline_out_of_it(pair: Pair) -> None:
    pair.victim.start()
    pair.fill()
    make_again_longer(pair)
    pair.check_resync_needed()
    pair.victim.publish()
    wait_until(
        lambda: len([e for e in pair.victim.writer.log_events() if e.get("event") == "pipeline stopped"]) == 2,
        TIMEOUT_S,
        "it has stopped again",
    )
    assert pair.victim.writer.pipeline_state(pair.victim.name)[0] == "resync_needed"
    assert pair.table() == pair.before
