"""Secrets that can be told apart, planted wherever one can come in, are found nowhere that people or machines read.

The control plane is a process of its own with LOG_LEVEL=DEBUG, on a Kafka Connect worker of its own. What is read
afterwards: every answer (to whoever sent it, an answer names a field, an operator or an SQL word that is wrong, and
repeats no value), the logs of API, writer and Connect, Connect's REST interface and topics, every table of
Postgres, and the topics of specs, rules and statuses.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg
import httpx
import pytest
from api_database import TrialDatabase
from api_process import ADMIN, ApiProcess
from confluent_kafka.admin import AdminClient
from kafka_reading import end_offset, records_since
from mongo_pipeline import CONNECTOR_TEMPLATE, MongoPipeline
from private_connect import PrivateConnect
from pymongo import MongoClient
from stack_endpoints import Stack
from trial_pipeline import trial_name
from waiting import wait_until

from cdc_shared.kafka.rules_topic import RULES_TOPIC
from cdc_shared.kafka.topics import STATUS_TOPIC
from cdc_shared.security import crypto
from cdc_shared.security.encrypted_file import EncryptedFileProvider, read_key_file

pytestmark = pytest.mark.integration

PIPELINES = "/api/v1/pipelines"
AUTH = "/api/v1/auth"
TOKEN = f"{AUTH}/token"
SIGNING_KEYS = "api-signing-keys"
TIMEOUT_S = 60.0
SHOWN_CHARS = 900
"""Of an answer that shows a secret."""


def planted(what: str) -> str:
    """A password that is good enough for the platform's policy, and that nothing else is equal to."""
    return f"Planted-{what}-{secrets.token_hex(8)}"


class Caller:
    """Keeps all that was answered, and which secrets an answer was for."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False)
        self.answers: list[tuple[str, str, frozenset[str]]] = []
        """Request, answer with its headers, and what was to be told in it."""
        self.issued: set[str] = set()

    def ask(self, method: str, path: str, expect: int, *, tells: tuple[str, ...] = (), **options: Any) -> Any:
        """One request. `tells`: members of the answer that are secrets made for whoever asks."""
        answer = self.http.request(method, path, **options)
        assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        is_json = answer.headers.get("content-type", "").endswith("json") and answer.content
        content = answer.json() if is_json else None
        told = frozenset(content[each] for each in tells if content[each] is not None)
        self.issued |= told
        headers = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        self.answers.append((f"{method} {answer.request.url.path}", f"{headers}\n\n{answer.text}", told))
        return content


@pytest.fixture
def pipeline(connect: PrivateConnect, tests_root: str, tmp_path: Path) -> Iterator[MongoPipeline]:
    """What a pipeline needs around it; the control plane makes it. All that is left is removed."""
    name = trial_name("planted")
    pipeline = MongoPipeline(connect.stack, name, tests_root, tmp_path / "writer")
    yield pipeline
    pipeline.close()


@pytest.fixture
def mongodb_password(stack: Stack) -> Iterator[tuple[str, str]]:
    """A user of the source, and the password."""
    user, password = f"u{secrets.token_hex(6)}", planted("mongodb")
    with MongoClient[dict[str, Any]](stack.mongodb_uri) as client:
        client.admin.command("createUser", user, pwd=password, roles=["root"])
        yield user, password
        client.admin.command("dropUser", user)


@pytest.mark.timeout(240)
def test_planted_secrets_are_found_nowhere(
    connect: PrivateConnect,
    pipeline: MongoPipeline,
    mongodb_password: tuple[str, str],
    database: TrialDatabase,
    tmp_path: Path,
) -> None:
    stack, name = connect.stack, pipeline.name
    starts = {topic: end_offset(stack.kafka, topic) for topic in (RULES_TOPIC, STATUS_TOPIC)}
    user, password = mongodb_password
    wrong, mask, first = planted("wrong-mongodb"), planted("mask-key"), planted("first")
    hidden = {"mongodb": password, "wrong mongodb": wrong, "mask key": mask, "first admin": first}

    directory = tmp_path / "api"
    directory.mkdir()
    key_file = directory / "secrets.key"
    key_file.write_text(crypto.encode_key(crypto.generate_key()))
    key_file.chmod(0o600)
    provider = EncryptedFileProvider(directory / "secrets.enc", read_key_file(key_file))
    provider.put(f"{name}/mongodb", _with_password(stack.mongodb_uri, user, password))
    provider.put(f"{name}-b/mongodb", _with_password(stack.mongodb_uri, user, wrong))
    provider.put(f"{name}/mask", mask)
    shared = {"CDC_SECRETS_FILE": str(directory / "secrets.enc"), "CDC_SECRETS_KEY_FILE": str(key_file)}
    environment = shared | {
        "API_CONTROLLER": "1",
        "API_ADMIN_PASSWORD": first,
        "CDC_PIPELINES_TOPIC": pipeline.specs_topic,
        "CONNECT_SECRETS_DIR": str(stack.connect_secrets_dir),
        "CONNECTOR_TEMPLATE": str(CONNECTOR_TEMPLATE),
        "LOG_LEVEL": "DEBUG",
    }
    process = ApiProcess(stack, database, directory, environment)
    try:
        writer = pipeline.start_writer(shared | {"LOG_LEVEL": "DEBUG"})
        caller = Caller(process.url)
        hidden |= call_as_people_do_by_mistake(caller, first)
        run_pipelines(caller, pipeline, hidden)
        rest = connect_answers(stack.connect_url, name)
        process.stop()
    finally:
        process.kill()

    data_key = stack.writer_environment["TESTS_DATA_KEY"]
    pem = provider.get(SIGNING_KEYS).reveal()
    hidden |= {
        "Postgres": urlsplit(database.dsn).password or "",
        "S3": stack.secret_access_key,
        "data key": data_key,
        "key of the secrets file": key_file.read_text(),
        "signing key": re.sub(r"-----[A-Z ]+-----|\s", "", pem)[:60],
        "signing key as it is written": pem.splitlines()[1],
    }
    hidden |= {f"issued {number}": each for number, each in enumerate(sorted(caller.issued))}
    assert min(len(each) for each in hidden.values()) >= 3, {what: len(each) for what, each in hidden.items()}

    places = {
        "the API's log": process.log_file.read_text(),
        "the writer's log": writer.log_file.read_text(),
        "Connect's log": connect.log(),
        **{f"Connect's {path}": text for path, text in rest.items()},
        **{f"table {table}": text for table, text in asyncio.run(tables(database.dsn)).items()},
        **{f"topic {topic}": text for topic, text in topics(stack.kafka, pipeline, connect, starts).items()},
    }
    for where in ("the API's log", "Connect's log", "table pipelines", "table audit_logs", f"topic {STATUS_TOPIC}"):
        assert name in places[where], f"nothing about the pipeline came to be in {where}: the search proves nothing"
    leaks = [(what, where) for what, secret in hidden.items() for where, text in places.items() if shows(text, secret)]
    leaks += [
        (what, f"{asked}: …{text[-SHOWN_CHARS // 2 :]}")
        for what, secret in hidden.items()
        for asked, text, told in caller.answers
        if secret not in told and shows(text, secret)
    ]
    shown = "\n".join(f"{what}: {where[:SHOWN_CHARS]}" for what, where in leaks)
    assert not leaks, f"{len(leaks)} found:\n{shown}"


def call_as_people_do_by_mistake(caller: Caller, first: str) -> dict[str, str]:
    """Sign in, make users and tokens; give secrets where none belong. What was planted, by its place."""
    mine = {
        place: planted(place)
        for place in (
            *("user-name", "password", "refresh", "bearer", "query", "path", "header", "cookie", "agent", "cursor"),
            *(
                "connection",
                "database-host",
                "root",
                "unknown-field",
                "name",
                "where",
                "no-json",
                "number",
                "expression",
            ),
            *("pattern", "new-user", "weak", "changed", "audit-filter", "idempotency", "letter", "basic"),
        )
    }
    ask = caller.ask
    ask("POST", TOKEN, 401, data={"username": mine["user-name"], "password": mine["password"]})
    ask("POST", TOKEN, 401, data={"username": ADMIN, "password": mine["password"]})
    ask("POST", f"{AUTH}/refresh", 401, json={"refresh_token": mine["refresh"]})
    ask("GET", PIPELINES, 401, headers={"Authorization": f"Bearer {mine['bearer']}"})
    ask("GET", PIPELINES, 401, headers={"Authorization": f"Basic {mine['basic']}"})
    ask("GET", f"/api/v1/{mine['path']}", 404)
    form = {"username": ADMIN, "password": first, "client_secret": mine["unknown-field"]}
    tokens = ask("POST", TOKEN, 200, data=form, tells=("access_token", "refresh_token"))
    tokens = ask(
        *("POST", f"{AUTH}/refresh", 200),
        json={"refresh_token": tokens["refresh_token"]},
        tells=("access_token", "refresh_token"),
    )
    caller.http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    odd = {"X-Api-Key": mine["header"], "Cookie": f"session={mine['cookie']}", "User-Agent": mine["agent"]}
    ask("GET", PIPELINES, 200, params={"password": mine["query"]}, headers=odd)
    ask("GET", PIPELINES, 422, params={"cursor": mine["cursor"]})
    ask("GET", f"{PIPELINES}/{mine['name']}", 422)
    ask("GET", "/api/v1/audit", 200, params={"user": mine["audit-filter"]})
    ask("PATCH", PIPELINES, 405, params={"password": mine["query"]})
    wrong_specs: list[dict[str, Any]] = [
        {"name": mine["name"]},
        {"source": {"connection": f"mongodb://u:{mine['connection']}@db.example", "database": "shop"}},
        {"source": {"connection": "env:SHOP", "database": f"u:{mine['database-host']}@db.example/x"}},
        {"sink": {"root": f"s3://key:{mine['root']}@lake/x"}},
        {"password": mine["unknown-field"]},
        {"topic_partitions": mine["number"]},
        {"quality": {"validation": [{"rule": "regex", "path": "/a", "pattern": f"({mine['pattern']}"}]}},
        {"quality": {"validation": [{"rule": "sql", "expression": f"a = '{mine['expression']}' ,,"}]}},
        {"quality": {"transformation": [{"rule": "hash", "path": "/a", "key": mine["expression"]}]}},
    ]
    for wrong in wrong_specs:
        spec = {"name": "shop", "source": {"connection": "env:SHOP", "database": "shop"}} | wrong
        ask("POST", PIPELINES, 422, json=spec, headers={"Idempotency-Key": mine["idempotency"]})
        ask("POST", f"{PIPELINES}/validate", 422, json=spec)
    for content in (f'{{"name": "{mine["no-json"]}', f'"{mine["no-json"]}"', f"[{mine['no-json']}]"):
        ask("POST", PIPELINES, 422, content=content, headers={"Content-Type": "application/json"})
    new = {"name": "maria", "roles": ["operator"]}
    ask("POST", "/api/v1/admin/users", 422, json=new | {"name": f"{mine['user-name']} {mine['name']}"})
    ask("POST", "/api/v1/admin/users", 422, json=new | {"password": mine["weak"][:9]})
    maria = ask("POST", "/api/v1/admin/users", 201, json=new | {"password": mine["new-user"]})
    ask("POST", f"/api/v1/admin/users/{maria['id']}/reset-password", 200, tells=("password",))
    ask("POST", "/api/v1/admin/users", 201, json=new | {"name": "peter"}, tells=("password",))
    machine = {"name": "robot", "permissions": ["pipelines:read"]}
    ask("POST", "/api/v1/admin/service-tokens", 201, json=machine, tells=("token",))
    change = {"current_password": mine["password"], "new_password": mine["changed"]}
    ask("POST", f"{AUTH}/password", 422, json=change | {"more": mine["unknown-field"]})
    ask("POST", f"{AUTH}/password", 204, json=change | {"current_password": first})
    return mine


def run_pipelines(caller: Caller, pipeline: MongoPipeline, mine: dict[str, str]) -> None:
    """One whose source lets it in, and one whose source does not; checks, rules with a key, and what fails of them."""
    ask, name, other = caller.ask, pipeline.name, f"{pipeline.name}-b"
    pipeline.db["items"].insert_many([{"_id": number, "email": f"{number}@example.org"} for number in range(20)])
    rules = {"transformation": [{"rule": "hash", "path": "/email", "key": f"secret:{name}/mask"}]}
    for each, quality in ((name, rules), (other, {})):
        source = {"connection": f"secret:{each}/mongodb", "database": name}
        spec = {"name": each, "source": source, "sink": {"root": pipeline.root}, "quality": quality}
        ask("POST", PIPELINES, 201, json=spec, headers={"Idempotency-Key": f"{mine['idempotency']}-{each}"})
        ask("POST", f"{PIPELINES}/{each}/validate", 200)
        ask("POST", f"{PIPELINES}/{each}/start", 202)

    def state_of(each: str) -> Callable[[], bool]:
        """Whether the controller has seen how it ends."""

        def is_seen() -> bool:
            conditions = ask("GET", f"{PIPELINES}/{each}", 200)["status"]["conditions"]
            found = {condition["kind"]: condition["status"] for condition in conditions}
            if each == name:
                return {"ConnectorRunning", "WriterRunning"} <= {kind for kind in found if found[kind] == "true"}
            return found.get("ConnectorRunning") == "false" and found.get("SourceReachable") == "false"

        return is_seen

    for each in (name, other):
        wait_until(state_of(each), TIMEOUT_S, f"it is seen how {each} ends", poll_s=0.5)
    dry_run = {"collection": "items", "rules": rules}
    url = f"{PIPELINES}/{name}/rules/dry-run"
    wait_until(lambda: caller.http.post(url, json=dry_run).is_success, TIMEOUT_S, "there are events", poll_s=0.5)
    for each in (name, other):
        for path in ("", "/status", "/metrics", "/operations", "/rules", "/rules/versions", "/dead-letters"):
            ask("GET", f"{PIPELINES}/{each}{path}", 200)
    ask("POST", url, 200, json=dry_run)
    ask("GET", f"{PIPELINES}/{name}/dead-letters/{mine['letter']}", 422)
    filters: list[Any] = [{"$where": mine["where"]}, {"$expr": {"$eq": ["$a", mine["where"]]}}, mine["where"]]
    for wanted in filters:
        ask("POST", f"{PIPELINES}/{name}/resync", 422, json={"collections": ["items"], "filter": wanted})
    ask("PUT", f"{PIPELINES}/{name}", 412, json=spec | {"name": name}, headers={"If-Match": f'"{mine["header"]}"'})
    for path in ("/health", "/ready", "/metrics", "/api/v1/metrics", "/api/v1/audit", "/api/v1/audit/export"):
        ask("GET", path, 200)
    for each in (name, other):
        ask("DELETE", f"{PIPELINES}/{each}", 202, params={"force": True, "keep_tables": False})


def connect_answers(url: str, name: str) -> dict[str, str]:
    """What Connect tells of the connectors that there are now."""
    with httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False) as http:
        paths = ["/connectors?expand=info&expand=status"]
        for each in http.get("/connectors").json():
            paths += [f"/connectors/{each}/{part}" for part in ("config", "status", "tasks", "offsets", "topics")]
        return {path: http.get(path).text for path in paths}


async def tables(dsn: str) -> dict[str, str]:
    """Every table, as COPY writes it."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        copied: dict[str, str] = {}
        for row in rows:
            output = BytesIO()
            await connection.copy_from_table(row["tablename"], output=output)
            copied[row["tablename"]] = output.getvalue().decode()
        return copied
    finally:
        await connection.close()


def topics(kafka: str, pipeline: MongoPipeline, connect: PrivateConnect, starts: dict[str, int]) -> dict[str, str]:
    """Specs, rules and statuses of this test's time, and all that the Connect worker keeps."""
    read = {topic: records_since(kafka, topic, start) for topic, start in starts.items()}
    described = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=TIMEOUT_S).topics
    for topic in [pipeline.specs_topic, *connect.internal_topics()]:
        for partition in described[topic].partitions:
            read.setdefault(topic, [])
            read[topic] += records_since(kafka, topic, 0, partition)
    return {
        topic: "\n".join(f"{(each.key() or b'')!r} {(each.value() or b'')!r} {each.headers()}" for each in records)
        for topic, records in read.items()
    }


def shows(text: str, secret: str) -> bool:
    """Whether the text has it as it is, or as URLs, JSON and HTTP write it."""
    forms = {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], base64.b64encode(secret.encode()).decode()}
    folded = text.lower()
    return any(form.lower() in folded for form in forms)


def _with_password(uri: str, user: str, password: str) -> str:
    separator = "&" if "?" in uri else "/?"
    return f"{uri.replace('mongodb://', f'mongodb://{user}:{password}@', 1)}{separator}authSource=admin"
