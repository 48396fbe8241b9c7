"""What the checks make of Kafka Connect's answers; the connector's secrets go by a file that is then gone."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.connect.connector_secrets import ConnectorSecrets
from cdc_shared.errors import Fatal
from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.security.secret_provider import Secret
from control_plane.models.preflight import CheckOutcome
from control_plane.services.checks import connect
from control_plane.services.checks.check import Finding
from control_plane.services.checks.source_probe import SourceProbe

pytestmark = pytest.mark.unit

PLUGIN = "io.debezium.connector.mongodb.MongoDbConnector"
TEMPLATE = {"connector.class": PLUGIN, "topic.prefix": "{{pipeline_name}}"}
SPEC = PipelineSpec(name="p", source=SourceSpec(connection="env:X", database="shop"))
Answer = Callable[[httpx.Request], httpx.Response]


class Probe:
    connection = Secret("mongodb://cdc:hunter2@h/")


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], None]:
    """Has a function answer in Connect's place."""

    def answer_with(answer: Answer) -> None:
        monkeypatch.setattr(connect, "ConnectClient", partial(ConnectClient, transport=httpx.MockTransport(answer)))

    return answer_with


def test_the_plugin_is_there_or_not(worker: Callable[[Answer], None]) -> None:
    worker(lambda _: httpx.Response(200, json=[{"class": PLUGIN}]))
    assert connect.answers("http://c").outcome is CheckOutcome.OK
    assert connect.plugin("http://c", TEMPLATE).outcome is CheckOutcome.OK
    worker(lambda _: httpx.Response(200, json=[{"class": "x.Other"}]))
    finding = connect.plugin("http://c", TEMPLATE)
    assert finding.outcome is CheckOutcome.FAILED
    assert "plugin.path" in finding.message


def validate(directory: Path) -> Finding:
    secrets = ConnectorSecrets(directory)
    return connect.configuration("http://c", TEMPLATE, secrets, "k:1", SPEC, cast(SourceProbe, Probe()))


def answer(*refused: tuple[str, str]) -> httpx.Response:
    configs = [{"value": {"name": name, "value": None, "errors": [text]}} for name, text in refused]
    return httpx.Response(200, json={"configs": [{"value": None}, *configs]})


def test_a_configuration_is_judged_with_its_secrets_in_place(tmp_path: Path, worker: Callable[[Answer], None]) -> None:
    sent: dict[str, Any] = {}

    def judge(request: httpx.Request) -> httpx.Response:
        sent.update(json.loads(request.content))
        [file] = tmp_path.iterdir()
        assert str(file) in sent["mongodb.password"]
        assert "hunter2" in file.read_text()
        return answer()

    worker(judge)
    assert validate(tmp_path).outcome is CheckOutcome.OK
    assert sent["topic.prefix"] == sent["name"] == "p"
    assert "hunter2" not in json.dumps(sent)
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_is_told_without_secrets(tmp_path: Path, worker: Callable[[Answer], None]) -> None:
    worker(lambda _: answer(("mongodb.password", "hunter2 is wrong"), ("tasks.max", "must be a number")))
    finding = validate(tmp_path)
    assert finding.outcome is CheckOutcome.FAILED
    assert "mongodb.password: *** is wrong, tasks.max: must be a number" in finding.message
    assert list(tmp_path.iterdir()) == []


def test_a_worker_without_the_provider_is_told_apart(tmp_path: Path, worker: Callable[[Answer], None]) -> None:
    text = "The 'mongodb.connection.string' value is invalid: Invalid connection string"
    worker(lambda _: answer(("mongodb.connection.string", text)))
    assert "config.providers=file" in validate(tmp_path).message


def test_a_worker_that_cannot_read_the_file_is_told_apart(tmp_path: Path, worker: Callable[[Answer], None]) -> None:
    text = "org.apache.kafka.common.config.ConfigException: Could not read properties from file /x"
    worker(lambda _: httpx.Response(500, json={"error_code": 500, "message": text}))
    with pytest.raises(Fatal, match=r"allowed\.paths"):
        validate(tmp_path)
    assert list(tmp_path.iterdir()) == []
