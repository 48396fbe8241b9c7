"""`CDC_PIPELINES_TOPIC`: a writer follows the spec topic that it is told, `cdc.pipelines` when it is told none."""

from __future__ import annotations

import pytest
from confluent_kafka import TopicPartition

from cdc_shared.kafka.spec_topic import SpecReader
from cdc_shared.settings import InvalidSettings
from delta_writer.settings import Settings

pytestmark = pytest.mark.unit


class RecordingConsumer:
    def __init__(self) -> None:
        self.assigned: list[str] = []

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned = [each.topic for each in partitions]


@pytest.fixture(autouse=True)
def _kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    monkeypatch.setenv("CDC_DATA_KEY", "env:DATA_KEY")
    monkeypatch.setenv("CDC_DATA_KEY", "env:KEY")
    monkeypatch.delenv("CDC_PIPELINES_TOPIC", raising=False)


@pytest.mark.parametrize("named", [None, "cdc.pipelines.eu"])
def test_the_writer_follows_the_topic_of_its_settings(monkeypatch: pytest.MonkeyPatch, named: str | None) -> None:
    if named is not None:
        monkeypatch.setenv("CDC_PIPELINES_TOPIC", named)
    topic = Settings.from_environment().kafka.pipelines_topic
    assert topic == (named or "cdc.pipelines")
    consumer = RecordingConsumer()
    SpecReader(consumer, lambda *_: None, topic)  # type: ignore[arg-type]
    assert consumer.assigned == [topic]


def test_a_name_that_no_topic_can_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDC_PIPELINES_TOPIC", "cdc pipelines")
    with pytest.raises(InvalidSettings, match="CDC_PIPELINES_TOPIC is not valid"):
        Settings.from_environment()
