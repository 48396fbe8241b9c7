"""The writer process looks after its tables by itself, shows it, and stops without delay."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from change_load import ChangeLoad
from deltalake import DeltaTable
from topic_pipeline import TopicPipeline
from waiting import wait_until

pytestmark = pytest.mark.integration

TIMEOUT_S = 60.0


def test_small_files_are_put_together_while_changes_go_on(
    new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random
) -> None:
    """Attacks I8 with the default settings: tiny batches, several compactions, a restart, and equal all the time."""
    pipeline = new_topic_pipeline(max_seconds=0.1, max_rows=20)
    items = pipeline.items
    load = ChangeLoad(items, rng)

    def compactions() -> float:
        load.run(60)
        items.await_applied(TIMEOUT_S)
        labels = {"pipeline": pipeline.name, "task": "compaction", "outcome": "done"}
        return pipeline.writer.metric("cdc_maintenance_runs_total", **labels)

    wait_until(lambda: compactions() >= 2, TIMEOUT_S, "two compactions are committed")
    items.await_equal(TIMEOUT_S)
    metric = pipeline.writer.metric
    assert metric("cdc_maintenance_bytes_total", pipeline=pipeline.name, direction="written") > 0
    assert metric("cdc_maintenance_runs_total", pipeline=pipeline.name, outcome="failed") == 0
    operations = [entry["operation"] for entry in table(pipeline).history()]
    assert operations.count("CDC REWRITE") >= 2
    pipeline.writer.stop()
    pipeline.start_writer()
    load.run(200)
    items.await_equal(TIMEOUT_S)


def table(pipeline: TopicPipeline) -> DeltaTable:
    """The table of the pipeline's items."""
    return DeltaTable(pipeline.items.url, storage_options=pipeline.stack.object_store.storage_options())
