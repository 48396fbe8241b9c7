"""A writer that sleeps through its session, while another one takes over: when it wakes up it writes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hot_key_load import HotKeyLoad
from pinned_table import check_offset_chain
from tcp_proxy import TcpProxy, is_log_entry
from topic_pipeline import TopicPipeline
from waiting import wait_until
from writer_process import WriterProcess, asleep

pytestmark = pytest.mark.faults

SESSION_TIMEOUT_S = 6.0
"""The least that Kafka's brokers allow unless told otherwise."""
TIMEOUT_S = 60.0
CHANGES_PER_S = 200
ENVIRONMENT = {"WRITER_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S)}


class Takeover:
    """One table, a first writer behind `proxy`, and a second one that starts when the first has stopped."""

    def __init__(self, pipeline: TopicPipeline, proxy: TcpProxy, directory: Path, rng: random.Random) -> None:
        self.pipeline = pipeline
        self.proxy = proxy
        self.load = HotKeyLoad(pipeline.items, rng)
        self._directory = directory
        self._stack = ExitStack()
        self._others = 0

    def start_first(self, **environment: str) -> WriterProcess:
        return self.pipeline.start_writer(ENVIRONMENT | {"S3_ENDPOINT": self.proxy.url} | environment)

    def start_second(self, **environment: str) -> WriterProcess:
        """A process with a cache of its own, as on another machine."""
        self._others += 1
        second = WriterProcess(
            self.pipeline.stack,
            self.pipeline.specs_topic,
            self._directory / f"other-{self._others}",
            ENVIRONMENT | environment,
        )
        self._stack.callback(second.stop)
        second.wait_ready()
        return second

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def takeover(
    new_topic_pipeline: Callable[..., TopicPipeline], tmp_path: Path, rng: random.Random
) -> Iterator[Takeover]:
    pipeline = new_topic_pipeline(start=False, max_seconds=0.2)
    pipeline.items.make_topic()
    pipeline.publish()
    with TcpProxy(pipeline.stack.s3_endpoint) as proxy:
        takeover = Takeover(pipeline, proxy, tmp_path, rng)
        try:
            yield takeover
        finally:
            takeover.close()


def commits(writer: WriterProcess) -> int:
    """How many batches it says that it has committed."""
    return sum(event.get("event") == "batch committed" for event in writer.log_events())


def await_commits(writer: WriterProcess, at_least: int) -> None:
    wait_until(lambda: commits(writer) >= at_least, TIMEOUT_S, f"the writer has committed {at_least} batches")


def events(writer: WriterProcess, name: str) -> list[str]:
    """The reasons that its log gives for events of this name."""
    return [str(event.get("reason")) for event in writer.log_events() if event.get("event") == name]


def test_a_batch_in_hand_is_dropped_when_another_writer_has_gone_on(takeover: Takeover) -> None:
    """Attacks I2, I4: the first writer sleeps, its log entry not in the store yet; it comes after the other's."""
    load = takeover.load
    first = takeover.start_first()
    with load.running(CHANGES_PER_S):
        await_commits(first, 3)
        held = takeover.proxy.hold(is_log_entry)
        assert held.happened.wait(TIMEOUT_S)
        with asleep(first):
            done, puts = commits(first), takeover.proxy.count(is_log_entry)
            second = takeover.start_second()
            await_commits(second, 3)
            held.release()
        wait_until(lambda: events(first, "batch dropped"), TIMEOUT_S, "the zombie drops its batch")
        await_commits(second, commits(second) + 5)
        load.check_where_it_stands()
        assert first.alive
        assert commits(first) == done, "the zombie wrote"
        assert takeover.proxy.count(is_log_entry) == puts, "the zombie tried to write"
    load.await_equal(TIMEOUT_S)
    check_offset_chain(takeover.pipeline.items.url, takeover.pipeline.stack.object_store)


def test_an_entry_that_comes_late_but_first_counts_and_is_not_repeated(takeover: Takeover) -> None:
    """Attacks I2, I3: the sleeper's entry comes after its successor has read the table, before that one commits."""
    load = takeover.load
    first = takeover.start_first()
    with load.running(CHANGES_PER_S):
        await_commits(first, 3)
        held = takeover.proxy.hold(is_log_entry)
        assert held.happened.wait(TIMEOUT_S)
        with asleep(first):
            stands = load.check_where_it_stands()
            with TcpProxy(takeover.pipeline.stack.s3_endpoint) as second_proxy:
                second_held = second_proxy.hold(is_log_entry)
                second = takeover.start_second(S3_ENDPOINT=second_proxy.url)
                assert second_held.happened.wait(TIMEOUT_S)
                held.release()
                wait_until(lambda: load.check_where_it_stands().version > stands.version, TIMEOUT_S, "the entry came")
                second_held.release()
                wait_until(lambda: events(second, "batch dropped"), TIMEOUT_S, "the successor drops its batch")
                await_commits(second, 3)
                load.check_where_it_stands()
                takeover.close()
    load.await_equal(TIMEOUT_S)
    check_offset_chain(takeover.pipeline.items.url, takeover.pipeline.stack.object_store)


def test_a_process_that_was_replaced_under_its_own_name_is_shut_out(takeover: Takeover) -> None:
    """Attacks I2: with WRITER_INSTANCE_ID the successor need not wait; Kafka refuses the one before."""
    load = takeover.load
    # A sleeper whose session has ended would join anew under the name, and shut its successor out.
    environment = {"WRITER_INSTANCE_ID": "pod-0", "WRITER_SESSION_TIMEOUT_S": "60"}
    first = takeover.start_first(**environment)
    name = takeover.pipeline.name
    with load.running(CHANGES_PER_S):
        await_commits(first, 3)
        with asleep(first):
            done = commits(first)
            second = takeover.start_second(**environment)
            await_commits(second, 3)
        reason = first.wait_state(name, "failed", TIMEOUT_S)
        assert "WRITER_INSTANCE_ID" in str(reason)
        assert commits(first) == done, "the zombie wrote"
        await_commits(second, commits(second) + 3)
        load.check_where_it_stands()
    second.check_alive()
    assert second.pipeline_state(name)[0] == "running"
    check_offset_chain(takeover.pipeline.items.url, takeover.pipeline.stack.object_store)
