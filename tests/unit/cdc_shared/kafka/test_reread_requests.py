"""What a request is on the wire: Debezium's key, an envelope of our own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError

from cdc_shared.documents import Replay, decode_envelopes, event_key, key_text
from cdc_shared.errors import Fatal
from cdc_shared.kafka import reread_requests
from cdc_shared.kafka.reread_requests import (
    MAX_REASON_CHARACTERS,
    RereadsRequested,
    request_rereads,
    request_value,
)
from cdc_shared.kafka.topics import TopicIdentity, UnknownTopic, partition_for

pytestmark = pytest.mark.unit

KEYS = [key_text(each) for each in (1, '日本 "q" \u200b', {"a": 1, "b": "x"}, 2.5)]


class FakeRecord:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def offset(self) -> int:
        return self._offset


class FakeProducer:
    """Answers on `poll` and `flush`; refuses the keys in `refused`, never answers for those in `silent`."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, bytes, int]] = []
        self.refused: set[bytes] = set()
        self.silent: set[bytes] = set()
        self.most_under_way = 0
        self.written = 0
        self._waiting: list[tuple[bytes, Callable[..., None]]] = []

    def produce(self, topic: str, value: bytes, key: bytes, partition: int, delivered: Callable[..., None]) -> None:
        self.sent.append((topic, value, key, partition))
        self._waiting.append((key, delivered))
        self.most_under_way = max(self.most_under_way, len(self._waiting))

    def poll(self, timeout_s: float) -> None:
        if timeout_s:
            self.flush(timeout_s)

    def flush(self, timeout_s: float) -> None:
        for key, delivered in self._waiting:
            if key not in self.silent:
                refused = key in self.refused
                self.written += not refused
                delivered(KafkaError(KafkaError._MSG_TIMED_OUT) if refused else None, FakeRecord(self.written - 1))
        self._waiting = []


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> FakeProducer:
    fake = FakeProducer()
    monkeypatch.setattr(reread_requests, "_producer", lambda _: fake)
    monkeypatch.setattr(reread_requests, "AdminClient", lambda _: None)
    monkeypatch.setattr(reread_requests, "topic_id", lambda _, topic: TopicIdentity("id", 5))
    return fake


def request(keys: list[str] = KEYS, **options: Any) -> RereadsRequested:
    return request_rereads(
        "k:9092", "shop", "db", "orders", keys, **{"reason": "test", "clock": lambda: 12.5, **options}
    )


def test_a_request_has_debeziums_key_and_partition_and_is_understood(producer: FakeProducer) -> None:
    assert request() == RereadsRequested(4)
    assert [topic for topic, *_ in producer.sent] == ["shop.db.orders"] * 4
    keys = [key for _, _, key, _ in producer.sent]
    assert keys == [event_key(each) for each in KEYS]
    assert keys[2] == b'{"id":"{\\"a\\": 1,\\"b\\": \\"x\\"}"}'
    assert [partition for *_, partition in producer.sent] == [partition_for(key, 5) for key in keys]
    envelopes = decode_envelopes(keys, [value for _, value, _, _ in producer.sent])
    assert envelopes.invalid == {}
    assert envelopes.key_texts == KEYS
    assert envelopes.ops == ["x"] * 4
    assert envelopes.afters == [None] * 4
    assert set(zip(envelopes.databases, envelopes.collections, strict=True)) == {("db", "orders")}
    assert set(envelopes.source_ts_ms) == {12_500}
    assert json.loads(producer.sent[0][1])["reason"] == "test"


def test_a_request_may_carry_what_is_known_of_a_dead_letter() -> None:
    value = request_value("db", "orders", 12_500, "why", Replay(3, 7))
    envelopes = decode_envelopes([event_key(KEYS[0])], [value])
    assert (envelopes.ops, envelopes.replays) == (["x"], {0: Replay(3, 7)})


def test_the_reason_is_limited(producer: FakeProducer) -> None:
    request(reason="x" * 10_000)
    assert json.loads(producer.sent[0][1])["reason"] == "x" * MAX_REASON_CHARACTERS


def test_what_kafka_does_not_acknowledge_is_told(producer: FakeProducer) -> None:
    producer.refused = {event_key(KEYS[0])}
    producer.silent = {event_key(KEYS[1])}
    result = request()
    assert result.acknowledged == 2
    assert list(result.failed) == KEYS[:2]
    assert "_MSG_TIMED_OUT" in result.failed[KEYS[0]]
    assert "no acknowledgement within" in result.failed[KEYS[1]]


def test_no_more_than_a_bounded_number_is_under_way(producer: FakeProducer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reread_requests, "MAX_UNACKNOWLEDGED", 10)
    assert request([str(i) for i in range(95)]) == RereadsRequested(95)
    assert producer.most_under_way == 10


def test_a_collection_without_a_topic_is_named(producer: FakeProducer, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: Any, topic: str) -> TopicIdentity:
        raise UnknownTopic(topic)

    monkeypatch.setattr(reread_requests, "topic_id", unknown)
    with pytest.raises(Fatal, match=r"no topic shop\.db\.orders"):
        request()
    assert producer.sent == []


def test_it_is_told_where_the_last_request_of_each_partition_lies(producer: FakeProducer) -> None:
    keys = [key_text(n) for n in range(50)]
    ends = request(keys).ends
    last: dict[int, int] = {}
    for offset, key in enumerate(keys):
        last[partition_for(event_key(key), 5)] = offset + 1
    assert ends == last
    assert len(ends) == 5
