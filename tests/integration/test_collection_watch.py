"""Drops and re-creations, of which the stream says nothing, are reported with their remedy.

Renames are in the unit tests: a collection keeps its UUID over one in MongoDB, and in SecantusDB it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mongo_pipeline import MongoPipeline
from stack_endpoints import Stack
from status_reports import last_reports
from trial_pipeline import trial_name
from waiting import wait_until

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.resync.resync import Resync
from cdc_shared.resync.resync_progress import ResyncProgress, follow
from cdc_shared.settings import KafkaSettings

pytestmark = pytest.mark.integration

TIMEOUT_S = 90.0
OFTEN = {"WRITER_COLLECTION_WATCH_S": "1"}


@pytest.fixture
def pipeline(stack: Stack, tests_root: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MongoPipeline]:
    """A pipeline whose collection `items` is in its table, and known to the watch."""
    name = trial_name(request.node.name)
    pipeline = MongoPipeline(stack, name, tests_root, tmp_path / name, writer=OFTEN)
    try:
        pipeline.db["items"].insert_many([{"_id": n, "n": n} for n in range(20)])
        pipeline.start()
        pipeline.await_equal("items", TIMEOUT_S)
        wait_until(lambda: "cdc.collectionUuid" in pipeline.properties("items"), TIMEOUT_S, "the UUID is remembered")
        yield pipeline
    finally:
        pipeline.close()


def findings(pipeline: MongoPipeline) -> list[str]:
    """What /health says of the pipeline's collections."""
    return list(pipeline.writer.get("/health").json()["pipelines"].get(pipeline.name, {}).get("findings", []))


def resync(pipeline: MongoPipeline) -> None:
    kafka = KafkaSettings.model_validate(
        {"KAFKA_BOOTSTRAP_SERVERS": pipeline.stack.kafka, "CDC_PIPELINES_TOPIC": pipeline.specs_topic}
    )
    with ConnectClient(pipeline.stack.connect_url) as connect:
        request = Resync(pipeline.spec, kafka, pipeline.stack.object_store, connect, [], print)
        target = request.start()
        with ResyncProgress(
            pipeline.spec, pipeline.stack.object_store, target, pipeline.stack.kafka, print
        ) as progress:
            follow(progress, pipeline.name, connect, print)


@pytest.mark.timeout(300)
def test_collections_that_are_no_longer_the_same_are_reported(pipeline: MongoPipeline) -> None:
    writer, name, db = pipeline.writer, pipeline.name, pipeline.db
    assert findings(pipeline) == []

    db.drop_collection("items")
    db["items"].insert_one({"_id": "new", "n": 1})
    wait_until(lambda: findings(pipeline), TIMEOUT_S, "the re-creation is reported")
    (found,) = findings(pipeline)
    assert "items was dropped and made again" in found
    assert f"`delta-writer resync {name} --collection items`" in found
    assert writer.metric("cdc_source_collections_changed", collection="items", change="made_again") == 1
    assert writer.pipeline_state(name)[0] == "running"
    assert len(pipeline.rows("items")) > 1  # rows of before

    resync(pipeline)
    assert pipeline.rows("items") == pipeline.documents("items")
    wait_until(lambda: not findings(pipeline), TIMEOUT_S, "all is in order again")
    assert writer.metric("cdc_source_collections_changed") == 0

    writer.stop()
    db.drop_collection("items")  # while nobody looks
    writer = pipeline.start_writer(OFTEN)
    wait_until(lambda: findings(pipeline), TIMEOUT_S, "the drop is reported")
    (found,) = findings(pipeline)
    assert "items was dropped; its table stays" in found
    assert writer.metric("cdc_source_collections_changed", collection="items", change="dropped") == 1
    report = last_reports(pipeline.stack.kafka, name)[writer.instance]
    assert (report.findings, report.state) == ((found,), "running")
