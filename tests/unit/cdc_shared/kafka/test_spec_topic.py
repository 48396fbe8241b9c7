"""Following cdc.pipelines: compaction's last word, deletions, and records that hold no spec."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, Producer
from fake_records import FakeConsumer, FakeMessage, at_end, record

from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka import spec_topic
from cdc_shared.kafka.compacted_topic import send_record
from cdc_shared.kafka.spec_topic import SpecChange, SpecReader, UnknownPipeline, read_spec
from cdc_shared.kafka.topics import PIPELINES_TOPIC
from cdc_shared.models.common import InvalidSpec, PipelineSpec, SourceSpec, encode_spec

pytestmark = pytest.mark.unit


def spec(name: str, database: str = "d") -> PipelineSpec:
    return PipelineSpec(name=name, source=SourceSpec(connection="env:X", database=database))


def reader(*messages: FakeMessage) -> tuple[SpecReader, list[tuple[str, str]], FakeConsumer]:
    invalid: list[tuple[str, str]] = []
    consumer = FakeConsumer(*messages)

    def on_invalid(name: str, error: InvalidSpec) -> None:
        invalid.append((name, str(error)))

    return SpecReader(consumer, on_invalid), invalid, consumer


def test_it_reads_the_one_partition_from_the_start_without_a_group() -> None:
    _, _, consumer = reader()
    (partition,) = consumer.assigned
    assert (partition.topic, partition.partition, partition.offset) == (PIPELINES_TOPIC, 0, OFFSET_BEGINNING)


def test_the_last_word_about_each_pipeline_counts() -> None:
    specs, invalid, _ = reader(
        record("shop", encode_spec(spec("shop", "old"))),
        record("crm", encode_spec(spec("crm"))),
        record("shop", encode_spec(spec("shop", "new"))),
        record("crm", None),
        record("unknown", None),
        at_end(),
        record("late", encode_spec(spec("late"))),
    )
    assert specs.read_existing(threading.Event()) == {"shop": spec("shop", "new")}
    assert specs.caught_up
    assert specs.poll() == SpecChange("late", spec("late"))
    assert invalid == []


def test_a_record_that_holds_no_spec_is_reported_and_the_good_one_stays() -> None:
    specs, invalid, _ = reader(
        record("shop", encode_spec(spec("shop"))),
        record("shop", b'{"name":"shop","source":{"connection":"mongodb://u:hunter2@h","database":"d"}}'),
        record("crm", b"not json"),
        FakeMessage(None, b"{}"),
        FakeMessage(b"\xff\xfe", b"{}"),
        at_end(),
    )
    assert specs.read_existing(threading.Event()) == {"shop": spec("shop")}
    assert [name for name, _ in invalid] == ["shop", "crm", "", "\\xff\\xfe"]
    assert all("cdc.pipelines offset 42" in message for _, message in invalid)
    assert "hunter2" not in str(invalid)


def test_it_waits_out_a_broker_that_is_away_and_stops_when_told() -> None:
    away = FakeMessage(None, None, KafkaError(KafkaError._ALL_BROKERS_DOWN))
    specs, _, _ = reader(away, record("shop", encode_spec(spec("shop"))), at_end())
    assert list(specs.read_existing(threading.Event())) == ["shop"]
    stop = threading.Event()
    stop.set()
    assert list(specs.changes(stop)) == []
    fresh, _, _ = reader()
    assert fresh.read_existing(stop) == {}


def test_errors_that_no_waiting_cures_are_raised() -> None:
    specs, _, _ = reader(FakeMessage(None, None, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
    with pytest.raises(Fatal, match=r"read cdc\.pipelines.*grant"):
        specs.poll()


def test_leaving_the_block_closes_the_consumer() -> None:
    specs, _, consumer = reader()
    with specs:
        assert not consumer.closed
    assert consumer.closed


class FakeProducer(Producer):
    """Answers a produce at the flush, with `error` or an acknowledgement; never answers when `silent`."""

    def __init__(self, error: KafkaError | None = None, silent: bool = False) -> None:
        self.error, self.silent = error, silent
        self.sent: list[tuple[str, bytes, bytes | None, int]] = []
        self._deliver: Callable[[Any, Any], None] | None = None

    def produce(self, topic: str, **record: Any) -> None:  # type: ignore[override]
        self.sent.append((topic, record["key"], record["value"], record["partition"]))
        self._deliver = record["on_delivery"]

    def flush(self, timeout: float = -1) -> int:
        if self._deliver is not None and not self.silent:
            self._deliver(self.error, FakeMessage(None, None))
        return 0


def test_publishing_returns_only_when_acknowledged() -> None:
    producer = FakeProducer()
    send_record(producer, PIPELINES_TOPIC, b"shop", None)
    assert producer.sent == [(PIPELINES_TOPIC, b"shop", None, 0)]
    with pytest.raises(Transient, match=r"publish shop to cdc\.pipelines: no acknowledgement"):
        send_record(FakeProducer(silent=True), PIPELINES_TOPIC, b"shop", b"{}")
    with pytest.raises(Transient, match="_MSG_TIMED_OUT"):
        send_record(FakeProducer(KafkaError(KafkaError._MSG_TIMED_OUT)), PIPELINES_TOPIC, b"shop", b"{}")
    with pytest.raises(Fatal, match=r"max\.message\.bytes"):
        send_record(FakeProducer(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)), PIPELINES_TOPIC, b"shop", b"{}")


def read_one(monkeypatch: pytest.MonkeyPatch, *messages: FakeMessage) -> PipelineSpec:
    monkeypatch.setattr(spec_topic, "has_topic", lambda *_: True)
    monkeypatch.setattr(spec_topic, "whole_topic_consumer", lambda _: FakeConsumer(*messages))
    return read_spec("broker:9092", "shop")


def test_one_spec_is_read_as_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [record("shop", encode_spec(spec("shop"))), record("other", b"no spec")]
    latest = spec("shop", "changed")
    assert read_one(monkeypatch, *messages, record("shop", encode_spec(latest)), at_end()) == latest


@pytest.mark.parametrize(
    ("value", "reason"), [(None, "pipeline shop is not in cdc.pipelines"), (b"no spec", "offset 42: .*shop")]
)
def test_a_spec_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, value: bytes | None, reason: str) -> None:
    with pytest.raises(Fatal, match=reason):
        read_one(monkeypatch, record("other", encode_spec(spec("other"))), record("shop", value), at_end())


def test_where_no_spec_was_ever_published_the_pipeline_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec_topic, "has_topic", lambda *_: False)
    with pytest.raises(UnknownPipeline, match=r"pipeline shop .*\(broker:9092\) has no topic cdc\.pipelines"):
        read_spec("broker:9092", "shop")
