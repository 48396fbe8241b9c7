"""A Kafka Connect worker of a test's own, which it may kill while the stack's goes on."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import uuid
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path
from string import Template

import httpx
from confluent_kafka.admin import AdminClient
from stack_endpoints import Stack
from waiting import wait_until

from local_stack.jars import are_present, jars_directory
from local_stack.layout import Layout

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
HEAP_MB = 512
SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""It lives for seconds: compiled quickly rather than well it starts with 3 s of processor time instead of 6."""
MAX_MESSAGE_BYTES = 48 * 1024 * 1024
START_TIMEOUT_S = 120.0
CLEANUP_TIMEOUT_S = 30.0
OWN_SETTINGS = ("group.id", "config.storage.topic", "offset.storage.topic", "status.storage.topic")


def missing_part() -> str | None:
    """What a worker needs that this machine has not; None when it has everything."""
    if shutil.which("java") is None:
        return "no Java runtime"
    if not are_present(jars_directory(Layout.of(ROOT))):
        return "no jars of Kafka Connect and Debezium: they come with the embedded stack"
    return None


class PrivateConnect:
    """One distributed worker as in the embedded stack, in a group and with internal topics of its own.

    Started by `start`, killed by `kill`, started again with the same connectors and offsets by `start`.
    """

    def __init__(self, stack: Stack, directory: Path) -> None:
        self._directory = directory
        self._suffix = uuid.uuid4().hex[:8]
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._admin = AdminClient({"bootstrap.servers": stack.kafka})
        self.stack = replace(
            stack, connect_url=f"http://{HOST}:{self._port}", connect_secrets_dir=directory / "connect-secrets"
        )
        """The running stack with this worker in place of its own."""

    def start(self) -> None:
        """Start it and wait until it is in its group and answers."""
        self.stack.connect_secrets_dir.mkdir(parents=True, exist_ok=True)  # the worker does not start without it
        properties = self._directory / "connect.properties"
        properties.write_text(self._properties())
        jars = jars_directory(Layout.of(ROOT))
        with (self._directory / "connect.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("java", f"-Xmx{HEAP_MB}m", *SHORT_LIVED, "-Xshare:auto", "-Djava.awt.headless=true"),
                    f"-Dlog4j2.configurationFile={ROOT / 'config' / 'local' / 'log4j2.properties'}",
                    *("-cp", f"{jars / 'libs'}/*"),
                    *("org.apache.kafka.connect.cli.ConnectDistributed", str(properties)),
                ],
                cwd=self._directory,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        wait_until(self._answers, START_TIMEOUT_S, "the private Kafka Connect answers", poll_s=0.5)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Kill it, and delete its topics."""
        self.kill()
        if made := self.internal_topics():
            wait(self._admin.delete_topics(made).values(), CLEANUP_TIMEOUT_S)

    def internal_topics(self) -> list[str]:
        """Where it keeps configurations, offsets and statuses."""
        existing = self._admin.list_topics(timeout=CLEANUP_TIMEOUT_S).topics
        return [topic for topic in existing if topic.startswith("_connect_") and topic.endswith(self._suffix)]

    def log(self) -> str:
        """Everything that it has logged."""
        return (self._directory / "connect.log").read_text(errors="replace")

    def log_tail(self) -> str:
        """The log's last lines."""
        return "\n".join(self.log().splitlines()[-30:])

    def _properties(self) -> str:
        text = Template((ROOT / "config" / "local" / "connect.properties").read_text()).substitute(
            KAFKA=self.stack.kafka,
            HOST=HOST,
            CONNECT_PORT=self._port,
            PLUGINS=jars_directory(Layout.of(ROOT)) / "plugins",
            MAX_MESSAGE_BYTES=MAX_MESSAGE_BYTES,
            SECRETS=self.stack.connect_secrets_dir,
        )
        for name in OWN_SETTINGS:
            text, found = re.subn(rf"(?m)^({re.escape(name)}=.*)$", rf"\1_{self._suffix}", text)
            assert found == 1, f"{name} is not in the template of connect.properties"
        return text

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log_tail()
        try:  # it says 404 while its resources are not yet registered, and 500 or nothing while it joins its group
            return httpx.get(f"{self.stack.connect_url}/connectors", timeout=5.0, trust_env=False).is_success
        except httpx.TransportError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
