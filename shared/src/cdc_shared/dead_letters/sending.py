"""Sending records about dead letters.

What tries a letter again, and the mark that it is done with, go out in one transaction: however a replay ends, each
letter was sent once and is done with, or was not sent and stands. Only one process at a time may replay; the last to
begin wins, and what an earlier one had not committed by then is undone. Marks alone need none of this.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc_shared.errors import CdcError, Fatal, Transient
from cdc_shared.kafka.errors import map_kafka_error

TRANSACTIONAL_ID: Final = "cdc.dead-letters.replay"
KAFKA_TIMEOUT_S: Final = 30.0
# Readers of the topics wait no longer than this for the rest of a transaction whose sender was killed.
TRANSACTION_TIMEOUT_MS: Final = 30_000
MAX_REQUEST_BYTES: Final = 96 * 1024 * 1024
_COMMIT_ATTEMPTS: Final = 5
_WHAT: Final = "send what concerns dead letters"
_FENCED: Final = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)


class Outgoing(NamedTuple):
    """One record to send."""

    topic: str
    partition: int
    key: bytes
    value: bytes | None


class MarkingProducer(Protocol):
    """What is used of `confluent_kafka.Producer` without transactions."""

    def produce(self, topic: str, value: bytes | None, key: bytes, partition: int, on_delivery: Any) -> None: ...
    def poll(self, timeout: float) -> int: ...
    def flush(self, timeout: float) -> int: ...


class TransactionalProducer(MarkingProducer, Protocol):
    """What is used of it with transactions."""

    def init_transactions(self, timeout: float) -> None: ...
    def begin_transaction(self) -> None: ...
    def commit_transaction(self, timeout: float) -> None: ...
    def abort_transaction(self, timeout: float) -> None: ...


class Transactions:
    """Begun with the first look at the letters, so that a process that comes later sees what this one has done."""

    def __init__(self, producer: TransactionalProducer) -> None:
        """Raises `Transient`, `Fatal`."""
        self._producer = producer
        try:
            producer.init_transactions(KAFKA_TIMEOUT_S)
        except KafkaException as error:
            raise _mapped(error) from error

    @classmethod
    def on(cls, bootstrap_servers: str) -> "Transactions":
        """On this Kafka."""
        producer: Any = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "transactional.id": TRANSACTIONAL_ID,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "message.max.bytes": MAX_REQUEST_BYTES,
                "linger.ms": 5,
            }
        )
        return cls(producer)

    def send(self, records: Sequence[Outgoing]) -> None:
        """Send all of them, in their order.

        Raises `Transient`, `Fatal`: then none of them was sent, unless only the answer to the commit was lost.
        """
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error)

        try:
            self._producer.begin_transaction()
            _produce(self._producer, records, delivered)
            self._commit()
        except (KafkaException, BufferError) as error:
            self._abort()
            cause = failures[0] if failures and not _is_fenced(error) else error
            raise _mapped(cause) from error

    def _commit(self) -> None:
        for attempt in range(1, _COMMIT_ATTEMPTS + 1):
            try:
                self._producer.commit_transaction(KAFKA_TIMEOUT_S)
                return
            except KafkaException as error:
                if not error.args[0].retriable() or attempt == _COMMIT_ATTEMPTS:
                    raise

    def _abort(self) -> None:
        with suppress(KafkaException):  # Kafka undoes it by itself, at the latest when the next process begins
            self._producer.abort_transaction(KAFKA_TIMEOUT_S)


class Marks:
    """Marks letters as done with."""

    def __init__(self, producer: MarkingProducer) -> None:
        self._producer = producer

    @classmethod
    def on(cls, bootstrap_servers: str) -> "Marks":
        """On this Kafka."""
        producer: Any = Producer({"bootstrap.servers": bootstrap_servers, "enable.idempotence": True, "linger.ms": 5})
        return cls(producer)

    def send(self, records: Sequence[Outgoing]) -> None:
        """Send all of them and wait until Kafka has them. Raises `Transient`, `Fatal`; sending again does no harm."""
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error)

        try:
            _produce(self._producer, records, delivered)
            left = self._producer.flush(KAFKA_TIMEOUT_S)
        except (KafkaException, BufferError) as error:
            raise _mapped(error) from error
        if failures:
            raise _mapped(failures[0])
        if left:
            raise Transient(f"{_WHAT}: no acknowledgement within {KAFKA_TIMEOUT_S:.0f} s")


def _produce(producer: MarkingProducer, records: Sequence[Outgoing], delivered: Any) -> None:
    for each in records:
        producer.produce(each.topic, each.value, each.key, each.partition, delivered)
        producer.poll(0)


def _is_fenced(error: Exception | KafkaError) -> bool:
    detail = error.args[0] if isinstance(error, KafkaException) else error
    return isinstance(detail, KafkaError) and detail.code() in _FENCED


def _mapped(error: Exception | KafkaError) -> CdcError:
    if _is_fenced(error):
        return Fatal("another replay began meanwhile; the letters that this one had not sent yet stand as they did")
    if isinstance(error, KafkaException | KafkaError):
        return map_kafka_error(error, _WHAT)
    return Transient(f"{_WHAT}: {error}")
