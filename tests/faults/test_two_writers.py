"""Two writer processes share a pipeline: one is killed and comes back while partitions move; both see new fields."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
from debezium_events import event_key
from delta_reading import open_table
from hot_key_load import HotKeyLoad
from pinned_table import check_offset_chain
from tcp_proxy import TcpProxy, is_log_entry
from topic_pipeline import TopicPipeline
from waiting import wait_until
from writer_process import WriterProcess

from cdc_shared.kafka.topics import partition_for

pytestmark = pytest.mark.faults

PARTITIONS = 4
KILLS = 3
ROUNDS = 3
DOCUMENTS = 200
CHANGES_PER_S = 300
BATCH_S = 0.1
TIMEOUT_S = 60.0
SESSION_TIMEOUT_S = 6.0
"""The least that Kafka's brokers allow unless told otherwise: so long do a killed writer's partitions wait."""


@pytest.fixture
def shared(new_topic_pipeline: Callable[..., TopicPipeline]) -> TopicPipeline:
    pipeline = new_topic_pipeline(start=False, partitions=PARTITIONS, max_seconds=BATCH_S)
    pipeline.items.make_topic()
    pipeline.publish()
    return pipeline


def start(pipeline: TopicPipeline, name: str, **environment: str) -> None:
    """Start the writer of this name, again after it was killed. It goes on with its own cache."""
    environment = {"WRITER_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S)} | environment
    pipeline.start_writer(environment, ready=False, name=name)


def await_shared(pipeline: TopicPipeline) -> None:
    """Wait until both writers have committed something since they last got partitions."""
    for name, writer in pipeline.writers.items():
        wait_until(partial(_has_committed_since_assigned, writer), TIMEOUT_S, f"{name} commits")


def events(writer: WriterProcess, name: str) -> list[int]:
    """Where in the writer's log the events of this name are."""
    writer.check_alive()
    return [number for number, event in enumerate(writer.log_events()) if event.get("event") == name]


def _has_committed_since_assigned(writer: WriterProcess) -> bool:
    assigned, committed = events(writer, "partition assigned"), events(writer, "batch committed")
    return bool(assigned) and bool(committed) and committed[-1] > assigned[-1]


@pytest.mark.timeout(600)
def test_one_of_two_writers_is_killed_and_comes_back(shared: TopicPipeline, rng: random.Random) -> None:
    """Attacks I1, I2, I4, I5, I14: the group rebalances under load, with batches in hand."""
    load = HotKeyLoad(shared.items, rng)
    start(shared, "a")
    start(shared, "b")
    with load.running(CHANGES_PER_S):
        await_shared(shared)
        for _ in range(KILLS):
            victim = rng.choice("ab")
            (survivor,) = shared.writers.keys() - {victim}
            assigned = partial(events, shared.writers[survivor], "partition assigned")
            before = len(assigned())
            shared.writers[victim].kill()
            load.check_where_it_stands()
            wait_until(lambda: len(assigned()) > before, TIMEOUT_S, "the survivor takes over")  # noqa: B023
            load.check_where_it_stands()
            start(shared, victim)
            await_shared(shared)
            load.check_where_it_stands()
    load.await_equal(TIMEOUT_S)
    commits = check_offset_chain(shared.items.url, shared.stack.object_store)
    dropped = {name: len(events(writer, "batch dropped")) for name, writer in shared.writers.items()}
    print(f"{commits} commits, batches dropped since the last start: {dropped}")


def test_fields_that_are_new_to_both_at_once(shared: TopicPipeline) -> None:
    """Attacks I14: each writer has a batch with a new field in hand when the other's commit changes the schema."""
    items, store = shared.items, shared.stack.object_store
    ids: dict[int, list[int]] = {p: [] for p in range(PARTITIONS)}
    for document_id in range(DOCUMENTS):
        ids[partition_for(event_key(document_id), PARTITIONS)].append(document_id)
    with TcpProxy(shared.stack.s3_endpoint) as proxy:
        start(shared, "a", S3_ENDPOINT=proxy.url)
        start(shared, "b", S3_ENDPOINT=proxy.url)
        wait_until(lambda: all(events(w, "partition assigned") for w in shared.writers.values()), TIMEOUT_S, "shared")
        for round_ in range(ROUNDS):
            held = [proxy.hold(is_log_entry), proxy.hold(is_log_entry)]
            for partition, documents in ids.items():
                value = round_ if partition % 2 else f"text {round_}"
                fields = {f"of_{partition}_{round_}": value, f"mixed_{round_}": value}
                items.update(*({"_id": document_id, **fields} for document_id in documents))
            items.flush()
            for each in held:  # both writers have an entry on its way, for the same version
                assert each.happened.wait(TIMEOUT_S)
            for each in held:
                each.release()
            items.await_equal(TIMEOUT_S)
        table = open_table(items.url, store)
        assert table is not None
        wanted = {f"of_{p}_{r}" for p in range(PARTITIONS) for r in range(ROUNDS)} | {
            f"mixed_{r}" for r in range(ROUNDS)
        }
        assert wanted <= {field.name for field in table.schema().fields}
        for name, writer in shared.writers.items():
            assert events(writer, "batch committed"), f"{name} has committed nothing"
        check_offset_chain(items.url, store)


def test_an_unheard_commit_is_found_below_those_of_the_other(shared: TopicPipeline, rng: random.Random) -> None:
    """Attacks I3: the entry is in the store, its writer is cut off before it hears so, and the other one goes on."""
    load = HotKeyLoad(shared.items, rng)
    with TcpProxy(shared.stack.s3_endpoint) as proxy:
        start(shared, "cut off", S3_ENDPOINT=proxy.url)
        start(shared, "other")
        with load.running(CHANGES_PER_S):
            await_shared(shared)
            lost = proxy.lose_answer(is_log_entry, then_cut=True)
            assert lost.happened.wait(TIMEOUT_S)
            unheard = load.check_where_it_stands()
            cut_off = shared.writers["cut off"]
            cut_off.wait_state(shared.name, "retrying", TIMEOUT_S)
            assert load.check_where_it_stands().version > unheard.version, "the other writer does not go on"
            committed = partial(events, cut_off, "batch committed")
            before = len(committed())
            proxy.restore()
            wait_until(lambda: len(committed()) > before + 1, TIMEOUT_S, "it goes on too")
        load.await_equal(TIMEOUT_S)
        assert not events(shared.writers["cut off"], "batch dropped"), "its own commit was taken for another's"
        check_offset_chain(shared.items.url, shared.stack.object_store)
