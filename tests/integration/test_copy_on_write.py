"""Both sink modes give the same rows for the same events; copy-on-write is the oracle of the default mode."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from change_load import ChangeLoad
from delta_reading import open_table, read_with_query_builder
from topic_pipeline import TopicPipeline

pytestmark = pytest.mark.integration

MODES = ("deletion_vectors", "copy_on_write")


def test_the_same_events_give_the_same_rows_in_both_modes(new_topic_pipeline: Callable[..., TopicPipeline]) -> None:
    rows, schemas = [], []
    for mode in MODES:
        pipeline = new_topic_pipeline(mode=mode, max_rows=200)
        load = ChangeLoad(pipeline.items, random.Random(20_24))
        for _ in range(3):
            load.run(300)
            pipeline.items.await_equal(60)
        store = pipeline.stack.object_store
        found = read_with_query_builder(pipeline.items.url, store).drop_columns(["_cdc_source_ts"]).to_pylist()
        rows.append(sorted(found, key=lambda row: row["_cdc_key"]))
        table = open_table(pipeline.items.url, store)
        assert table is not None
        schemas.append(table.schema().to_json())
    assert rows[0] == rows[1]
    assert schemas[0] == schemas[1]


def test_copy_on_write_needs_no_reader_that_knows_deletion_vectors(
    new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random
) -> None:
    pipeline = new_topic_pipeline(mode="copy_on_write")
    ChangeLoad(pipeline.items, rng).run(300)
    pipeline.items.await_equal(60)
    table = open_table(pipeline.items.url, pipeline.stack.object_store)
    assert table is not None
    protocol = table.protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
    plain = table.to_pyarrow_table()  # refuses tables with deletion vectors
    assert plain.num_rows == len(pipeline.items.model)
