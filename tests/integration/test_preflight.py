"""The preflight on the running stack and against parts that are away: it is right, quick, and leaves nothing."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import obstore
import pytest
from api_app import Api, settings_for
from api_database import TrialDatabase
from bson import ObjectId
from confluent_kafka.admin import AdminClient
from deltalake import write_deltalake
from pyarrow import table as arrow_table
from pydantic import SecretStr
from pymongo import MongoClient
from stack_endpoints import Stack

from cdc_shared.models.common import PipelineSpec
from cdc_shared.security.references import EnvironmentProvider
from cdc_shared.settings import ConnectSettings, KafkaSettings
from cdc_shared.storage.object_store import delete_everything, open_store
from control_plane.models.preflight import CheckOutcome, CheckResult, PreflightReport
from control_plane.permissions import Role
from control_plane.services.preflight import Preflight
from control_plane.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

ALL_CHECKS = (
    *("source_reachable", "replica_set", "privileges", "oplog_window", "collections", "document_sizes", "id_types"),
    *("kafka", "connect", "connector_plugin", "connector_config", "bucket_writable", "target"),
)
MEBIBYTE = 1024 * 1024
LONGEST_S = 15.0
PASSWORD = "hunter2-Planted"
HOST = "127.0.0.1"


class Trial:
    """A source database of the test's own, and a place for tables."""

    def __init__(self, stack: Stack, settings: Settings, root: str) -> None:
        self.name = f"t-{uuid.uuid4().hex[:10]}-preflight"
        self.stack = stack
        self.settings = settings
        self.root = root
        self.variables = {"SOURCE": stack.mongodb_uri}

    def spec(self, **fields: Any) -> PipelineSpec:
        source = {"connection": "env:SOURCE", "database": self.name} | fields.pop("source", {})
        sink = {"root": self.root}
        return PipelineSpec.model_validate({"name": self.name, "source": source, "sink": sink} | fields)

    async def report(self, settings: Settings | None = None, **fields: Any) -> PreflightReport:
        preflight = Preflight(settings or self.settings, {"env": EnvironmentProvider(self.variables)})
        return await preflight.report(self.spec(**fields))


@pytest.fixture
def trial(stack: Stack, database: TrialDatabase, tests_root: str, tmp_path: Path) -> Iterator[Trial]:
    trial = Trial(stack, settings_for(stack, database, tmp_path), tests_root)
    try:
        with MongoClient[dict[str, Any]](stack.mongodb_uri) as mongodb:
            mongodb[trial.name]["orders"].insert_many([{"_id": ObjectId(), "n": n} for n in range(20)])
            yield trial
            mongodb.drop_database(trial.name)
    finally:
        delete_everything(f"{tests_root}/{trial.name}", stack.object_store)


def by_name(report: PreflightReport) -> dict[str, CheckResult]:
    assert tuple(each.name for each in report.checks) == ALL_CHECKS
    return {each.name: each for each in report.checks}


def traces(trial: Trial) -> dict[str, Any]:
    """Everything that a check could have left somewhere."""
    with MongoClient[dict[str, Any]](trial.stack.mongodb_uri) as mongodb:
        database = mongodb[trial.name]
        documents = {name: database[name].count_documents({}) for name in database.list_collection_names()}
    topics = AdminClient({"bootstrap.servers": trial.stack.kafka}).list_topics(timeout=10).topics
    listing = obstore.list_with_delimiter(open_store(trial.root, trial.stack.object_store))
    return {
        "documents": documents,
        "topics": sorted(name for name in topics if trial.name in name),
        "connector": httpx.get(f"{trial.stack.connect_url}/connectors/{trial.name}").status_code,
        "objects": sorted(each["path"] for each in listing["objects"] if each["path"]),  # SeaweedFS lists a directory
        "tables": [each for each in listing["common_prefixes"] if trial.name in each],
        "secrets": [path.name for path in trial.stack.connect_secrets_dir.glob("lent_*")],
    }


async def test_a_pipeline_that_would_run_passes_and_nothing_is_left_behind(trial: Trial) -> None:
    before = traces(trial)
    report = await trial.report()
    results = by_name(report)
    assert report.valid
    assert {each.outcome for each in report.checks} <= {CheckOutcome.OK, CheckOutcome.SKIPPED}
    assert results["connector_config"].outcome is CheckOutcome.OK
    assert results["collections"].message == "1 collection: orders"
    assert traces(trial) == before
    assert before["connector"] == 404


async def test_what_is_unusual_about_the_documents_is_told(trial: Trial) -> None:
    with MongoClient[dict[str, Any]](trial.stack.mongodb_uri) as mongodb:
        mongodb[trial.name]["orders"].insert_one({"_id": "text", "large": "x" * (6 * MEBIBYTE)})
    report = await trial.report(source={"include_collections": ["orders", "order"]})
    results = by_name(report)
    assert report.valid
    for name, part in (
        ("collections", "not in the source yet: order; did you mean orders?"),
        ("document_sizes", "has 6.0 MiB (orders); as JSON it may pass quality.dirty_data.max_document_size"),
        ("id_types", "orders (strings and ObjectIds)"),
    ):
        assert results[name].outcome is CheckOutcome.WARNING
        assert part in results[name].message


async def test_a_table_of_somebody_else_and_topics_of_another_shape_fail(trial: Trial) -> None:
    url = f"{trial.root}/{trial.name}/{trial.name}/orders"
    write_deltalake(url, arrow_table({"n": [1]}), storage_options=trial.stack.object_store.storage_options())
    results = by_name(await trial.report())
    assert results["target"].outcome is CheckOutcome.FAILED
    assert "was not made by this platform" in results["target"].message


@contextmanager
def silent_port() -> Iterator[str]:
    """A server that takes connections and says nothing: worse than one that is down."""
    with socket.create_server((HOST, 0)) as server:
        yield f"{HOST}:{server.getsockname()[1]}"


async def test_parts_that_are_away_are_each_told_with_the_remedy(trial: Trial) -> None:
    with socket.create_server((HOST, 0)) as free:
        nobody = f"{HOST}:{free.getsockname()[1]}"
    trial.variables["SOURCE"] = f"mongodb://cdc:{PASSWORD}@{nobody}/?replicaSet=rs"
    with silent_port() as silent:
        settings = replace(
            trial.settings,
            kafka=KafkaSettings(bootstrap_servers=nobody),
            connect=ConnectSettings(url=f"http://{silent}"),
            stores=trial.settings.stores.model_copy(update={"endpoint": f"http://{nobody}"}),
        )
        begun = time.monotonic()
        report = await trial.report(settings)
    assert time.monotonic() - begun < LONGEST_S
    results = by_name(report)
    assert not report.valid
    for name, remedy in (
        ("source_reachable", "start MongoDB"),
        ("kafka", "correct KAFKA_BOOTSTRAP_SERVERS"),
        ("connect", "correct CONNECT_URL"),
        ("bucket_writable", "correct S3_ENDPOINT"),
        ("target", "correct S3_ENDPOINT"),
    ):
        assert results[name].outcome is CheckOutcome.FAILED, name
        assert remedy in results[name].message
    skipped = [each.name for each in report.checks if each.outcome is CheckOutcome.SKIPPED]
    assert set(skipped) == set(ALL_CHECKS) - {"source_reachable", "kafka", "connect", "bucket_writable", "target"}
    assert PASSWORD not in report.model_dump_json()


async def test_wrong_secrets_are_told_apart_and_not_shown(trial: Trial) -> None:
    trial.variables["SOURCE"] = trial.stack.mongodb_uri.replace("mongodb://", f"mongodb://cdc:{PASSWORD}@", 1)
    stores = trial.settings.stores.model_copy(update={"secret_access_key": SecretStr(PASSWORD)})
    report = await trial.report(replace(trial.settings, stores=stores))
    results = by_name(report)
    assert "correct the user, password or authSource" in results["source_reachable"].message
    assert "the store refuses the credentials" in results["bucket_writable"].message
    assert results["kafka"].outcome is results["connect"].outcome is CheckOutcome.OK
    assert PASSWORD not in report.model_dump_json()

    trial.variables["SOURCE"] = f"postgres://cdc:{PASSWORD}@h/db"
    report = await trial.report()
    assert "must begin with mongodb://" in by_name(report)["source_reachable"].message
    assert PASSWORD not in report.model_dump_json()

    del trial.variables["SOURCE"]
    assert "environment variable SOURCE is not set" in by_name(await trial.report())["source_reachable"].message


async def test_through_the_api(trial: Trial, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE", trial.stack.mongodb_uri)
    config = {
        "name": trial.name,
        "source": {"connection": "env:SOURCE", "database": trial.name},
        "sink": {"root": trial.root},
    }
    operator, analyst = await api.signed_in(Role.OPERATOR), await api.signed_in(Role.ANALYST)
    limited = await api.signed_in(Role.OPERATOR, pipelines=["other"])
    for client, path, status in (
        (await api.anybody(), "validate", 401),
        (analyst, "validate", 403),
        (limited, "validate", 403),
        (operator, "validate", 200),
        (operator, f"{trial.name}/validate", 404),
    ):
        answer = await client.post(f"/api/v1/pipelines/{path}", json=config)
        assert answer.status_code == status, answer.text
    audited = await api.database.fetch(
        "SELECT resource, outcome FROM audit_logs WHERE action = 'pipeline.validate' ORDER BY id"
    )
    names = [None, None, trial.name, trial.name, trial.name]
    assert [each["resource"] for each in audited] == names
    assert [each["outcome"] for each in audited] == ["refused", "refused", "refused", "allowed", "failed"]
    assert (await operator.post("/api/v1/pipelines", json=config)).status_code == 201
    answer = await operator.post(f"/api/v1/pipelines/{trial.name}/validate")
    assert answer.status_code == 200, answer.text
    assert PreflightReport.model_validate(answer.json()).valid
    assert (await analyst.post(f"/api/v1/pipelines/{trial.name}/validate")).status_code == 403
