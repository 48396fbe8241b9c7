"""Resyncs on the real stack: every step taken twice, by processes of which none knows another; and through the API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from api_database import TrialDatabase
from delta_reading import query_with_duckdb
from managed_pipeline import ManagedPipeline, managed_pipeline, running_api
from mongo_pipeline import MongoPipeline
from stack_endpoints import Stack
from trial_pipeline import trial_name
from waiting import wait_until

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import KafkaSettings, SecretsSettings
from cdc_shared.snapshots.snapshot_follower import SnapshotFollower
from cdc_shared.snapshots.snapshot_progress import CollectionState, SnapshotProgress, SnapshotState
from cdc_shared.source.collection_counts import count_documents
from cdc_shared.source.mongodb_source import MongodbSource
from control_plane.controller.operations.operation import Done, Operation, OperationContext
from control_plane.controller.operations.removal import all_topics, change_topics_of, tables_of
from control_plane.controller.operations.resync import ResyncOperation, ResyncSystems

pytestmark = pytest.mark.integration

TIMEOUT_S = 90.0
NO_SECRETS = SecretsSettings(file=None, key_file=None, key=None)
ITEMS = 40_000
OTHERS = 5


class OperatedPipeline:
    """A pipeline, and the operations as a controller takes their steps."""

    def __init__(self, pipeline: MongoPipeline) -> None:
        self.pipeline = pipeline
        self.stack = pipeline.stack
        self.kafka = KafkaSettings.model_validate(
            {"KAFKA_BOOTSTRAP_SERVERS": pipeline.stack.kafka, "CDC_PIPELINES_TOPIC": pipeline.specs_topic}
        )
        self.follower = SnapshotFollower(pipeline.stack.kafka, self._count)

    def source(self, spec: PipelineSpec) -> MongodbSource:
        variable = spec.source.connection.removeprefix("env:")
        return MongodbSource(spec.source, NO_SECRETS, {variable: self.stack.mongodb_uri})

    def connect(self) -> ConnectClient:
        return ConnectClient(self.stack.connect_url)

    def snapshot(self) -> SnapshotProgress | None:
        return self.follower.look([self.pipeline.spec]).get(self.pipeline.name)

    def resync(self, **arguments: Any) -> str:
        systems = ResyncSystems(self.kafka, self.stack.object_store, self.connect, self.source)
        return self._work(lambda: ResyncOperation(systems), arguments)

    def _work(self, new: Callable[[], Operation], arguments: Mapping[str, Any]) -> str:
        """Take every step twice, as after a crash before its result was stored; return what it says at the end."""
        memory: Mapping[str, Any] = {}
        done: list[str] = []

        def is_done() -> bool:
            nonlocal memory
            context = OperationContext(self.pipeline.spec, "running", arguments, memory)
            new().step(context)
            result = new().step(context)
            if isinstance(result, Done):
                done.append(result.message)
                return True
            memory = json.loads(json.dumps(result.memory))
            print(result.message)
            return False

        wait_until(is_done, TIMEOUT_S, "the operation is done")
        return done[0]

    def _count(self, spec: PipelineSpec) -> Mapping[str, int]:
        with closing(self.source(spec)) as source:
            return count_documents(source, spec)

    def await_snapshot(self, begin: Callable[[], object]) -> list[SnapshotProgress]:
        """Look at the snapshot while `begin` runs and until it is complete; return what was seen."""
        seen: list[SnapshotProgress] = []

        def completed() -> bool:
            progress = self.snapshot()
            if progress is not None:
                seen.append(progress)
            return progress is not None and progress.state is SnapshotState.COMPLETED

        with ThreadPoolExecutor(1) as thread:
            looking = thread.submit(wait_until, completed, TIMEOUT_S, "the snapshot is complete", 0.02)
            begin()
            looking.result(TIMEOUT_S)
        return seen


@pytest.fixture
def operated(
    stack: Stack, tests_root: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[OperatedPipeline]:
    """A pipeline of two collections that has not begun."""
    name = trial_name(request.node.name)
    pipeline = MongoPipeline(stack, name, tests_root, tmp_path / name)
    operated = OperatedPipeline(pipeline)
    try:
        pipeline.db["items"].insert_many([{"_id": n, "n": n % 100, "t": "x" * 100} for n in range(ITEMS)])
        pipeline.db["others"].insert_many([{"_id": n} for n in range(OTHERS)])
        yield operated
    finally:
        operated.follower.close()
        pipeline.close()


def check_progress(seen: list[SnapshotProgress]) -> None:
    """What was seen of the first snapshot of the pipeline above."""
    running, last = [each for each in seen if each.state is SnapshotState.RUNNING], seen[-1]
    counted = [each for each in running if each.documents]
    assert counted, "the snapshot was over before it was looked at"
    for each in counted:
        assert each.documents is not None
        assert each.percent is not None
        assert each.total == ITEMS + OTHERS
        assert each.documents <= each.total
        assert each.percent < 100
    documents = [each.documents or 0 for each in running]
    assert documents == sorted(documents)
    assert any(part.state is CollectionState.READING for each in counted for part in each.collections)
    assert last.percent == 100
    assert last.completed_ms is not None
    assert last.completed_ms >= last.started_ms


def offsets_of(pipeline: MongoPipeline, condition: str) -> set[int]:
    """The offsets of the last events of some items."""
    query = f"SELECT _cdc_offset FROM t WHERE {condition}"
    rows = query_with_duckdb(pipeline.table_url("items"), pipeline.stack.object_store, query)
    return {int(offset) for offset in rows.column("_cdc_offset").to_pylist() if offset is not None}


@pytest.mark.timeout(240)
def test_every_step_may_be_repeated(operated: OperatedPipeline) -> None:
    pipeline, db = operated.pipeline, operated.pipeline.db
    check_progress(operated.await_snapshot(pipeline.start))
    for collection in ("items", "others"):
        pipeline.await_equal(collection, TIMEOUT_S)

    # The stream tells nothing of a collection that is dropped: its rows stay.
    db.drop_collection("others")
    db["others"].insert_one({"_id": "new"})
    assert "2 tables whole" in operated.resync()
    assert pipeline.rows("others") == pipeline.documents("others")
    assert pipeline.rows("items") == pipeline.documents("items")

    before = pipeline.held("items", 0)[1]
    assert f"{ITEMS // 100:,} documents" in operated.resync(collections=["items"], filter={"n": 3, "_id": {"$gte": 0}})
    assert min(offsets_of(pipeline, "n = 3")) >= before
    assert max(offsets_of(pipeline, "n <> 3")) < before
    assert pipeline.rows("items") == pipeline.documents("items")


@pytest.fixture
def managed(
    stack: Stack,
    database: TrialDatabase,
    tests_root: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[ManagedPipeline]:
    """A pipeline to be made through an API of its own."""
    monkeypatch.setenv("MONGODB_URI", stack.mongodb_uri)
    with managed_pipeline(stack, trial_name(request.node.name), tests_root, tmp_path, database) as pipeline:
        yield pipeline


@pytest.mark.timeout(240)
def test_another_process_goes_on_with_a_resync(managed: ManagedPipeline, database: TrialDatabase) -> None:
    db, stores = managed.db, managed.stack.object_store

    def is_done() -> bool:
        operation = managed.operations()[0]
        assert operation["state"] != "failed", operation
        return bool(operation["state"] == "succeeded")

    db["items"].insert_many([{"_id": n} for n in range(500)])
    managed.create()
    managed.ask("start")
    managed.await_state("running")
    managed.await_equal("items")

    # The stream tells nothing of a collection that is dropped: its rows stay.
    db.drop_collection("items")
    db["items"].insert_many([{"_id": n} for n in range(490, 600)])
    managed.ask("resync", collections=["items"])
    wait_until(lambda: managed.operations()[0]["state"] == "running", TIMEOUT_S, "the resync has begun")
    managed.stop_api()
    with running_api(managed.settings, database) as other:
        managed.api = other
        wait_until(is_done, TIMEOUT_S, "the resync is done")
        assert managed.rows("items") == managed.documents("items")
        managed.await_state("running")

        managed.ask("stop")
        managed.await_state("stopped")
        managed.ask("reset", keep_tables=False)
        wait_until(is_done, TIMEOUT_S, "the reset is done")
        assert tables_of(managed.spec, stores) == []
        assert change_topics_of(managed.spec, all_topics(managed.admin)) == []
        with ConnectClient(managed.stack.connect_url) as connect:
            assert connect.offsets(managed.name) == []
        assert managed.state() == "stopped"
