"""What the parts are started with: this machine only, no secret in sight, encryption on, no telemetry."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from local_stack.assembly import parts_of
from local_stack.errors import NotReady
from local_stack.layout import Layout
from local_stack.parts import api as api_part
from local_stack.parts import postgres as postgres_part
from local_stack.parts.api import api
from local_stack.parts.kafka import MAX_MESSAGE_BYTES
from local_stack.parts.mongodb import mongodb
from local_stack.parts.object_store import object_store
from local_stack.parts.part import Part
from local_stack.parts.prometheus import prometheus
from local_stack.parts.writer import running_pipelines, writer
from local_stack.stack import Stack
from local_stack.startup import stop_order

pytestmark = pytest.mark.unit


def all_parts(stack: Stack) -> list[Part]:
    parts = [part for part in parts_of(stack) if part.name != "prometheus"]
    return [*parts, prometheus(stack, Path("/usr/bin/prometheus"))]


def properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def test_no_secret_is_on_a_command_line_or_in_an_endpoint(stack: Stack) -> None:
    credentials = stack.credentials
    secrets = (
        credentials.s3_secret_access_key,
        credentials.s3_encryption_key,
        credentials.postgres_password,
        credentials.api_admin_password,
    )

    for part in all_parts(stack):
        for secret in secrets:
            assert secret not in " ".join((*part.command, part.endpoint)), part.name


def test_nothing_listens_beyond_this_machine(stack: Stack) -> None:
    for part in all_parts(stack):
        texts = [*part.command, *part.files.values()]
        assert not any("0.0.0.0" in text or "localhost" in text for text in texts), part.name
    kafka, connect = (next(part for part in all_parts(stack) if part.name == name) for name in ("kafka", "connect"))
    [broker] = [properties(text) for path, text in kafka.files.items() if path.name == "kafka.properties"]
    [worker] = [properties(text) for path, text in connect.files.items() if path.name == "connect.properties"]
    for listener in (broker["listeners"], broker["advertised.listeners"], worker["listeners"]):
        assert all("//127.0.0.1:" in one for one in listener.split(","))


def test_every_placeholder_of_the_templates_is_filled(stack: Stack) -> None:
    for part in all_parts(stack):
        for path, text in part.files.items():
            if path.name != "log4j2.properties":
                assert not re.search(r"\$\{", text), path


def test_broker_worker_and_connector_agree_on_the_largest_record(stack: Stack) -> None:
    template = (Path(__file__).parents[3] / "config" / "kafka-connect" / "debezium-mongodb.json").read_text()

    assert f'"producer.override.max.request.size": "{MAX_MESSAGE_BYTES}"' in template
    assert f'"topic.creation.default.max.message.bytes": "{MAX_MESSAGE_BYTES}"' in template


def test_the_object_store_encrypts_and_keeps_to_itself(stack: Stack) -> None:
    part = object_store(stack)

    assert part.environment["WEED_S3_SSE_KEK"] == stack.credentials.s3_encryption_key
    assert "-master.telemetry=false" in part.command
    assert "-s3.autoCreateBucket=false" in part.command
    assert "-ip.bind=127.0.0.1" in part.command


def test_the_users_own_mongodb_is_not_started_and_its_password_not_shown(stack: Stack) -> None:
    uri = "mongodb://user:hunter2@db1.example:27017,db2.example/?replicaSet=rs0"
    part = mongodb(replace(stack, settings=replace(stack.settings, mongodb_uri=uri)))

    assert part.command == ()
    assert part.endpoint == "mongodb://db1.example:27017,db2.example:27017"


def test_needs_name_parts_that_exist(stack: Stack) -> None:
    parts = all_parts(stack)

    assert {name for part in parts for name in part.needs} <= {part.name for part in parts}


def test_writers_stop_before_what_they_write_to(stack: Stack) -> None:
    groups = stop_order(part.name for part in all_parts(stack))

    assert groups == [
        ["api", "prometheus", "reconciliation"],
        ["generator"],
        ["writer"],
        ["connect"],
        ["mongodb", "kafka", "seaweedfs", "postgres"],
    ]


def test_postgres_runs_as_nobody_for_root_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(postgres_part.os, "geteuid", lambda: 1000)
    assert postgres_part.unprivileged_prefix(tmp_path) == ()

    monkeypatch.setattr(postgres_part.os, "geteuid", lambda: 0)
    monkeypatch.setattr(postgres_part, "_reachable_by_anybody", lambda _: True)
    prefix = postgres_part.unprivileged_prefix(tmp_path)
    assert prefix[0] == "setpriv"
    assert not any("caps" in word for word in prefix)


def test_postgres_under_a_closed_directory_may_pass_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(postgres_part.os, "geteuid", lambda: 0)
    tmp_path.chmod(0o700)

    assert "--ambient-caps=+dac_override" in postgres_part.unprivileged_prefix(tmp_path / "pgdata")


def test_the_sample_is_left_out_when_it_is_not_wanted(stack: Stack) -> None:
    without = replace(stack, settings=replace(stack.settings, sample=False))

    assert "generator" in {part.name for part in parts_of(stack)}
    assert "generator" not in {part.name for part in parts_of(without)}


def test_two_checkouts_share_no_directory(stack: Stack, tmp_path: Path) -> None:
    other = replace(stack, layout=Layout(tmp_path / "other", stack.layout.cache))
    (other.layout.root / "config").mkdir(parents=True)
    (other.layout.root / "config" / "local").symlink_to(stack.layout.templates)

    ours = {part.directory for part in all_parts(stack) if part.directory}
    theirs = {part.directory for part in all_parts(other) if part.directory}

    assert not ours & theirs


def test_the_writers_finding_names_its_pipelines() -> None:
    assert running_pipelines({"shop", "fleet"}) == "2 pipelines running: fleet, shop"
    assert running_pipelines(["shop"]) == "1 pipeline running: shop"
    assert running_pipelines([]) == "0 pipelines running"


def test_what_else_is_in_env_reaches_writer_and_api_but_not_in_place_of_what_the_stack_says(stack: Stack) -> None:
    own = {"MASK_KEY": "k", "WRITER_CACHE_DIR": "/elsewhere", "API_HOST": "0.0.0.0", "API_RATE_LIMIT": "9/second"}
    given = replace(stack, settings=replace(stack.settings, variables=own))

    assert writer(given).environment["MASK_KEY"] == api(given).environment["MASK_KEY"] == "k"
    assert writer(given).environment["WRITER_CACHE_DIR"] == str(stack.layout.data / "writer")
    assert api(given).environment["API_HOST"] == "127.0.0.1"
    assert api(given).environment["API_RATE_LIMIT"] == "9/second"


def test_the_control_planes_credentials_are_not_the_writers(stack: Stack) -> None:
    own = {"API_ADMIN_PASSWORD": "changed-since"}
    environment = writer(replace(stack, settings=replace(stack.settings, variables=own))).environment

    assert not [name for name in environment if name.startswith("API_")]
    for secret in (stack.credentials.postgres_password, stack.credentials.api_admin_password, "changed-since"):
        assert not [name for name, value in environment.items() if secret in value]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, {"dependencies": [{"name": "kafka", "state": "away"}, {"name": "postgres", "state": "ok"}]}),
         "^kafka is away$"),
        ((503, {}), "/ready says 503"),
    ],
)  # fmt: skip
def test_the_api_names_what_it_misses(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[int, dict[str, object]], reason: str
) -> None:
    monkeypatch.setattr(api_part, "_ask", lambda *_: answer)

    with pytest.raises(NotReady, match=reason):
        api_part.check_dependencies("http://127.0.0.1:8000")
