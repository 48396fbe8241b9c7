"""A pipeline whose change topics a test fills itself, past MongoDB and Connect: fast, and in the order it says."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, Message, Producer
from debezium_events import Op, event_key, event_value
from stack_endpoints import Stack
from trial_pipeline import EQUAL_TIMEOUT_S, TrialPipeline, difference
from waiting import wait_until

from cdc_shared.documents import canonical_document, key_text
from cdc_shared.kafka.topics import ensure_topic, partition_for

FLUSH_TIMEOUT_S = 30.0
COLLECTION = "items"
MAX_MESSAGE_BYTES = 90 * 1024 * 1024
"""What change topics take (config/kafka-connect/debezium-mongodb.json)."""


class TopicPipeline(TrialPipeline):
    """The topics of `collections` exist before the writer starts; `items` is the first of them."""

    def __init__(
        self,
        stack: Stack,
        name: str,
        root: str,
        directory: Path,
        collections: Sequence[str] = (COLLECTION,),
        **options: Any,
    ) -> None:
        super().__init__(stack, name, root, directory, **options)
        self.collections = {each: TopicCollection(self, each) for each in collections}

    @property
    def items(self) -> TopicCollection:
        """The first collection."""
        return next(iter(self.collections.values()))

    def start(self, environment: dict[str, str] | None = None, *, ready: bool = True) -> None:
        """Make the topics, publish the spec and start the writer as `start_writer` does."""
        for collection in self.collections.values():
            collection.make_topic()
        self.publish()
        self.start_writer(environment, ready=ready)


class TopicCollection:
    """Produces a collection's events and keeps, as `model`, what its table must equal once they are applied."""

    def __init__(self, pipeline: TopicPipeline, name: str) -> None:
        self.pipeline = pipeline
        self.name = name
        self.topic = pipeline.topic(name)
        self.model: dict[str, bytes] = {}
        self._producer = Producer(
            {
                "bootstrap.servers": pipeline.stack.kafka,
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.max.bytes": MAX_MESSAGE_BYTES,
            }
        )
        self._failures: list[KafkaError] = []
        self._changed_to: dict[int, int] = {}

    @property
    def url(self) -> str:
        """Where the table is."""
        return self.pipeline.table_url(self.name)

    def make_topic(self) -> None:
        """Make the change topic as Connect does."""
        config = {"cleanup.policy": "delete", "max.message.bytes": str(MAX_MESSAGE_BYTES)}
        ensure_topic(self.pipeline.admin, self.topic, self.pipeline.spec.topic_partitions, config)

    def insert(self, *documents: Mapping[str, Any], op: Op = "c") -> None:
        """New documents; `op="r"` as a snapshot reads them."""
        for document in documents:
            self._upsert(op, document)

    def update(self, *documents: Mapping[str, Any]) -> None:
        """Changed documents, each whole as it is after the change."""
        for document in documents:
            self._upsert("u", document)

    def delete(self, *ids: Any) -> None:
        """Deletes, each with its tombstone."""
        for each in ids:
            existed = self.model.pop(key_text(each), None) is not None
            self.send(event_key(each), self._value("d", None), changes_a_row=existed)
            self.send(event_key(each), None)

    def lost_update(self, document_id: Any) -> None:
        """An update whose document was gone when Debezium looked it up: changes nothing."""
        self.send(event_key(document_id), self._value("u", None))

    def send(
        self,
        key: bytes | None,
        value: bytes | None,
        *,
        changes_a_row: bool = False,
        partition: int | None = None,
        headers: list[tuple[str, str | bytes | None]] | None = None,
    ) -> None:
        """One record as it is. `partition`: None is the one that the key belongs to; without a key, 0."""
        if partition is None:
            partition = 0 if key is None else partition_for(key, self.pipeline.spec.topic_partitions)

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._failures.append(error)
            elif changes_a_row:
                self._changed_to[partition] = (message.offset() or 0) + 1

        while True:
            try:
                self._producer.produce(self.topic, value, key, partition, delivered, headers=headers or [])
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until Kafka has every event."""
        left = self._producer.flush(FLUSH_TIMEOUT_S)
        assert not left, f"{self.topic}: Kafka did not take {left} events within {FLUSH_TIMEOUT_S:.0f} s"
        assert not self._failures, f"{self.topic}: {self._failures[0].str()}"

    def await_applied(self, timeout_s: float = EQUAL_TIMEOUT_S) -> None:
        """Wait until the table's offsets say that every event that changes a row is in it."""
        self.flush()
        try:
            wait_until(self._applied, timeout_s, f"{self.topic} is applied up to {self._changed_to}")
        except AssertionError as late:
            stands = self.pipeline.offsets(self.name)
            raise AssertionError(f"{late}; the table stands at {stands}\n{self.pipeline.writer.log_tail()}") from None

    def await_equal(self, timeout_s: float = EQUAL_TIMEOUT_S) -> None:
        """Wait until every event is applied, then hold the table against the model."""
        self.await_applied(timeout_s)
        self.assert_equal()

    def assert_equal(self) -> None:
        """Raise AssertionError with the difference unless the table equals the model now."""
        told = difference(self.model, self.pipeline.rows(self.name))
        assert not told, f"{self.url} is not equal to the model:\n{told}"

    def _applied(self) -> bool:
        self.pipeline.check_running()
        stands = self.pipeline.offsets(self.name)
        return all(stands.get(partition, 0) >= offset for partition, offset in self._changed_to.items())

    def _upsert(self, op: Op, document: Mapping[str, Any]) -> None:
        self.model[key_text(document["_id"])] = canonical_document(document)
        self.send(event_key(document["_id"]), self._value(op, document), changes_a_row=True)

    def _value(self, op: Op, document: Mapping[str, Any] | None) -> bytes:
        return event_value(
            op,
            document,
            pipeline=self.pipeline.name,
            database=self.pipeline.database,
            collection=self.name,
            ts_ms=int(time.time() * 1000),
        )
