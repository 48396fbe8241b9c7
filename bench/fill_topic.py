"""Fill a Kafka topic with change events directly, past MongoDB and Connect, which are slower than what is measured."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from rich.progress import track

from bench.events import Event, EventFactory

ADMIN_TIMEOUT_S = 30.0
FLUSH_TIMEOUT_S = 120.0
PRODUCER_CONFIG: dict[str, str | int | float | bool] = {
    "enable.idempotence": True,
    "compression.type": "lz4",
    "linger.ms": 20,
    "batch.size": 512 * 1024,
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 256 * 1024,
}


def create_topic(bootstrap_servers: str, topic: str) -> None:
    """Create the topic with one partition, so that its order is one sequence. Raises KafkaException when it exists."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    config = {"cleanup.policy": "delete", "retention.ms": str(7 * 86_400_000)}
    future = admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1, config=config)])[topic]
    future.result(timeout=ADMIN_TIMEOUT_S)


def delete_topic(bootstrap_servers: str, topic: str) -> None:
    """Delete the topic; one that is not there is fine."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})  # must outlive the request
    try:
        admin.delete_topics([topic])[topic].result(timeout=ADMIN_TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise


def produce(bootstrap_servers: str, topic: str, events: Iterable[Event]) -> int:
    """Write the events to partition 0 in order and return how many messages Kafka acknowledged, tombstones included.

    Raises KafkaException for the first message that Kafka refuses, TimeoutError when it does not take the rest in time.
    """
    producer = Producer({"bootstrap.servers": bootstrap_servers, **PRODUCER_CONFIG})
    acknowledged = 0
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        nonlocal acknowledged
        if error is None:
            acknowledged += 1
        else:
            refused.append(error)

    for event in events:
        while True:
            try:
                producer.produce(topic, value=event.value, key=event.key, partition=0, on_delivery=delivered)
                break
            except BufferError:  # the broker is slower than we are: let it take some
                producer.poll(0.1)
        producer.poll(0)
        if refused:
            raise KafkaException(refused[0])
    if unsent := producer.flush(FLUSH_TIMEOUT_S):
        raise TimeoutError(f"{topic}: Kafka did not take {unsent} messages within {FLUSH_TIMEOUT_S:.0f} s")
    if refused:
        raise KafkaException(refused[0])
    return acknowledged


def main(
    topic: Annotated[str, typer.Argument(help="The topic; it is created and must not exist.")],
    bootstrap_servers: Annotated[str, typer.Option(envvar="KAFKA_BOOTSTRAP_SERVERS", help="host:port of the brokers.")],
    events: Annotated[int, typer.Option(min=1, help="How many inserts of new documents.")] = 200_000,
    changes: Annotated[int, typer.Option(min=0, help="How many mixed changes after them.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
) -> None:
    """Fill a new topic with Debezium-shaped events of `bench.orders`: inserts first, then mixed changes."""
    factory = EventFactory(seed)

    def story() -> Iterator[Event]:
        yield from track(factory.inserts(events), "inserts", total=events, transient=True)
        yield from track(factory.changes(changes), "changes", total=None, transient=True)

    started = time.monotonic()
    create_topic(bootstrap_servers, topic)
    messages = produce(bootstrap_servers, topic, story())
    took = time.monotonic() - started
    print(
        f"{topic}: {messages} messages in {took:.1f} s ({messages / took:,.0f}/s), {factory.live_rows} live documents"
    )


if __name__ == "__main__":
    typer.run(main)
