"""RESTORE with the pipeline's own command, and what other programs may and may not do to a table."""

from __future__ import annotations

import random
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from confluent_kafka import TopicPartition
from delta_reading import versions
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from hot_key_load import HotKeyLoad
from topic_pipeline import TopicPipeline
from typer.testing import CliRunner
from waiting import wait_until

from delta_writer.command_line import app

pytestmark = pytest.mark.integration

TIMEOUT_S = 60.0
COMMITS = 6
CHANGES_A_COMMIT = 60
CHANGES_PER_S = 200


@pytest.fixture
def filled(new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random) -> tuple[TopicPipeline, HotKeyLoad]:
    """A running pipeline whose table has had several commits."""
    pipeline = new_topic_pipeline(partitions=2, max_seconds=0.1)
    load = HotKeyLoad(pipeline.items, rng)
    for _ in range(COMMITS):
        load.send(CHANGES_A_COMMIT)
        load.await_equal(TIMEOUT_S)
    return pipeline, load


def restore(pipeline: TopicPipeline, *options: str) -> tuple[int, str]:
    """Run the command; return its status and what it said."""
    return command(pipeline, "restore", pipeline.name, "items", *options)


def command(pipeline: TopicPipeline, *words: str) -> tuple[int, str]:
    environment = {**pipeline.stack.writer_environment, "CDC_PIPELINES_TOPIC": pipeline.specs_topic}
    result = CliRunner().invoke(app, list(words), env=environment)
    return result.exit_code, result.output


def expire(pipeline: TopicPipeline, partition: int, up_to: int) -> None:
    """Kafka's retention drops everything before `up_to`."""
    deleted = pipeline.admin.delete_records([TopicPartition(pipeline.items.topic, partition, up_to)])
    for result in deleted.values():
        result.result(TIMEOUT_S)


def test_a_restored_table_reads_on_until_it_is_equal(filled: tuple[TopicPipeline, HotKeyLoad], tmp_path: Path) -> None:
    pipeline, load = filled
    store = pipeline.stack.object_store
    status, said = restore(pipeline, "--version", "3")
    assert status == 1
    assert re.search(rf"1 writer run.* pipeline {pipeline.name} .*stop them first.*unpublish {pipeline.name}", said)

    pipeline.writer.stop()
    newest = versions(pipeline.items.url, store) - 1
    stood_at = pipeline.offsets("items")
    status, said = restore(pipeline, "--version", "3", "--dry-run")
    assert (status, versions(pipeline.items.url, store) - 1) == (0, newest), said
    status, said = restore(pipeline, "--version", "3")
    assert (status, versions(pipeline.items.url, store) - 1) == (0, newest + 1), said
    assert sum(pipeline.offsets("items").values()) < sum(stood_at.values())

    load.send(20)  # and the writer starts on the cache of before
    pipeline.start_writer()
    load.await_equal(TIMEOUT_S)
    assert all(offset >= stood_at[partition] for partition, offset in pipeline.offsets("items").items())

    pipeline.writer.stop()
    pipeline.unpublish()
    status, said = restore(pipeline, "--version", str(newest))
    assert status == 1
    assert f"pipeline {pipeline.name} is not in" in said
    for partition, offset in pipeline.offsets("items").items():
        expire(pipeline, partition, offset)
    before = versions(pipeline.items.url, store)
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(pipeline.spec.model_dump(mode="json")))
    status, said = restore(pipeline, "--version", str(newest), "--spec", str(spec))
    assert status == 1
    assert "cannot be restored" in said
    assert f"delta-writer resync {pipeline.name} --collection items" in said
    assert versions(pipeline.items.url, store) == before


def test_optimize_by_another_program_is_followed_and_its_restore_is_not(
    filled: tuple[TopicPipeline, HotKeyLoad],
    tmp_path: Path,
) -> None:
    pipeline, load = filled
    options = pipeline.stack.object_store.storage_options()
    optimized = 0
    with load.running(CHANGES_PER_S):

        def optimize() -> bool:
            nonlocal optimized
            try:
                metrics = DeltaTable(pipeline.items.url, storage_options=options).optimize.compact()
            except CommitFailedError:  # a deletion vector of an input moved meanwhile: delta-rs gives up
                return False
            optimized += int(metrics["numFilesRemoved"]) > 1
            return optimized >= 2

        wait_until(optimize, TIMEOUT_S, "two OPTIMIZEs have come through between the writer's commits")
    load.await_equal(TIMEOUT_S)

    DeltaTable(pipeline.items.url, storage_options=options).restore(3)
    load.send(5)
    load.end_with_a_row()
    pipeline.items.flush()
    reason = pipeline.writer.wait_state(pipeline.name, "failed", TIMEOUT_S) or ""
    assert re.search(rf"version \d+ of {pipeline.items.url} .*\(RESTORE, engine delta-rs", reason)
    pipeline.writer.stop()
    pipeline.start_writer(ready=False)
    assert pipeline.writer.wait_state(pipeline.name, "failed", TIMEOUT_S) == reason

    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(pipeline.spec.model_dump(mode="json")))
    steps = re.findall(r"`delta-writer (.*?)`", reason)
    assert [each.split()[0] for each in steps] == ["unpublish", "restore", "publish", "accept"]
    for step in steps[:-1]:  # one after the other, while the writer's process goes on; accepting is the other way out
        status, said = command(pipeline, *shlex.split(step.replace("FILE", str(spec))))
        assert status == 0, said
    load.await_equal(TIMEOUT_S)
