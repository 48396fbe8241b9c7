"""What the check of Kafka makes of its topics."""

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from cdc_shared.errors import Transient
from cdc_shared.models.common import PipelineSpec, SourceSpec
from control_plane.models.preflight import CheckOutcome
from control_plane.services.checks import kafka
from control_plane.services.checks.check import Finding

pytestmark = pytest.mark.unit

SPEC = PipelineSpec(name="p", source=SourceSpec(connection="env:X", database="shop"), topic_partitions=2)


def check(monkeypatch: pytest.MonkeyPatch, topics: dict[str, int] | KafkaException) -> Finding:
    """The finding where Kafka has topics with so many partitions, or fails."""

    def list_topics(timeout: float) -> Any:
        assert timeout
        if isinstance(topics, KafkaException):
            raise topics
        described = {name: SimpleNamespace(partitions=range(count)) for name, count in topics.items()}
        return SimpleNamespace(brokers={1: None}, topics=described)

    monkeypatch.setattr(kafka, "AdminClient", lambda _: SimpleNamespace(list_topics=list_topics))
    return kafka.kafka("k:1", SPEC)


def test_new_topics_and_those_of_the_right_shape_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(monkeypatch, {}) == (CheckOutcome.OK, "1 broker answers")
    fine = {"p.shop.orders": 2, "p.shop.cdc_heartbeat": 1, "p2.shop.orders": 1, "p.other.orders": 1}
    assert check(monkeypatch, fine).outcome is CheckOutcome.OK


def test_a_topic_of_another_shape_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = check(monkeypatch, {"p.shop.orders": 3, "p.shop.customers": 2})
    assert finding.outcome is CheckOutcome.FAILED
    assert "topic_partitions is 2, but p.shop.orders has 3" in finding.message


def test_brokers_that_do_not_answer_are_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Transient, match="ask Kafka for its topics"):
        check(monkeypatch, KafkaException(KafkaError(KafkaError._TRANSPORT)))
