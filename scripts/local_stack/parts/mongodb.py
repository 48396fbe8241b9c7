"""The source: SecantusDB, which speaks MongoDB's wire protocol with change streams, or a replica set of the user's
own.
"""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from local_stack.errors import NotReady
from local_stack.parts.part import Part
from local_stack.ports import HOST
from local_stack.stack import Stack

CHECK_TIMEOUT_MS = 3_000
OPLOG_MAX_ENTRIES = 5_000_000
OPLOG_RETENTION_S = 24 * 3600
NOOP_HEARTBEAT_S = 10
CACHE_SIZE = "512M"


def mongodb(stack: Stack) -> Part:
    uri = stack.mongodb_uri
    if stack.settings.mongodb_uri is not None:
        return Part(name="mongodb", endpoint=hosts(uri), ready=lambda: check(uri), ready_within_s=20)
    data = stack.layout.data / "mongodb"
    port = str(stack.ports["MONGODB_PORT"])
    settings = stack.layout.config / "secantusd.toml"

    return Part(
        name="mongodb",
        endpoint=f"mongodb://{HOST}:{port}",
        ready=lambda: check(uri),
        command=(
            *(str(stack.layout.venv_bin / "python"), "-m", "secantus", "--config", str(settings)),
            *("--host", HOST, "--port", port, "--storage-path", str(data), "--cache-size", CACHE_SIZE),
            *("--oplog-max-entries", str(OPLOG_MAX_ENTRIES), "--oplog-retention-seconds", str(OPLOG_RETENTION_S)),
            *("--noop-heartbeat-seconds", str(NOOP_HEARTBEAT_S)),
        ),
        directory=data,
        # Named explicitly, so that no secantusd.toml of the user or the machine is picked up instead.
        files={settings: "# Everything is set on the command line.\n"},
        stop_within_s=30,
    )


def check(uri: str) -> str:
    """Ping and hello: the server answers, and as the primary of a replica set, which change streams need."""
    hello = _ask(uri)
    if not hello.get("setName"):
        raise NotReady("MongoDB is not a replica set: change streams need one (start mongod with --replSet)")
    return f"replica set {hello['setName']}"


def server_time(uri: str) -> datetime:
    """MongoDB's own clock, in UTC; changes made from now on carry it or a later time."""
    now: datetime = _ask(uri)["localTime"]
    return now.replace(tzinfo=UTC)


def _ask(uri: str) -> dict[str, Any]:
    timeout_ms = CHECK_TIMEOUT_MS
    try:
        with MongoClient[dict[str, Any]](
            uri, serverSelectionTimeoutMS=timeout_ms, socketTimeoutMS=timeout_ms
        ) as client:
            client.admin.command("ping")
            return client.admin.command("hello")
    except PyMongoError as error:
        raise NotReady(f"MongoDB does not answer: {str(error)[:200]}") from None


def hosts(uri: str) -> str:
    """The URI's hosts, without its credentials and options."""
    if uri.startswith("mongodb+srv:"):  # its hosts are in DNS
        return "mongodb+srv://" + urlsplit(uri).netloc.rpartition("@")[2]
    nodes = parse_uri(uri, validate=False)["nodelist"]
    return "mongodb://" + ",".join(f"{host}:{port}" if port else str(host) for host, port in nodes)
