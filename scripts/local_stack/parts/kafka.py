"""The log: one Kafka node, broker and KRaft controller in one process."""

import subprocess
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from local_stack.errors import NotReady, StackError
from local_stack.numerals import plural
from local_stack.parts.part import Part
from local_stack.stack import Stack

LOGGING = "log4j2.properties"
CHECK_TIMEOUT_S = 3.0
FORMAT_TIMEOUT_S = 60
MAX_MESSAGE_BYTES = 90 * 1024 * 1024
"""A MongoDB document may have 16 MB; as JSON, with its envelope, it is larger. The connector's template has the same
limit.
"""


def kafka(stack: Stack) -> Part:
    data = stack.layout.data / "kafka"
    properties = stack.layout.config / "kafka.properties"
    java = java_command(stack, heap_mb=stack.settings.kafka_heap_mb)

    def prepare() -> None:
        if (data / "meta.properties").exists():
            return
        command = [*java, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        command += ["--cluster-id", stack.credentials.kafka_cluster_id, "--config", str(properties)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise StackError(f"Kafka's storage cannot be formatted: {(done.stderr or done.stdout).strip()[-500:]}")

    return Part(
        name="kafka",
        endpoint=stack.kafka,
        ready=lambda: check(stack.kafka),
        command=(*java, "kafka.Kafka", str(properties)),
        directory=data,
        files={
            properties: stack.render("kafka.properties", LOG_DIRECTORY=data, MAX_MESSAGE_BYTES=MAX_MESSAGE_BYTES),
            **logging_file(stack),
        },
        prepare=prepare,
        ready_within_s=90,
        stop_within_s=30,
    )


def java_command(stack: Stack, heap_mb: int) -> tuple[str, ...]:
    """A JVM with Kafka's classes and our logging, up to the main class."""
    return (
        str(stack.java),
        *(f"-Xmx{heap_mb}m", f"-Xms{min(heap_mb, 256)}m", "-XX:+ExitOnOutOfMemoryError", "-Xshare:auto"),
        *("-Djava.awt.headless=true", f"-Dlog4j2.configurationFile={stack.layout.config / LOGGING}"),
        *("-cp", f"{stack.jars / 'libs'}/*"),
    )


def logging_file(stack: Stack) -> dict[Path, str]:
    return {stack.layout.config / LOGGING: (stack.layout.templates / LOGGING).read_text(encoding="utf-8")}


def check(bootstrap: str) -> str:
    """Ask for the cluster's metadata, as every client does first."""
    client = AdminClient(
        {"bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": int(CHECK_TIMEOUT_S * 1000)}
    )
    try:
        metadata = client.list_topics(timeout=CHECK_TIMEOUT_S)
    except KafkaException as error:
        raise NotReady(f"Kafka does not answer: {error.args[0].str()}") from None
    if not metadata.brokers:
        raise NotReady("Kafka has no broker yet")
    return plural(len(metadata.topics), "topic")
