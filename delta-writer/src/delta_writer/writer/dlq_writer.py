"""The writer's side of dead letters: records that can never be applied are kept whole, and the stream goes on."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc_shared.dead_letters.lake_records import expire_in_lake, lake_directory, put_in_lake
from cdc_shared.dead_letters.letter import Letter, Place
from cdc_shared.dead_letters.letter_topic import MAX_RECORD_BYTES, RETENTION_DAYS
from cdc_shared.dead_letters.sealed_record import RawRecord, seal
from cdc_shared.errors import CdcError, Transient
from cdc_shared.kafka.errors import map_kafka_error
from cdc_shared.kafka.topics import DEAD_LETTERS_TOPIC
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.security.data_key import DataKey
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.tracing.otel_config import Tracing
from delta_writer.consumer.event_handler import DeadLetter
from delta_writer.writer.flood_limit import FloodLimit

ACKNOWLEDGE_TIMEOUT_S: Final = 30.0
# Shorter than the wait, so that a letter that was given up does not go out beside its second copy.
DELIVERY_TIMEOUT_MS: Final = 25_000
MAX_INLINE_BYTES: Final = 1024 * 1024
"""A sealed record above this lies in the lake, and the topic's record points to it."""
MAX_MESSAGE_CHARACTERS: Final = 1000
_WHAT: Final = f"writing to {DEAD_LETTERS_TOPIC}"

log = get_logger(__name__)


class LetterStore:
    """Where one pipeline's large letters go, and for how long."""

    def __init__(
        self, root: str, pipeline: str, stores: ObjectStoreSettings, retention_days: int = RETENTION_DAYS
    ) -> None:
        self._root = root
        self._pipeline = pipeline
        self._stores = stores
        self._retention = timedelta(days=retention_days)

    def put(self, place: Place, sealed: bytes) -> str:
        """Store a sealed record; its URL. Raises `Transient`, `Fatal`."""
        return put_in_lake(self._root, self._pipeline, place, sealed, self._stores)

    def expire(self) -> None:
        """Delete what is older than the topic keeps letters. What cannot be deleted now waits for the next time."""
        directory = lake_directory(self._root, self._pipeline)
        try:
            expire_in_lake(directory, self._stores, self._retention)
        except CdcError as error:
            log.warning("old dead letters not deleted", directory=directory, reason=str(error))


class DeadLetterWriter:
    """Writes dead letters of one pipeline; they are acknowledged by Kafka before the batch they came from commits.

    What a record of the topic is: `dead_letters.letter`. A letter that was written twice, after a crash or a retry, is
    known by its key, and the last one counts.
    """

    def __init__(
        self,
        producer: Producer,
        pipeline: str,
        data_key: DataKey,
        store: LetterStore,
        flood_limit: FloodLimit,
        tracing: Tracing,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` is the wall clock in seconds."""
        self._producer = producer
        self._pipeline = pipeline
        self._data_key = data_key
        self._store = store
        self._flood_limit = flood_limit
        self._tracing = tracing
        self._clock = clock

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Write the letters and wait until all are acknowledged.

        Raises:
            Transient: Kafka or the store did not acknowledge all of them in time; calling again writes them again.
            TooManyDeadLetters: none was written, because the pipeline should rather pause.
            Fatal: Kafka or the store refuses them, and what to change.
        """
        if not letters:
            return
        self._flood_limit.admit(letters)
        failures: list[KafkaError] = []

        def note(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error)

        try:
            for rejected in letters:
                self._produce(rejected, note)
            unacknowledged = self._producer.flush(ACKNOWLEDGE_TIMEOUT_S)
        except KafkaException as error:
            raise map_kafka_error(error, _WHAT) from error
        except BufferError as error:
            raise Transient(f"{_WHAT}: {error}") from error
        if failures:
            raise map_kafka_error(failures[0], _WHAT)
        if unacknowledged:
            raise Transient(f"{_WHAT}: no acknowledgement within {ACKNOWLEDGE_TIMEOUT_S:.0f} s")

    def _produce(self, rejected: DeadLetter, note: Callable[[KafkaError | None, Message], None]) -> None:
        place = Place(rejected.topic, rejected.partition, rejected.offset)
        record = RawRecord(rejected.key, rejected.value)
        sealed = seal(record, self._data_key, self._pipeline, place)
        lake_url = self._store.put(place, sealed) if len(sealed) > MAX_INLINE_BYTES else None
        replay = rejected.replay
        letter = Letter(
            pipeline=self._pipeline,
            place=place,
            collection=rejected.collection,
            code=rejected.rejection.code.value,
            message=rejected.rejection.message[:MAX_MESSAGE_CHARACTERS],
            rule=rejected.rejection.rule,
            attempt=replay.attempt if replay else 1,
            first_seen_ms=replay.first_seen_ms if replay else int(self._clock() * 1000),
            size_bytes=record.size_bytes,
            key_id=self._data_key.id,
            lake_url=lake_url,
        )
        self._producer.produce(
            DEAD_LETTERS_TOPIC,
            key=str(place).encode(),
            value=sealed if lake_url is None else b"",
            headers=[*self._tracing.inject_headers(), *letter.headers()],
            on_delivery=note,
        )
        self._producer.poll(0)


def acknowledged_producer(bootstrap_servers: str) -> Producer:
    """Return a producer whose every record is acknowledged by all in-sync replicas."""
    return Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "acks": "all",
            "enable.idempotence": True,
            "message.max.bytes": MAX_RECORD_BYTES,
            "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
        }
    )
