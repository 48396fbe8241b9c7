"""How times become claims, and what keeps them from it."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from waiting import wait_until
from watermark_simulation import SimulatedTable

from cdc_shared.delta.time_travel import watermark_id
from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.topics import UnknownTopic
from delta_writer.watermark.claims import Claims
from delta_writer.watermark.feed import MAX_WAITING_LOOKS, WatermarkFeed
from delta_writer.watermark.sentinel import SentinelTopicTaken

pytestmark = pytest.mark.unit

AT: Any = ("t", 0)


class Times:
    """A `TimeSource` that tells what it is given, errors too."""

    def __init__(self, *told: int | Exception) -> None:
        self.told = list(told)
        self.closed = threading.Event()

    def next(self, timeout_s: float) -> int | None:
        if not self.told:
            return None
        if isinstance(now := self.told.pop(0), Exception):
            raise now
        return now

    def close(self) -> None:
        self.closed.set()


class Rig:
    """A feed whose thread's steps the test takes, over one table."""

    def __init__(self, *told: int | Exception, interval_s: float = 0, thread: bool = False) -> None:
        self.now = 0.0
        self.claims, self.times = Claims(), Times(*told)
        self.table: Any = SimulatedTable("t", 1)
        self.table.whole = True
        self.ends = {AT: 7}
        self.asked: list[Any] = []
        self.shown: list[int | None] = []
        self.notified: list[int] = []
        self.feed = WatermarkFeed(
            "p",
            self.times,
            self._ends,
            self.claims,
            self._is_whole,
            lambda table, time_ms: self.shown.append(time_ms),
            interval_s,
            lambda: self.now,
        )
        if not thread:
            self.feed._thread = threading.Thread()

    def _ends(self, partitions: Any) -> Any:
        self.asked.append(list(partitions))
        return self.ends

    def _is_whole(self, topic: str, table: Any, notified_to: int) -> bool:
        self.notified.append(notified_to)
        return bool(table.whole)

    def turn(self) -> None:
        self.feed.turn({"t": self.table}, [AT])

    def go(self) -> int | None:
        """A turn, a step of the thread, a turn; what may be claimed then."""
        self.turn()
        self.feed._look()
        self.turn()
        return self.claims.reached("t", 0, 7)


def test_a_time_becomes_a_claim_up_to_the_end_that_was_read_after_it() -> None:
    rig = Rig(1000)
    assert rig.go() == 1000
    assert rig.claims.reached("t", 0, 6) is None
    assert rig.asked == [[("cdc.notifications.p", 0), AT]]


def test_a_partition_that_was_not_looked_at_is_in_no_claim() -> None:
    """Attacks I12: a topic made after the look inherits nothing."""
    rig = Rig(1000)
    rig.feed._look()
    rig.turn()
    assert rig.claims.topics() == []


def test_a_topic_made_again_meanwhile_is_in_no_claim() -> None:
    """Attacks I12."""
    rig = Rig(1000)
    rig.turn()
    rig.feed._look()
    rig.table = SimulatedTable("t", 1)
    rig.table.whole = True
    rig.table.topic = type(rig.table.topic)("t", "another id", 1)
    rig.turn()
    assert rig.claims.topics() == []


def test_while_a_snapshot_is_to_come_nothing_is_claimed() -> None:
    """Attacks I12; the notifications must be known up to what was there when the time was told."""
    rig = Rig(1000, 2000)
    rig.ends[("cdc.notifications.p", 0)] = 42
    rig.table.whole = False
    assert rig.go() is None
    rig.table.whole = True
    assert rig.go() == 2000
    assert rig.notified == [42, 42]


def test_what_the_table_carries_is_not_claimed_again() -> None:
    rig = Rig(1000, 2000)
    rig.table.snapshot.txns[watermark_id("id-t", 0)] = 1500
    assert rig.go() is None
    assert rig.go() == 2000


def test_times_that_come_thick_and_fast_make_few_claims() -> None:
    rig = Rig(*range(1000, 1100), interval_s=10)
    for _ in range(100):
        rig.go()
        rig.now += 1
    assert len(rig.asked) == 20


def test_looks_do_not_pile_up_while_no_turn_comes() -> None:
    """The store may be away for a day."""
    rig = Rig(*range(1000, 1100), 2000)
    rig.turn()
    for _ in range(100):
        rig.feed._look()
    assert len(rig.asked) == MAX_WAITING_LOOKS
    assert rig.go() == 2000


def test_a_sentinel_topic_with_another_collection_ends_the_pipeline() -> None:
    rig = Rig(SentinelTopicTaken("rename it"), thread=True)
    try:
        with pytest.raises(SentinelTopicTaken):
            wait_until(lambda: rig.turn(), 5, "the pipeline is told")
    finally:
        rig.feed.close()


@pytest.fixture
def running() -> Iterator[Callable[..., Rig]]:
    rigs = []

    def start(*told: int | Exception) -> Rig:
        rigs.append(Rig(*told, thread=True))
        return rigs[-1]

    yield start
    for rig in rigs:
        rig.feed.close()
        assert rig.times.closed.is_set()


def test_trouble_is_waited_out(running: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delta_writer.watermark.feed.WAIT_AFTER_ERROR_S", 0.01)
    rig = running(Transient("away"), Fatal("not allowed"), ValueError("a fault of ours"))
    rig.turn()
    wait_until(lambda: not rig.times.told, 5, "every error was met")
    rig.times.told.append(1000)

    def claimed() -> int | None:
        rig.turn()
        return rig.claims.reached("t", 0, 7)

    assert wait_until(claimed, 5, "a claim is made") == 1000


def test_what_an_unexpected_error_quotes_is_not_told() -> None:
    with capture_logs() as said:
        Rig(1000).feed._note(ValueError("invalid literal: 'jane.doe@corp'"))
    assert [each["reason"] for each in said] == ["unexpected ValueError"]


def test_two_troubles_that_take_turns_are_told_once_each() -> None:
    rig = Rig(1000)
    with capture_logs() as said:
        for _ in range(3):
            rig.feed._note(Transient("away"))
            rig.feed._note(UnknownTopic("no topic yet"))
        assert [each["reason"] for each in said] == ["away", "no topic yet"]
        rig.go()
        rig.feed._note(Transient("away"))
    assert [each["event"] for each in said[2:]] == ["the watermarks go on", "the watermarks stay where they are"]


def test_it_is_shown_when_it_changes_and_while_the_topic_is_read_here() -> None:
    rig = Rig()
    rig.turn()
    rig.turn()
    rig.table.snapshot.txns[watermark_id("id-t", 0)] = 1000
    rig.turn()
    rig.feed.turn({"t": rig.table}, [])
    rig.feed.turn({"t": rig.table}, [])
    assert rig.shown == [None, 1000, None]
