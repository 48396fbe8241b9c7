"""A run on the real platform, in each mode: equal is equal, under writes as well, and what is wrong is named."""

from __future__ import annotations

import threading
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from mongo_pipeline import MongoPipeline
from stack_endpoints import Stack
from waiting import wait_until

from cdc_shared.models.collection import Collection
from cdc_shared.models.reconciliation import DifferenceKind, JobOptions, Mode, Outcome
from cdc_shared.settings import KafkaSettings, SecretsSettings, load_settings
from reconciliation.reconciler.progress import Phase, RunProgress
from reconciliation.reconciler.result import RunRequest, RunResult
from reconciliation.reconciler.run import run_collection
from reconciliation.reconciler.sides import Platform
from reconciliation.workers.choice import runner_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

DOCUMENTS = 3_000
WATERMARK_TIMEOUT_S = 60.0


class GoesOn:
    """Nobody pauses or cancels."""

    def check(self) -> None:
        return


@pytest.fixture
def platform(stack: Stack, pipeline: MongoPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    for name, value in stack.writer_environment.items():  # workers of a scan read their own
        monkeypatch.setenv(name, value)
    return Platform(
        KafkaSettings(bootstrap_servers=stack.kafka, pipelines_topic=pipeline.specs_topic),
        stack.object_store,
        load_settings(SecretsSettings),
        lambda: stack.data_keys,
        runner_for(),
        tmp_path / "runs",
    )


def run(
    pipeline: MongoPipeline, platform: Platform, mode: Mode, seen: list[RunProgress] | None = None, **asked: Any
) -> RunResult:
    request = RunRequest(
        run_id=uuid.uuid4().hex,
        spec=asked.pop("spec", pipeline.spec),
        collection=Collection(pipeline.database, "items"),
        mode=mode,
        options=JobOptions(settle_timeout_s=10.0),
        **asked,
    )
    shown = [] if seen is None else seen
    return run_collection(request, platform, shown.append, GoesOn())


def await_watermark(pipeline: MongoPipeline) -> None:
    """All rows can be there before the connector has said that its snapshot is complete."""
    wait_until(lambda: pipeline.watermark_ms("items") is not None, WATERMARK_TIMEOUT_S, "the table has a watermark")


def test_every_mode_finds_an_equal_table_equal(pipeline: MongoPipeline, platform: Platform) -> None:
    items = pipeline.db["items"]
    items.insert_many([{"_id": n, "n": n, "sub": {"a": [n, "x"]}} for n in range(DOCUMENTS)])
    items.insert_many([{"_id": key, "n": 1.5} for key in ("text", ObjectId(), {"a": 1}, 2**40)])
    pipeline.await_equal("items")
    await_watermark(pipeline)

    progress: list[RunProgress] = []
    full = run(pipeline, platform, Mode.FULL, progress)
    assert full.outcome is Outcome.EQUAL, full.summary
    assert full.summary.documents == full.summary.rows == full.summary.compared == DOCUMENTS + 4
    assert full.summary.sampled >= 900
    assert full.verified_through is not None
    assert full.verified is not None
    assert {each.phase for each in progress} >= {Phase.SCANNING_TABLE, Phase.SCANNING_SOURCE, Phase.SETTLING}
    assert [each for each in full.digest_map if each.source_digest != each.sink_digest] == []

    keys = run(pipeline, platform, Mode.KEYS)
    assert keys.outcome is Outcome.EQUAL, keys.summary
    counts = run(pipeline, platform, Mode.COUNTS)
    assert (counts.outcome, counts.summary.documents, counts.summary.rows) == (
        Outcome.EQUAL,
        DOCUMENTS + 4,
        DOCUMENTS + 4,
    )

    items.update_many({"_id": {"$lt": 50}}, {"$set": {"n": -1}})
    items.delete_one({"_id": 60})
    items.insert_one({"_id": -1, "new": True})
    pipeline.await_equal("items")
    for turn in range(2):
        incremental = run(pipeline, platform, Mode.INCREMENTAL, verified=replace(full.verified, rotation=turn))
        assert incremental.outcome is Outcome.EQUAL, (incremental.summary, incremental.differences[:3])
        assert incremental.summary.mode is Mode.INCREMENTAL
        assert incremental.summary.compared >= 52
        assert incremental.verified is not None
        assert incremental.verified.rotation == turn + 1
    another = run(pipeline, platform, Mode.INCREMENTAL, verified=replace(full.verified, rows="another table's"))
    assert (another.summary.mode, another.outcome) == (Mode.FULL, Outcome.EQUAL)
    assert "the table was restored" in another.summary.notes[0]
    again = run(pipeline, platform, Mode.INCREMENTAL)
    assert (again.summary.mode, again.outcome) == (Mode.FULL, Outcome.EQUAL)
    assert "no run has found" in again.summary.notes[0]


def test_what_is_written_meanwhile_is_no_difference(pipeline: MongoPipeline, platform: Platform) -> None:
    items = pipeline.db["items"]
    items.insert_many([{"_id": n, "n": 0} for n in range(500)])
    pipeline.await_equal("items")
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            items.update_one({"_id": n % 400}, {"$inc": {"n": 1}})
            if n % 7 == 0:
                items.delete_one({"_id": n % 300})
                items.insert_one({"_id": n % 300, "n": 0})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        result = run(pipeline, platform, Mode.FULL)
    finally:
        stop.set()
        writer.join()
    assert result.summary.wrong == 0, result.differences
    assert result.outcome in (Outcome.EQUAL, Outcome.UNDECIDED)


def test_rules_that_change_while_a_run_is_under_way_are_no_difference(
    pipeline: MongoPipeline, platform: Platform
) -> None:
    """The run was asked for with the rules of before; a filter has deleted rows since, and the rules that were there
    then would have them."""
    items = pipeline.db["items"]
    items.insert_many([{"_id": n, "n": n} for n in range(20)])
    pipeline.await_equal("items")
    before = pipeline.spec
    pipeline.publish_quality(validation=[{"rule": "filter", "expression": "n >= 10"}])
    pipeline.await_rules()
    items.update_many({"_id": {"$lt": 5}}, {"$inc": {"n": -100}})
    wait_until(lambda: len(pipeline.rows("items")) == 15 or None, 30, "the filter to delete the rows")

    result = run(pipeline, platform, Mode.FULL, spec=before)
    assert result.outcome is Outcome.EQUAL, result.summary
    assert result.summary.differences == {DifferenceKind.FILTERED: 5}
