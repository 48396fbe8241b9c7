"""The dead-letter topic: records that can never be applied are kept there whole, and the stream goes on."""

from collections.abc import Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc_shared.errors import Transient
from cdc_shared.kafka.topics import DEAD_LETTERS_TOPIC
from cdc_shared.tracing.otel_config import Tracing
from delta_writer.consumer.event_handler import DeadLetter

ACKNOWLEDGE_TIMEOUT_S: Final = 30.0


class DeadLetterWriter:
    """Writes dead letters of one pipeline; they are acknowledged by Kafka before the batch they came from commits.

    A record's key is `topic:partition:offset`, so that a letter written twice is one; its value is the raw value (empty
    for a record that had none), its headers say the rest.
    """

    def __init__(self, producer: Producer, pipeline: str, tracing: Tracing) -> None:
        self._producer = producer
        self._pipeline = pipeline
        self._tracing = tracing

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Write the letters and wait until all are acknowledged.

        Raises:
            Transient: Kafka did not acknowledge all of them in time; calling again writes them again.
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
        except (KafkaException, BufferError) as error:
            raise Transient(f"writing to {DEAD_LETTERS_TOPIC}: {error}") from error
        if failures or unacknowledged:
            reason = (
                failures[0].str() if failures else f"{unacknowledged} not acknowledged in {ACKNOWLEDGE_TIMEOUT_S} s"
            )
            raise Transient(f"writing to {DEAD_LETTERS_TOPIC}: {reason}")

    def _headers(self, letter: DeadLetter) -> list[tuple[str, str | bytes | None]]:
        return [
            *self._tracing.inject_headers(),
            ("cdc.pipeline", self._pipeline),
            ("cdc.reason", letter.reason),
            ("cdc.topic", letter.topic),
            ("cdc.partition", str(letter.partition)),
            ("cdc.offset", str(letter.offset)),
            ("cdc.key", letter.key),
        ]


def acknowledged_producer(bootstrap_servers: str) -> Producer:
    """Return a producer whose every record is acknowledged by all in-sync replicas."""
    return Producer({"bootstrap.servers": bootstrap_servers, "acks": "all", "enable.idempotence": True})
