"""Taking a pipeline away: its connector, its spec and its topics. Its Delta tables stay."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import httpx
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.connect.connector_secrets import ConnectorSecrets
from cdc_shared.errors import CdcError, Fatal
from cdc_shared.kafka.spec_topic import SpecReader, delete_spec
from cdc_shared.kafka.topics import (
    DEAD_LETTERS_TOPIC,
    PIPELINES_TOPIC,
    STATUS_TOPIC,
    notification_topic,
    signal_topic,
)
from local_stack.errors import StackError

KAFKA_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 30.0
WRITER_TIMEOUT_S = 60.0
POLL_S = 0.25
SIGNALS = signal_topic("")
CONNECTOR_TOPICS = (SIGNALS, notification_topic(""))
PLATFORM_TOPICS = frozenset({DEAD_LETTERS_TOPIC, PIPELINES_TOPIC, STATUS_TOPIC})


def undeploy(name: str, endpoints: Mapping[str, str], progress: Callable[[str], None]) -> None:
    """Remove a pipeline that the control plane does not have, but not its tables. It may be interrupted and repeated.

    Connect forgets how far the connector had read, so that one deployed under this name later begins with a snapshot:
    its topics would otherwise lack what the removed ones held. Raises `StackError`, also for an unknown pipeline.
    """
    bootstrap = endpoints["KAFKA_BOOTSTRAP_SERVERS"]
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        existing = pipelines(_topics(admin), _specs(bootstrap))
        if name not in existing:
            raise StackError(f"there is no pipeline {name!r}; there are: {', '.join(existing) or 'none'}")
        progress(f"removing connector {name}")
        _remove_connector(name, endpoints["CONNECT_URL"])
        ConnectorSecrets(Path(endpoints["CONNECT_SECRETS_DIR"])).remove(name)
        delete_spec(bootstrap, name)
        progress(f"waiting for the delta-writer to leave {name}")
        _wait_until_writer_has_left(name, endpoints["WRITER_URL"])
        progress(f"removing the topics of {name}")
        _remove_topics(admin, topics_of(name, _topics(admin)))
    except CdcError as error:
        raise StackError(f"{name} cannot be removed: {error}") from None


def pipelines(topics: Iterable[str], specs: Iterable[str]) -> list[str]:
    """Names of the pipelines: those with a spec, and those of which an interrupted removal has left topics."""
    return sorted({*specs, *(topic.removeprefix(SIGNALS) for topic in topics if topic.startswith(SIGNALS))})


def topics_of(name: str, topics: Iterable[str]) -> list[str]:
    """What a pipeline has of `topics`, the signal topic last: as long as it is there, the removal can be repeated."""
    signals = signal_topic(name)
    exact = {f"__debezium-heartbeat.{name}", notification_topic(name)}
    mine = [
        topic
        for topic in topics
        if topic in exact
        or (topic.startswith(f"{name}.") and topic not in PLATFORM_TOPICS and not topic.startswith(CONNECTOR_TOPICS))
    ]
    return [*sorted(mine), *(topic for topic in topics if topic == signals)]


def _topics(admin: AdminClient) -> Collection[str]:
    try:
        return admin.list_topics(timeout=KAFKA_TIMEOUT_S).topics.keys()
    except KafkaException as error:
        raise StackError(f"Kafka does not answer ({error.args[0].str()}): see `make status`") from None


def _specs(bootstrap: str) -> set[str]:
    """Names of the specs in force, and of those that cannot be used: they can be taken back all the same."""
    names: set[str] = set()
    with SpecReader.open(bootstrap, lambda name, _: names.add(name)) as reader:
        while not reader.caught_up:
            change = reader.poll()
            if change is not None and change.spec is None:
                names.discard(change.name)
            elif change is not None:
                names.add(change.name)
    return names


def _remove_connector(name: str, url: str) -> None:
    """Stop the connector, let Connect forget its offsets, then delete it: offsets outlive a connector otherwise."""
    with ConnectClient(url) as connect:
        if connect.status(name) is None:
            return
        connect.stop(name, CONNECT_TIMEOUT_S)
        connect.forget_offsets(name, CONNECT_TIMEOUT_S)
        connect.delete(name)


def _wait_until_writer_has_left(name: str, url: str) -> None:
    """What is removed must not be written to any more. A writer that does not run writes nothing."""
    deadline = time.monotonic() + WRITER_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if name not in httpx.get(f"{url}/health").json().get("pipelines", {}):
                return
        except httpx.TransportError:
            return
        time.sleep(POLL_S)
    raise Fatal(f"the delta-writer still works on it after {WRITER_TIMEOUT_S:.0f} s; see `make logs PART=writer`")


def _remove_topics(admin: AdminClient, topics: list[str]) -> None:
    """Remove them, the last one only after all others."""
    for group in (topics[:-1], topics[-1:]):
        if not group:
            continue
        for topic, future in admin.delete_topics(group, operation_timeout=KAFKA_TIMEOUT_S).items():
            try:
                future.result(KAFKA_TIMEOUT_S)
            except KafkaException as error:
                raise Fatal(f"topic {topic} stays: {error.args[0].str()}") from None
