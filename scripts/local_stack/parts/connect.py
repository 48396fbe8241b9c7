"""Kafka Connect with the Debezium MongoDB connector, one distributed worker."""

from typing import Any

import httpx

from local_stack.errors import NotReady
from local_stack.numerals import plural
from local_stack.parts.kafka import MAX_MESSAGE_BYTES, java_command, logging_file
from local_stack.parts.part import Part
from local_stack.stack import Stack

CHECK_TIMEOUT_S = 4.0
DEBEZIUM_MONGODB = "io.debezium.connector.mongodb.MongoDbConnector"


def connect(stack: Stack) -> Part:
    data = stack.layout.data / "connect"
    properties = stack.layout.config / "connect.properties"

    text = stack.render(
        "connect.properties",
        PLUGINS=stack.jars / "plugins",
        MAX_MESSAGE_BYTES=MAX_MESSAGE_BYTES,
        SECRETS=stack.layout.connect_secrets,
    )
    return Part(
        name="connect",
        endpoint=stack.connect_url,
        ready=lambda: check_worker(stack.connect_url),
        healthy=lambda: check_connectors(stack.connect_url),
        command=(
            *java_command(stack, heap_mb=stack.settings.connect_heap_mb),
            *("org.apache.kafka.connect.cli.ConnectDistributed", str(properties)),
        ),
        directory=data,
        files={properties: text, **logging_file(stack)},
        needs=("kafka",),
        ready_within_s=120,
        stop_within_s=30,
    )


def check_worker(url: str) -> str:
    """The worker is in its group, and can run Debezium."""
    plugins = _get(url, "/connector-plugins")
    if DEBEZIUM_MONGODB not in {plugin["class"] for plugin in plugins}:
        raise NotReady("Kafka Connect runs without the Debezium MongoDB connector")
    return plural(len(_get(url, "/connectors")), "connector")


def check_connectors(url: str) -> str:
    """Every connector and every task runs."""
    check_worker(url)
    statuses = [entry["status"] for entry in _get(url, "/connectors?expand=status").values()]
    broken = [problem for status in statuses for problem in _problems(status)]
    if broken:
        raise NotReady("; ".join(broken))
    tasks = sum(len(status["tasks"]) for status in statuses)
    return f"{plural(len(statuses), 'connector')}, {plural(tasks, 'task')} running"


def _get(url: str, path: str) -> Any:
    try:
        with httpx.Client(base_url=url, timeout=CHECK_TIMEOUT_S, trust_env=False) as client:
            return client.get(path).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise NotReady(f"Kafka Connect does not answer: {error}") from None


def _problems(status: dict[str, Any]) -> list[str]:
    """What does not run of a connector, with the first line of its trace. Paused and stopped are somebody's wish, not
    a fault.
    """
    name = status["name"]
    parts = [("connector", status["connector"]), *((f"task {task['id']}", task) for task in status["tasks"])]
    return [
        f"{name} {what} is {state['state']}: {str(state.get('trace', '')).partition(chr(10))[0][:160]}"
        for what, state in parts
        if state["state"] in ("FAILED", "UNASSIGNED")
    ]
