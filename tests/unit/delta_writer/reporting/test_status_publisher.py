"""When reports are sent: changes at once, progress now and then, signs of life always, and no stale word stays."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from fake_records import FakeConsumer, FakeMessage, at_end

import delta_writer.reporting.status_publisher as publisher_module
from cdc_shared.errors import Fatal
from cdc_shared.kafka.status_topic import (
    HEARTBEAT_S,
    CollectionReport,
    WriterReport,
    decode_report,
    encode_report,
    report_key,
)
from cdc_shared.kafka.topics import STATUS_TOPIC
from cdc_shared.metrics.prometheus_metrics import PipelineState
from delta_writer.reporting.status_publisher import PROGRESS_EVERY_S, StatusPublisher

pytestmark = pytest.mark.unit


class FakeProducer(Producer):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, bytes | None]] = []
        self.trouble: Exception | None = None

    def produce(self, topic: str, **record: Any) -> None:  # type: ignore[override]
        if self.trouble is not None:
            raise self.trouble
        assert (topic, record["partition"]) == (STATUS_TOPIC, 0)
        self.sent.append((record["key"], record["value"]))

    def poll(self, timeout: float = -1) -> int:
        return 0

    def flush(self, timeout: float = -1) -> int:
        return 0


class Rig:
    """A publisher of one pipeline whose report the test changes, and whose time it moves on."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.report = report()
        self.producer = FakeProducer()
        self.publisher = StatusPublisher("broker:9092", self.producer, lambda: self.now_s)

    def add(self) -> None:
        self.publisher.add("shop", self.say)

    def say(self) -> WriterReport:
        return WriterReport(
            pipeline=self.report.pipeline,
            writer="w",
            state=self.report.state,
            at_ms=int(self.now_s * 1000),
            turn_ms=int(self.now_s * 1000),
            collections=self.report.collections,
        )

    def wait(self, seconds: float) -> int:
        """Let time go by as the thread does; return how many reports were sent."""
        before = len(self.producer.sent)
        for _ in range(int(seconds)):
            self.now_s += 1
            self.publisher.send_due()
        return len(self.producer.sent) - before


def report(state: PipelineState = PipelineState.RUNNING, events: int = 0) -> WriterReport:
    collection = CollectionReport(database="d", collection="c", topic="t", events=events)
    return WriterReport(pipeline="shop", writer="w", state=state, at_ms=0, collections=(collection,))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_change_of_state_is_sent_at_once(rig: Rig) -> None:
    rig.add()
    rig.report = report(PipelineState.FAILED)
    rig.publisher.changed("shop")
    rig.publisher.changed("another")
    states = [decode_report(value or b"").state for _, value in rig.producer.sent]
    assert states == [PipelineState.RUNNING, PipelineState.FAILED]
    assert {key for key, _ in rig.producer.sent} == {report_key("shop", "w")}


def test_progress_is_sent_now_and_then_and_a_sign_of_life_when_there_is_none(rig: Rig) -> None:
    rig.add()
    assert rig.wait(HEARTBEAT_S - 1) == 0, "nothing but time has passed"
    assert rig.wait(1) == 1
    sent = 0
    for events in range(30):
        rig.report = report(events=events + 1)
        sent += rig.wait(1)
    assert sent == 30 / PROGRESS_EVERY_S
    last = decode_report(rig.producer.sent[-1][1] or b"")
    assert last.collections[0].events == 30


def test_an_ended_pipeline_says_nothing_more_and_one_taken_back_leaves_nothing(rig: Rig) -> None:
    rig.add()
    rig.publisher.ended("shop")
    assert rig.wait(3 * HEARTBEAT_S) == 0
    assert rig.producer.sent[-1][1] is not None
    rig.add()
    rig.publisher.take_back("shop", "w")
    assert rig.producer.sent[-1] == (report_key("shop", "w"), None)
    assert rig.wait(3 * HEARTBEAT_S) == 0


@pytest.mark.parametrize("trouble", [BufferError("queue full"), KafkaException(KafkaError(KafkaError._FATAL))])
def test_what_cannot_be_sent_is_sent_again_soon(rig: Rig, trouble: Exception) -> None:
    rig.producer.trouble = trouble
    rig.add()
    assert rig.wait(10) == 0
    rig.producer.trouble = None
    assert rig.wait(1) == 1


def test_a_life_that_ended_badly_is_corrected(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def left(pipeline: str, writer: str, state: PipelineState) -> FakeMessage:
        said = WriterReport(pipeline=pipeline, writer=writer, state=state, at_ms=7, reason="x")
        return FakeMessage(report_key(pipeline, writer), encode_report(said))

    found = [
        left("shop", "w", PipelineState.RUNNING),
        left("killed", "w", PipelineState.RUNNING),
        left("ended", "w", PipelineState.STOPPED),
        left("gone", "w", PipelineState.RUNNING),
        left("killed", "another", PipelineState.RUNNING),
        FakeMessage(report_key("odd", "w"), b"no report"),
        left("back", "w", PipelineState.RUNNING),
        FakeMessage(report_key("back", "w"), None),
    ]
    monkeypatch.setattr(publisher_module, "whole_topic_consumer", lambda _: FakeConsumer(*found, at_end()))
    rig.add()
    before = len(rig.producer.sent)
    rig.publisher.settle("w", {"shop", "killed", "ended", "odd"})
    sent = dict(rig.producer.sent[before:])
    assert set(sent) == {report_key(name, "w") for name in ("killed", "gone", "odd")}
    assert sent[report_key("gone", "w")] is None
    assert sent[report_key("odd", "w")] is None
    killed = decode_report(sent[report_key("killed", "w")] or b"")
    assert (killed.state, killed.reason, killed.at_ms) == (PipelineState.STOPPED, None, 7)


def test_a_topic_that_cannot_be_read_keeps_no_writer_from_working(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: str) -> FakeConsumer:
        raise Fatal("read cdc.status: grant this client's user access to the topic")

    monkeypatch.setattr(publisher_module, "whole_topic_consumer", refused)
    rig.publisher.settle("w", {"shop"})
    assert rig.producer.sent == []


def test_the_thread_sends_and_ends(rig: Rig) -> None:
    rig.publisher.start()
    rig.add()
    rig.publisher.close()
    assert len(rig.producer.sent) == 1
