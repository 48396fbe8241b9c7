"""Connectors' secrets on a real Kafka Connect: in no answer of its REST interface, no topic of its and no line of its
log; and a changed secret is in use.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import httpx
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient
from mongo_pipeline import CONNECTOR_TEMPLATE
from private_connect import PrivateConnect
from pymongo import MongoClient
from trial_pipeline import trial_name

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.connect.connector_config import load_template, render_connector_config
from cdc_shared.connect.connector_secrets import ConnectorSecrets
from cdc_shared.errors import Fatal
from cdc_shared.kafka.topics import ensure_connector_topics, notification_topic, signal_topic
from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.security.secret_provider import Secret

pytestmark = pytest.mark.integration

RUNNING_TIMEOUT_S = 60.0
READ_TIMEOUT_S = 30.0
HOST = "127.0.0.1"


class Deployment:
    """One connector on a worker of the test's own."""

    def __init__(self, connect: PrivateConnect, name: str) -> None:
        self.spec = PipelineSpec(name=name, source=SourceSpec(connection="env:MONGODB_URI", database=name))
        self.stack = connect.stack
        self.secrets = ConnectorSecrets(connect.stack.connect_secrets_dir)
        self.client = ConnectClient(connect.stack.connect_url, hide=self.secrets.hide)

    def deploy(self, connection: str) -> None:
        """As every deployment of the platform goes: secrets, configuration, wait, forget the old secret."""
        settings = self.secrets.put(self.spec.name, Secret(connection))
        config = render_connector_config(load_template(CONNECTOR_TEMPLATE), self.spec, settings, self.stack.kafka)
        self.client.put_config(self.spec.name, config)
        self.client.wait_running(self.spec.name, RUNNING_TIMEOUT_S)
        self.secrets.keep_only(self.spec.name, config)

    def files(self) -> list[Path]:
        """What is in the directory of secrets."""
        return list(self.stack.connect_secrets_dir.iterdir())


@pytest.fixture
def deployment(connect: PrivateConnect, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """A connector's surroundings; what it leaves in Kafka and MongoDB is removed."""
    name = trial_name(request.node.name)
    admin = AdminClient({"bootstrap.servers": connect.stack.kafka})
    deployment = Deployment(connect, name)
    ensure_connector_topics(admin, name)
    try:
        yield deployment
    finally:
        with deployment.client as client:
            client.delete(name)
        made = [topic for topic in admin.list_topics(timeout=10).topics if topic.startswith(f"{name}.")]
        made += [signal_topic(name), notification_topic(name), f"__debezium-heartbeat.{name}"]
        wait(admin.delete_topics(made).values(), READ_TIMEOUT_S)
        with MongoClient[dict[str, object]](connect.stack.mongodb_uri) as mongodb:
            mongodb.drop_database(name)


def test_no_secret_is_in_what_connect_stores_answers_and_logs(deployment: Deployment, connect: PrivateConnect) -> None:
    stack, name = deployment.stack, deployment.spec.name
    planted, password = f"planted-{uuid.uuid4().hex[:12]}", f"pw-{uuid.uuid4().hex[:12]}"
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(READ_TIMEOUT_S)
        deployment.deploy(f"{stack.mongodb_uri}&appName={planted}")
        before = deployment.client.connectors()[name].config
        assert len(deployment.files()) == 1

        # Rotated: the new connection string also names a host that only it knows, and the worker goes there.
        uri = stack.mongodb_uri.replace("/?", f",{HOST}:{listener.getsockname()[1]}/?", 1)
        deployment.deploy(f"{uri}&appName={planted}2")
        with listener.accept()[0]:
            pass
    assert deployment.client.connectors()[name].config != before
    assert len(deployment.files()) == 1

    # The source refuses it, and Connect says so: a password that somebody has typed wrong is still a secret. The second
    # one's mechanism leaves it within the connection string.
    wrong = stack.mongodb_uri.replace("mongodb://", f"mongodb://cdc:{password}@", 1)
    for connection in (wrong, f"{wrong}&authMechanism=PLAIN&authSource=$external"):
        with pytest.raises(Fatal, match=r"(?i)authenti") as refused:
            deployment.deploy(connection)
        assert password not in str(refused.value)

    with httpx.Client(base_url=stack.connect_url, timeout=READ_TIMEOUT_S) as http:
        paths = ("config", "status", "tasks", "tasks-config", "offsets", "topics")
        shown = [http.get(f"/connectors/{name}/{path}").text for path in paths]
        shown.append(http.get("/connectors?expand=info&expand=status").text)
    assert f"${{file:{deployment.files()[0].parent}" in shown[0]
    stored = _records(stack.kafka, connect.internal_topics())
    assert any(name.encode() in record for record in stored)
    for secret in (planted, password):
        assert not [text for text in shown if secret in text]
        assert not [record for record in stored if secret.encode() in record]
    # Debezium logs the connection string, without what signs in, when a task starts.
    assert password not in connect.log()


def _records(kafka: str, topics: list[str]) -> list[bytes]:
    """Keys and values of every record of the topics."""
    found: list[bytes] = []
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": f"t-{uuid.uuid4().hex}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        for topic, described in consumer.list_topics(timeout=READ_TIMEOUT_S).topics.items():
            for partition in described.partitions if topic in topics else ():
                found += _partition(consumer, TopicPartition(topic, partition, OFFSET_BEGINNING))
    finally:
        consumer.close()
    return found


def _partition(consumer: Consumer, partition: TopicPartition) -> Iterator[bytes]:
    consumer.assign([partition])
    while True:
        message = consumer.poll(READ_TIMEOUT_S)
        assert message is not None, f"nothing came from {partition}"
        if (error := message.error()) is not None:
            assert error.code() == KafkaError._PARTITION_EOF, error
            return
        yield (message.key() or b"") + b"\0" + (message.value() or b"")
