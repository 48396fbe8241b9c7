"""The dead-letter topic: records that can never be applied are kept there whole, and the stream goes on."""

from collections.abc import Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc_shared.errors import Transient
from cdc_shared.kafka.errors import map_kafka_error
from cdc_shared.kafka.topics import DEAD_LETTERS_TOPIC
from cdc_shared.tracing.otel_config import Tracing
from delta_writer.consumer.event_handler import DeadLetter

ACKNOWLEDGE_TIMEOUT_S: Final = 30.0
# Shorter than the wait, so that a letter that was given up does not go out beside its second copy.
DELIVERY_TIMEOUT_MS: Final = 25_000
# Above the change topics' own limit (config/kafka-connect): every record that can be read can be kept.
MAX_LETTER_BYTES: Final = 96 * 1024 * 1024
DEAD_LETTERS_CONFIG: Final = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "max.message.bytes": str(MAX_LETTER_BYTES),
}
_WHAT: Final = f"writing to {DEAD_LETTERS_TOPIC}"


class DeadLetterWriter:
    """Writes dead letters of one pipeline; they are acknowledged by Kafka before the batch they came from commits.

    A record's key is `topic:partition:offset`: a letter that was written twice, after a crash or a retry, is known by
    it. Its value is the raw value, its headers say the rest.
    """

    def __init__(self, producer: Producer, pipeline: str, tracing: Tracing) -> None:
        self._producer = producer
        self._pipeline = pipeline
        self._tracing = tracing

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Write the letters and wait until all are acknowledged.

        Raises:
            Transient: Kafka did not acknowledge all of them in time; calling again writes them again.
            Fatal: Kafka refuses them, and what to change.
        """
        if not letters:
            return
        failures: list[KafkaError] = []

        def note(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error)

        try:
            for letter in letters:
                self._producer.produce(
                    DEAD_LETTERS_TOPIC,
                    key=f"{letter.topic}:{letter.partition}:{letter.offset}".encode(),
                    value=letter.value,
                    headers=self._headers(letter),
                    on_delivery=note,
                )
                self._producer.poll(0)
            unacknowledged = self._producer.flush(ACKNOWLEDGE_TIMEOUT_S)
        except KafkaException as error:
            raise map_kafka_error(error, _WHAT) from error
        except BufferError as error:
            raise Transient(f"{_WHAT}: {error}") from error
        if failures:
            raise map_kafka_error(failures[0], _WHAT)
        if unacknowledged:
            raise Transient(f"{_WHAT}: no acknowledgement within {ACKNOWLEDGE_TIMEOUT_S:.0f} s")

    def _headers(self, letter: DeadLetter) -> list[tuple[str, str | bytes | None]]:
        return [
            *self._tracing.inject_headers(),
            ("cdc.pipeline", self._pipeline),
            ("cdc.code", letter.rejection.code),
            ("cdc.reason", letter.rejection.message),
            ("cdc.topic", letter.topic),
            ("cdc.partition", str(letter.partition)),
            ("cdc.offset", str(letter.offset)),
            ("cdc.key", letter.key),
        ]


def acknowledged_producer(bootstrap_servers: str) -> Producer:
    """Return a producer whose every record is acknowledged by all in-sync replicas."""
    return Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "acks": "all",
            "enable.idempotence": True,
            "message.max.bytes": MAX_LETTER_BYTES,
            "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
        }
    )
