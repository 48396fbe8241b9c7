"""Re-read requests: ask the writer to read documents from the source again and to bring their rows to what it finds.

A request is a record on the collection's own change topic, with the document's key exactly as Debezium writes it, in
the partition that Java's partitioner gives that key: so it has a place in the order of the document's events, and what
changes later comes later. It is the only way to repair a row; nobody but the writer touches the table
(docs/adr/0008-re-read-requests.md). Its value:

    {"op":"x","source":{"db":"shop","collection":"orders","ts_ms":1700000000000},"reason":"dead letter replayed"}

`source.ts_ms` is when it was asked; the row gets the source's time of the read. A request that tries a dead letter
again also says so in `"replay"` (`documents.Replay`).
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from cdc_shared.documents import REREAD, Replay, event_key
from cdc_shared.errors import Fatal
from cdc_shared.kafka.errors import map_kafka_error
from cdc_shared.kafka.topics import UnknownTopic, change_topic, partition_for, topic_id

MAX_REASON_CHARACTERS: Final = 200
DELIVERY_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.1
# How many may be under way: what is not acknowledged is kept in memory.
MAX_UNACKNOWLEDGED: Final = 10_000


@dataclass(frozen=True, slots=True)
class RereadsRequested:
    """What became of requests.

    Attributes:
        acknowledged: how many keys every in-sync replica has a request for: the writer will come to them.
        failed: key text → why Kafka did not acknowledge it. It may have it all the same; asking again does no harm.
        ends: partition → the offset behind the last of them: a table that stands there has them all.
    """

    acknowledged: int
    failed: dict[str, str] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict, compare=False)


def request_rereads(
    bootstrap_servers: str,
    pipeline: str,
    database: str,
    collection: str,
    keys: Iterable[str],
    *,
    reason: str,
    clock: Callable[[], float] = time.time,
) -> RereadsRequested:
    """Send a request for each key text (`documents.key_text` of an `_id`) and wait until Kafka has answered for all.

    `reason` says why, for people; it is cut at `MAX_REASON_CHARACTERS` and must hold no document's content. Any number
    of keys may be given: no more than `MAX_UNACKNOWLEDGED` are held at a time.

    Raises `Fatal` when the collection has no change topic, `Transient` when Kafka is away before anything was sent.
    """
    topic = change_topic(pipeline, database, collection)
    partitions = _partitions(bootstrap_servers, topic)
    value = request_value(database, collection, int(clock() * 1000), reason)
    sending = _Sending(_producer(bootstrap_servers), topic, value)
    for key in keys:
        encoded = event_key(key)
        sending.send(key, encoded, partition_for(encoded, partitions))
    return sending.result()


def request_value(database: str, collection: str, asked_ms: int, reason: str, replay: Replay | None = None) -> bytes:
    """The value of a request's record; `asked_ms` in ms since 1970."""
    source = {"db": database, "collection": collection, "ts_ms": asked_ms}
    value = {"op": REREAD, "source": source, "reason": reason[:MAX_REASON_CHARACTERS]}
    return msgspec.json.encode(value if replay is None else {**value, "replay": replay})


class _Sending:
    """Requests under way."""

    def __init__(self, producer: Producer, topic: str, value: bytes) -> None:
        self._producer = producer
        self._topic = topic
        self._value = value
        self._sent = 0
        self._under_way: dict[int, str] = {}
        self._failed: dict[str, str] = {}
        self._ends: dict[int, int] = {}

    def send(self, key: str, encoded: bytes, partition: int) -> None:
        number = self._sent
        self._sent += 1

        def delivered(error: KafkaError | None, message: Message) -> None:
            del self._under_way[number]
            if error is not None:
                self._fail(key, error)
            elif (offset := message.offset()) is not None:
                self._ends[partition] = max(self._ends.get(partition, 0), offset + 1)

        while len(self._under_way) >= MAX_UNACKNOWLEDGED:
            self._producer.poll(POLL_S)
        try:
            self._producer.produce(self._topic, self._value, encoded, partition, delivered)
            self._under_way[number] = key
        except (KafkaException, BufferError) as error:
            self._fail(key, error)
        self._producer.poll(0)

    def result(self) -> RereadsRequested:
        self._producer.flush(DELIVERY_TIMEOUT_S + 5)
        late = dict.fromkeys(self._under_way.values(), f"no acknowledgement within {DELIVERY_TIMEOUT_S:.0f} s")
        failed = self._failed | late
        return RereadsRequested(self._sent - len(failed), failed, self._ends)

    def _fail(self, key: str, error: KafkaError | KafkaException | BufferError) -> None:
        what = f"send to {self._topic}"
        self._failed[key] = f"{what}: {error}" if isinstance(error, BufferError) else str(map_kafka_error(error, what))


def _partitions(bootstrap_servers: str, topic: str) -> int:
    try:
        # Not at librdkafka's own level, 6: it would tell people that it closed an admin client's queue.
        return topic_id(AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 5}), topic).partitions
    except UnknownTopic:
        raise Fatal(
            f"there is no topic {topic}: nothing of this collection has been captured; check the names of the "
            "pipeline, the database and the collection"
        ) from None


def _producer(bootstrap_servers: str) -> Producer:
    return Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "delivery.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
        }
    )
