"""A table that somebody else made where a pipeline's table belongs stops the pipeline; nothing of it is overwritten."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from topic_pipeline import TopicPipeline

pytestmark = pytest.mark.integration


def test_the_pipeline_stops_and_names_both_schemas(new_topic_pipeline: Callable[..., TopicPipeline]) -> None:
    pipeline = new_topic_pipeline(start=False, collections=("items", "others"))
    items, others = pipeline.collections.values()
    options = pipeline.stack.object_store.storage_options()
    theirs = pa.table({"_id": ["x"], "amount": [1.5]})
    write_deltalake(items.url, theirs, storage_options=options)
    before = DeltaTable(items.url, storage_options=options)

    pipeline.start(ready=False)
    items.insert({"_id": 1, "v": 1})
    others.insert({"_id": 1, "v": 1})
    items.flush()
    others.flush()
    reason = pipeline.writer.wait_state(pipeline.name, "failed") or ""

    for part in (items.url, "_id string", "amount double", "_cdc_key string", "_cdc_rescued string", "sink.root"):
        assert part in reason
    logged = [event for event in pipeline.writer.log_events() if event.get("level") == "error"]
    assert [event["reason"] for event in logged] == [reason]
    assert pipeline.writer.get("/ready").status_code == 503
    assert pipeline.writer.get("/health").status_code == 503
    after = DeltaTable(items.url, storage_options=options)
    assert (after.version(), after.file_uris()) == (before.version(), before.file_uris())
    pipeline.writer.stop()


def test_a_table_of_another_collection_is_not_written(new_topic_pipeline: Callable[..., TopicPipeline]) -> None:
    first = new_topic_pipeline()
    first.items.insert({"_id": 1, "v": 1})
    first.items.await_equal()
    first.writer.stop()
    first.publish(first.spec.model_copy(update={"sink": first.spec.sink.model_copy(update={"mode": "copy_on_write"})}))
    first.start_writer(ready=False)
    reason = first.writer.wait_state(first.name, "failed") or ""
    assert "sink.mode deletion_vectors" in reason
    assert "copy_on_write" in reason
