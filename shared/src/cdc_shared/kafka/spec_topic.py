"""Pipeline specs through the compacted topic `cdc.pipelines`: key = the pipeline's name, value = its spec, null =
deleted.

A deployment may name another topic (`CDC_PIPELINES_TOPIC`), so that its writers run pipelines of their own.
Writers follow the topic and so go on when whatever published to it is down. It has one partition: changes come in
order.
"""

from collections.abc import Callable, Iterator
from threading import Event
from time import monotonic
from types import TracebackType
from typing import NamedTuple, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.compacted_topic import (
    POLL_S,
    READ_TIMEOUT_S,
    ensure_compacted,
    has_topic,
    publish_record,
    whole_topic_consumer,
)
from cdc_shared.kafka.errors import map_kafka_error
from cdc_shared.kafka.topics import PIPELINES_TOPIC
from cdc_shared.models.common import InvalidSpec, PipelineSpec, decode_spec, encode_spec


class UnknownPipeline(Fatal):
    """No spec of that name is published."""


class SpecChange(NamedTuple):
    name: str
    spec: PipelineSpec | None
    """None: the pipeline was deleted."""


def publish_spec(
    bootstrap_servers: str, spec: PipelineSpec, replication_factor: int = 1, topic: str = PIPELINES_TOPIC
) -> None:
    """Publish a spec, new or changed; returns once every in-sync replica has it. Raises `Transient` or `Fatal`."""
    publish_record(bootstrap_servers, topic, spec.name.encode(), encode_spec(spec), replication_factor)


def delete_spec(bootstrap_servers: str, name: str, replication_factor: int = 1, topic: str = PIPELINES_TOPIC) -> None:
    """Publish that a pipeline is deleted; the same promises as `publish_spec`. Deleting an unknown one does no harm."""
    publish_record(bootstrap_servers, topic, name.encode(), None, replication_factor)


def read_spec(bootstrap_servers: str, name: str, topic: str = PIPELINES_TOPIC) -> PipelineSpec:
    """The spec in force of one pipeline; makes no topic. Raises `UnknownPipeline`, `InvalidSpec`, and `Transient`
    without Kafka."""
    if not has_topic(bootstrap_servers, topic):
        raise UnknownPipeline(
            f"pipeline {name} is not published: this Kafka ({bootstrap_servers}) has no topic {topic}; publish its "
            "spec, or correct KAFKA_BOOTSTRAP_SERVERS"
        )
    specs, unusable = _read_all(bootstrap_servers, topic)
    if name not in specs:
        raise unusable.get(name) or UnknownPipeline(
            f"pipeline {name} is not in {topic}; publish its spec, or correct the name"
        )
    return specs[name]


def read_specs(bootstrap_servers: str, topic: str = PIPELINES_TOPIC) -> dict[str, PipelineSpec]:
    """Every usable spec in force, by its pipeline's name; makes no topic. Raises `Transient` without Kafka."""
    return _read_all(bootstrap_servers, topic)[0] if has_topic(bootstrap_servers, topic) else {}


def _read_all(bootstrap_servers: str, topic: str) -> tuple[dict[str, PipelineSpec], dict[str, InvalidSpec]]:
    unusable: dict[str, InvalidSpec] = {}
    specs: dict[str, PipelineSpec] = {}
    deadline_s = monotonic() + READ_TIMEOUT_S
    with SpecReader(whole_topic_consumer(bootstrap_servers), unusable.__setitem__, topic) as reader:
        while not reader.caught_up:
            change = reader.poll()
            if change is None:
                if monotonic() > deadline_s:
                    raise Transient(f"read {topic}: not at its end within {READ_TIMEOUT_S:.0f} s")
            elif change.spec is None:
                specs.pop(change.name, None)
            else:
                specs[change.name] = change.spec
    return specs, unusable


class SpecReader:
    """Follows the spec topic from its start, without a consumer group: every reader sees every spec.

    A record that holds no usable spec goes to `on_invalid` with its key; the pipeline's last good spec stays in force.
    Not thread-safe.
    """

    def __init__(
        self, consumer: Consumer, on_invalid: Callable[[str, InvalidSpec], None], topic: str = PIPELINES_TOPIC
    ) -> None:
        """`consumer` needs `enable.partition.eof` (see `open`) and is closed with the reader."""
        self._consumer = consumer
        self._on_invalid = on_invalid
        self._topic = topic
        self.caught_up = False
        """Whether everything that was in the topic at the start has been read."""
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])

    @classmethod
    def open(
        cls,
        bootstrap_servers: str,
        on_invalid: Callable[[str, InvalidSpec], None],
        replication_factor: int = 1,
        topic: str = PIPELINES_TOPIC,
    ) -> Self:
        """A reader on its own consumer; makes the topic when it is missing. Raises `Transient` or `Fatal`."""
        ensure_compacted(bootstrap_servers, topic, replication_factor)
        return cls(whole_topic_consumer(bootstrap_servers), on_invalid, topic)

    def poll(self, timeout_s: float = POLL_S) -> SpecChange | None:
        """The next change, or None after `timeout_s` without one. Raises `Fatal` for errors that no waiting cures."""
        message = self._consumer.poll(timeout_s)
        if message is None:
            return None
        error = message.error()
        if error is None:
            return self._change(message)
        if error.code() == KafkaError._PARTITION_EOF:
            self.caught_up = True
            return None
        mapped = map_kafka_error(error, f"read {self._topic}")
        if not isinstance(mapped, Transient):  # librdkafka reconnects by itself
            raise mapped
        return None

    def read_existing(self, stop_event: Event) -> dict[str, PipelineSpec]:
        """Every spec in force at the start, by name. Ends early, with what it has, when `stop_event` is set."""
        specs: dict[str, PipelineSpec] = {}
        while not self.caught_up and not stop_event.is_set():
            change = self.poll()
            if change is None:
                continue
            if change.spec is None:
                specs.pop(change.name, None)
            else:
                specs[change.name] = change.spec
        return specs

    def changes(self, stop_event: Event) -> Iterator[SpecChange]:
        """Changes as they come, until `stop_event` is set."""
        while not stop_event.is_set():
            change = self.poll()
            if change is not None:
                yield change

    def close(self) -> None:
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _change(self, message: Message) -> SpecChange | None:
        key, value = message.key(), message.value()
        name = key.decode("utf-8", "backslashreplace") if key else ""
        where = f"{self._topic} offset {message.offset()}"
        if not name:
            error = InvalidSpec(f"{where}: a record without a key; publish with the pipeline's name as its key")
            self._on_invalid(name, error)
            return None
        if value is None:
            return SpecChange(name, None)
        try:
            return SpecChange(name, decode_spec(name, value))
        except InvalidSpec as error:
            self._on_invalid(name, InvalidSpec(f"{where}: {error}"))
            return None
