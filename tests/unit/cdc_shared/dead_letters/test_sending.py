"""All of a transaction's records are sent, or none; marks are sent until Kafka has them."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from cdc_shared.dead_letters.sending import Marks, Outgoing, Transactions
from cdc_shared.errors import Fatal, Transient

pytestmark = pytest.mark.unit

RECORDS = [Outgoing("t", 3, b"k", b"v"), Outgoing("cdc.dead-letters", 0, b"t:0:1", None)]


class Retriable(KafkaError):
    """An error as librdkafka marks one of a transaction that may be tried again."""

    def retriable(self) -> bool:
        return True


class FakeProducer:
    """Answers for what it is given on `flush` and commit; each of `failures` comes once, at the call of its name."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.failures: dict[str, list[KafkaError]] = {}
        self.refused: KafkaError | None = None
        self.refused_at_once: KafkaError | None = None
        self.silent = False
        self._waiting: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any) -> None:
            self.calls.append(name)
            if self.failures.get(name):
                raise KafkaException(self.failures[name].pop(0))
            if name == "commit_transaction":
                self._answer()

        return call

    def produce(self, topic: str, value: bytes | None, key: bytes, partition: int, on_delivery: Any) -> None:
        self.calls.append(Outgoing(topic, partition, key, value))
        if self.failures.get("produce"):
            raise KafkaException(self.failures["produce"].pop(0))
        if self.refused_at_once is not None:
            on_delivery(self.refused_at_once, None)
        self._waiting.append(on_delivery)

    def poll(self, timeout: float) -> int:
        return 0

    def flush(self, timeout: float) -> int:
        self._answer()
        return len(self._waiting)

    def _answer(self) -> None:
        for delivered in [] if self.silent else self._waiting:
            delivered(self.refused, None)
        self._waiting = self._waiting if self.silent else []


@pytest.fixture
def producer() -> FakeProducer:
    return FakeProducer()


def test_a_transaction_holds_all_records_in_their_order(producer: FakeProducer) -> None:
    Transactions(producer).send(RECORDS)
    assert producer.calls == ["init_transactions", "begin_transaction", *RECORDS, "commit_transaction"]


@pytest.mark.parametrize("call", ["produce", "commit_transaction"])
def test_what_fails_is_undone(producer: FakeProducer, call: str) -> None:
    transactions = Transactions(producer)
    producer.failures = {call: [KafkaError(KafkaError._TRANSPORT)]}
    with pytest.raises(Transient):
        transactions.send(RECORDS)
    assert producer.calls[-1] == "abort_transaction"
    transactions.send(RECORDS)
    assert producer.calls[-1] == "commit_transaction"


def test_a_commit_is_tried_again_when_that_may_help(producer: FakeProducer) -> None:
    transactions = Transactions(producer)
    producer.failures = {"commit_transaction": [Retriable(KafkaError._TIMED_OUT)] * 2}
    transactions.send(RECORDS)
    assert producer.calls[-3:] == ["commit_transaction"] * 3


def test_the_reason_is_that_of_the_record_that_kafka_refused(producer: FakeProducer) -> None:
    transactions = Transactions(producer)
    producer.failures = {"commit_transaction": [KafkaError(KafkaError._STATE)]}
    producer.refused_at_once = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
    with pytest.raises(Fatal, match=r"max\.message\.bytes"):
        transactions.send(RECORDS)


@pytest.mark.parametrize("call", ["init_transactions", "commit_transaction"])
def test_one_that_began_later_wins(producer: FakeProducer, call: str) -> None:
    producer.failures = {call: [KafkaError(KafkaError._FENCED)]}
    with pytest.raises(Fatal, match="another replay began meanwhile; the letters that this one had not sent"):
        Transactions(producer).send(RECORDS)


def test_marks_wait_until_kafka_has_them(producer: FakeProducer) -> None:
    Marks(producer).send(RECORDS[1:])
    assert producer.calls == RECORDS[1:]
    producer.refused = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(Fatal, match="grant this client's user access"):
        Marks(producer).send(RECORDS[1:])
    producer.silent = True
    with pytest.raises(Transient, match="no acknowledgement"):
        Marks(producer).send(RECORDS[1:])
