"""What is read of `cdc.rules`: one pipeline's versions, the last word about each."""

from typing import Any

import pytest
from confluent_kafka import KafkaError
from fake_records import FakeConsumer, FakeMessage, at_end, record

import cdc_shared.kafka.rules_topic as module
from cdc_shared.errors import Fatal
from cdc_shared.kafka.rules_topic import UnknownRules, first_rules, read_rules, read_versions
from cdc_shared.models.data_quality import Drop, QualitySpec

pytestmark = pytest.mark.unit


def rules(version: int, path: str = "/a") -> QualitySpec:
    return QualitySpec(version=version, transformation=(Drop(rule="drop", path=path),))


def value(quality: QualitySpec) -> bytes:
    return quality.model_dump_json().encode()


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> list[FakeMessage]:
    messages: list[FakeMessage] = []

    def open_consumer(_: str) -> Any:
        return FakeConsumer(*messages)

    monkeypatch.setattr(module, "has_topic", lambda *_: True)
    monkeypatch.setattr(module, "whole_topic_consumer", open_consumer)
    return messages


def test_the_last_word_about_each_version_of_one_pipeline_counts(topic: list[FakeMessage]) -> None:
    topic += [
        record("shop:1", value(rules(1))),
        record("shop:2", value(rules(2, "/old"))),
        record("shop-2:3", value(rules(3))),
        record("shop:4", value(rules(4))),
        FakeMessage(None, None, KafkaError(KafkaError._ALL_BROKERS_DOWN)),
        record("shop:2", value(rules(2, "/new"))),
        record("shop:4", None),
        record("shop:x", b"rubbish"),
        at_end(),
        record("shop:5", value(rules(5))),
    ]
    assert read_versions("b:1", "shop") == {1: rules(1), 2: rules(2, "/new")}
    assert read_rules("b:1", "shop", 2) == rules(2, "/new")
    with pytest.raises(UnknownRules, match=r"no version 4 of the rules of pipeline shop \(known: 1, 2\)"):
        read_rules("b:1", "shop", 4)


def test_of_several_rules_stored_under_one_version_the_first_are_told_since_it_was_taken_back(
    topic: list[FakeMessage],
) -> None:
    topic += [
        record("shop:1", value(rules(1, "/taken-back"))),
        record("shop:1", None),
        record("shop:1", value(rules(1, "/first"))),
        record("shop-2:1", value(rules(1, "/another"))),
        record("shop:1", value(rules(1, "/second"))),
        at_end(),
    ]
    assert first_rules("b:1", "shop", 1) == rules(1, "/first")
    with pytest.raises(UnknownRules):
        first_rules("b:1", "shop", 2)


def test_version_0_is_no_rules_and_asks_nobody() -> None:
    assert read_rules("nobody:1", "shop", 0) == QualitySpec()


def test_rules_of_another_release_are_not_taken_for_none(topic: list[FakeMessage]) -> None:
    topic += [record("shop:1", b'{"version": 1, "novelty": "hunter2"}'), at_end()]
    with pytest.raises(Fatal, match=r"version 1 of the rules of pipeline shop cannot be read") as refused:
        read_versions("b:1", "shop")
    assert "hunter2" not in str(refused.value)
