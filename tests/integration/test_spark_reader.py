"""Spark with Delta Lake's own reader agrees with the others about a table with deletion vectors."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from change_load import ChangeLoad
from delta_reading import canonical_rows_of, deletion_vectors, open_table
from spark_reader import SparkNotToBeHad, read_with_spark, spark_session
from topic_pipeline import TopicPipeline

from cdc_shared.storage.object_store import open_store

pytestmark = [pytest.mark.integration, pytest.mark.spark, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    try:
        with spark_session(tmp_path_factory.mktemp("spark")) as session:
            yield session
    except SparkNotToBeHad as reason:
        pytest.skip(str(reason))


def _copy(pipeline: TopicPipeline, target: Path) -> Path:
    """The table's files as they are, on local disk: what Spark would need to read S3 is not ours to test."""
    store = open_store(pipeline.items.url, pipeline.stack.object_store)
    for found in obstore.list(store):
        for each in found:
            file = target / each["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(bytes(obstore.get(store, each["path"]).bytes()))
    return target


def test_spark_reads_the_same_rows(
    spark: Any, new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random, tmp_path: Path
) -> None:
    pipeline = new_topic_pipeline(max_seconds=0.1)
    load = ChangeLoad(pipeline.items, rng)
    for _ in range(6):
        load.run(200)
        pipeline.items.await_applied()
    pipeline.items.assert_equal()
    store = pipeline.stack.object_store
    assert deletion_vectors(pipeline.items.url, store)
    table = open_table(pipeline.items.url, store)
    assert table is not None
    table.create_checkpoint()
    load.run(200)
    pipeline.items.await_equal()
    pipeline.writer.stop()

    rows = read_with_spark(spark, _copy(pipeline, tmp_path / "table"), tmp_path / "read")
    assert canonical_rows_of(rows, table.schema()) == pipeline.items.model
