"""What writers report: records of this release and of others, and a reader that knows whom it has not heard."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException
from fake_records import FakeConsumer, FakeMessage, at_end, record
from msgspec.structs import replace
from waiting import wait_until

from cdc_shared.errors import InvalidEvent
from cdc_shared.kafka.status_topic import (
    HANGS_AFTER_S,
    SILENT_AFTER_S,
    CollectionReport,
    ErrorReport,
    Heard,
    PartitionReport,
    StatusReader,
    WriterReport,
    decode_report,
    encode_report,
    report_key,
)
from cdc_shared.kafka.topics import UnknownTopic
from cdc_shared.metrics.prometheus_metrics import PipelineState

pytestmark = pytest.mark.unit

NOW_MS = 1_700_000_000_000
WAIT_S = 5.0


def report(
    writer: str = "a", state: PipelineState = PipelineState.RUNNING, pipeline: str = "shop", at_ms: int = NOW_MS
) -> WriterReport:
    return WriterReport(pipeline=pipeline, writer=writer, state=state, at_ms=at_ms)


def sent(said: WriterReport) -> FakeMessage:
    return FakeMessage(report_key(said.pipeline, said.writer), encode_report(said))


def taken_back(pipeline: str, writer: str) -> FakeMessage:
    return FakeMessage(report_key(pipeline, writer), None)


class Topic(FakeConsumer):
    """A topic that more can be sent to while it is read, and whose broker can be away."""

    def __init__(self, *messages: FakeMessage) -> None:
        super().__init__(*messages)
        self.is_away = False
        self.drained = threading.Event()
        self._lock = threading.Lock()

    def send(self, *messages: FakeMessage) -> None:
        with self._lock:
            self.drained.clear()
            self._messages.extend(messages)

    def poll(self, timeout: float = -1) -> Any:
        with self._lock:
            message = super().poll(timeout)
            if message is None:  # and what was given before has been dealt with
                self.drained.set()
        if message is None:
            threading.Event().wait(0.001)
        return message

    def get_watermark_offsets(self, *_: Any, **__: Any) -> Any:
        if self.is_away:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return 0, 1


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return NOW_MS / 1000 + self.now_s - 1000


class Follower:
    """A reader of a topic, and what it has told of."""

    def __init__(self, *messages: FakeMessage) -> None:
        self.topic, self.clock, self.told = Topic(*messages), Clock(), list[str]()
        self.reader = StatusReader(
            "broker:9092",
            self.told.append,
            open_consumer=lambda: self.topic,
            clock=self.clock.monotonic,
            wall_clock=self.clock.wall,
        )

    def __enter__(self) -> Follower:
        self.reader.start()
        assert self.topic.drained.wait(WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()

    def send(self, *messages: FakeMessage) -> None:
        self.topic.send(*messages)
        assert self.topic.drained.wait(WAIT_S)

    def writers(self, pipeline: str = "shop") -> dict[str, Heard]:
        return {each.report.writer: each for each in self.reader.reports(pipeline)}


def test_a_report_comes_back_as_it_was_sent() -> None:
    said = WriterReport(
        pipeline="shop",
        writer="host:8090",
        state=PipelineState.RETRYING,
        at_ms=NOW_MS,
        reason="the store is away",
        findings=("a", "b"),
        since_ms=NOW_MS - 5,
        last_error=ErrorReport(text="the store is away", at_ms=NOW_MS - 5),
        collections=(
            CollectionReport(
                database="shop",
                collection="orders/2024",
                topic="shop.shop.orders_2024",
                partitions=(PartitionReport(partition=0, offset=2**40, lag=3),),
                watermark_ms=NOW_MS,
                events=7,
            ),
        ),
    )
    assert decode_report(encode_report(said)) == said


def test_other_releases_reports_are_read() -> None:
    old = {"pipeline": "shop", "state": "failed", "reason": "why", "findings": ["x"], "at_ms": NOW_MS}
    new = {**old, "writer": "b", "humidity": 0.4, "collections": [{"database": "d", "collection": "c", "topic": "t"}]}
    read = decode_report(msgspec.json.encode(old))
    assert (read.writer, read.state, read.reason, read.findings) == ("", PipelineState.FAILED, "why", ("x",))
    assert decode_report(msgspec.json.encode(new)).collections[0].table_version == -1
    with Follower(record("shop", msgspec.json.encode(old)), sent(report("b")), at_end()) as follower:
        assert set(follower.writers()) == {"", "b"}, "the old key is a writer of its own"


def test_a_writer_that_does_not_come_round_hangs_whatever_it_says() -> None:
    late_ms = NOW_MS - int(HANGS_AFTER_S * 1000)
    running = report()
    assert not running.hangs, "it has just begun"
    assert not replace(running, turn_ms=late_ms).hangs
    assert replace(running, turn_ms=late_ms - 1).hangs
    assert not replace(running, turn_ms=late_ms - 1, state=PipelineState.FAILED).hangs, "it does not say that it runs"


@pytest.mark.parametrize("value", [b"", b"no json", b"[]", b"{}", b'{"pipeline":"p","state":"dancing","at_ms":1}'])
def test_what_is_no_report_is_left_out(value: bytes) -> None:
    with pytest.raises(InvalidEvent, match=r"cdc\.status"):
        decode_report(value)
    bad = FakeMessage(report_key("shop", "a"), value)
    with Follower(sent(report("a")), bad, bad, sent(report("b")), at_end()) as follower:
        assert set(follower.writers()) == {"a", "b"}


def test_two_writers_of_a_pipeline_do_not_hide_each_other() -> None:
    with Follower(sent(report("a")), sent(report("b", PipelineState.FAILED)), at_end()) as follower:
        states = {name: heard.report.state for name, heard in follower.writers().items()}
        assert states == {"a": PipelineState.RUNNING, "b": PipelineState.FAILED}
        assert follower.reader.pipelines() == ["shop"]
        follower.send(taken_back("shop", "b"))
        assert set(follower.writers()) == {"a"}
        follower.send(taken_back("shop", "a"), taken_back("shop", "never"))
        assert follower.reader.pipelines() == []
        assert follower.writers() == {}


def test_nothing_is_known_before_the_end_and_changes_are_told_after_it() -> None:
    with Follower(sent(report("a", PipelineState.STARTING))) as follower:
        assert not follower.reader.caught_up
        assert follower.writers() == {}, "half of the topic may be news that later records take back"
        follower.send(sent(report("a")), at_end())
        assert follower.reader.wait_caught_up(WAIT_S)
        assert follower.told == ["shop"]
        follower.send(sent(report("a", PipelineState.FAILED)), sent(report("a", pipeline="crm")))
        assert follower.told == ["shop", "shop", "crm"]


def test_a_writer_that_says_nothing_any_more_is_silent() -> None:
    old, ended = report("old", at_ms=NOW_MS - 3_600_000), report("ended", PipelineState.STOPPED, at_ms=NOW_MS - 10**8)
    with Follower(sent(old), sent(ended), sent(report("a")), at_end()) as follower:
        silent = {name: heard.is_silent for name, heard in follower.writers().items()}
        assert silent == {"old": True, "ended": False, "a": False}
        assert follower.writers()["old"].age_s == pytest.approx(3600)
        follower.clock.now_s += SILENT_AFTER_S + 1
        assert follower.writers()["a"].is_silent
        follower.send(sent(report("a", at_ms=NOW_MS - 3_600_000)))
        assert not follower.writers()["a"].is_silent, "a writer whose clock is an hour late is heard all the same"
        assert follower.reader.reports("shop")[0].report.writer == "a", "the newest comes first"


def test_without_kafka_nobody_is_taken_for_silent() -> None:
    with Follower(sent(report("a")), at_end()) as follower:
        follower.topic.is_away = True
        follower.clock.now_s += 3 * SILENT_AFTER_S
        wait_until(lambda: follower.reader.trouble, WAIT_S, "it notices")
        assert "cdc.status" in (follower.reader.trouble or "")
        heard = follower.writers()["a"]
        assert (heard.age_s, heard.is_silent) == (3 * SILENT_AFTER_S, False)
        follower.topic.is_away = False
        follower.clock.now_s += 6
        wait_until(lambda: follower.reader.trouble is None, WAIT_S, "it is in touch again")
        assert not follower.writers()["a"].is_silent, "its writer has not had the time to say anything"
        follower.clock.now_s += SILENT_AFTER_S + 1
        assert follower.writers()["a"].is_silent


def test_before_the_first_writer_there_is_no_topic_and_nothing_to_be_told() -> None:
    found = threading.Event()

    def opened() -> Topic:
        if not found.is_set():
            raise UnknownTopic("cdc.status does not exist")
        return Topic(sent(report("a")), at_end())

    with StatusReader("broker:9092", open_consumer=opened) as reader:
        assert reader.wait_caught_up(WAIT_S)
        assert (reader.trouble, reader.pipelines()) == (None, [])
        found.set()
        wait_until(lambda: reader.pipelines() == ["shop"], WAIT_S, "the topic is read once a writer has made it")


def test_what_no_waiting_cures_is_told_and_tried_again_from_the_start() -> None:
    refused = FakeMessage(None, None, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    with Follower(sent(report("a")), sent(report("b")), at_end(), refused) as follower:
        wait_until(lambda: follower.reader.trouble, WAIT_S, "it is told")
        assert "grant" in (follower.reader.trouble or "")
        assert set(follower.writers()) == {"a", "b"}, "what is known stays"
        wait_until(lambda: follower.topic.closed, WAIT_S, "the consumer is given up")
        follower.clock.now_s += 6
        follower.topic.send(sent(report("b")), at_end())
        wait_until(lambda: set(follower.writers()) == {"b"}, WAIT_S, "it has read the topic anew")
        wait_until(lambda: follower.reader.trouble is None, WAIT_S, "all is well")
