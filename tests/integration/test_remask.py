"""Tables rewritten while changes go on, on the real stack: a column promoted, then a mask for what was there before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import pytest
from debezium_events import event_key, event_value
from plain_values import paths_with
from topic_pipeline import TopicPipeline
from waiting import wait_until

from cdc_shared.delta.actions import Metadata
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.schema_history import SchemaOperation, read_schema_history
from cdc_shared.delta.table_metadata import schema_of
from cdc_shared.documents import DocumentSchema
from cdc_shared.documents import types as t
from cdc_shared.kafka.rules_topic import read_versions
from cdc_shared.models.common import HISTORY_SUFFIX, SinkSpec
from cdc_shared.models.data_quality import EvolutionSpec, PromotionSpec
from cdc_shared.storage.object_store import open_store
from delta_writer.maintenance.promotion import PROMOTIONS
from delta_writer.maintenance.remask import PURGE
from delta_writer.maintenance.remask_command import remask

pytestmark = pytest.mark.integration

TIMEOUT_S: Final = 60.0
KEY: Final = {"TRIAL_MASK_KEY": "an example of a key, 32 bytes or more"}
PLAIN: Final = "UrsulaKLeGuin"
KEYS: Final = 40


def test_a_promotion_and_a_mask_for_what_is_there_already(new_topic_pipeline: Callable[..., TopicPipeline]) -> None:
    pipeline = new_topic_pipeline(start=False)
    sink = SinkSpec.model_validate({**pipeline.spec.sink.model_dump(), "history": True})
    evolution = EvolutionSpec(promotion=PromotionSpec(after_conflicts=20))
    pipeline.spec = pipeline.spec.model_copy(update={"sink": sink, "evolution": evolution})
    pipeline.publish_quality()
    pipeline.items.make_topic()
    send(pipeline, 0, {"n": 1, "author": PLAIN})
    pipeline.start_writer(KEY)
    wait_until(
        lambda: all(each is not _NO_TABLE for each in metadatas(pipeline)), TIMEOUT_S, "both tables have n as a long"
    )
    stop = threading.Event()
    streaming = threading.Thread(target=stream, args=(pipeline, stop))
    streaming.start()
    try:
        wait_until(lambda: all(map(is_promoted, metadatas(pipeline))), TIMEOUT_S, "n is promoted in both tables")
        mask(pipeline)
    finally:
        stop.set()
        streaming.join()
    for url in urls(pipeline):
        changes = read_schema_history(open_store(url, pipeline.stack.object_store))
        assert [change.operation for change in changes][:2] == [SchemaOperation.CREATED, SchemaOperation.PROMOTED]
    assert paths_with(f"{pipeline.root}/{pipeline.name}", pipeline.stack.object_store, PLAIN) == []


def mask(pipeline: TopicPipeline) -> None:
    """Add a mask, ask for it in what is there, and wait until that is done and everything older is gone."""
    stores, kafka = pipeline.stack.object_store, pipeline.stack.kafka
    assert paths_with(f"{pipeline.root}/{pipeline.name}", stores, PLAIN)
    pipeline.publish_quality(transformation=[{"rule": "hash", "path": "/author", "key": "env:TRIAL_MASK_KEY"}])
    wait_until(
        lambda: "plain values of /author remain" in pipeline.writer.get("/health").text,
        TIMEOUT_S,
        "the status tells of plain values",
    )
    said: list[str] = []
    versions = read_versions(kafka, pipeline.name)
    now_ms = int(time.time() * 1000)
    remask(stores, pipeline.spec, versions, "items", said.append, now_ms=now_ms, dry_run=False, confirm=lambda: None)
    assert len(said) == 3, "the table, its history, and that it was asked for"
    wait_until(
        lambda: all(each.configuration.get(PURGE) == "" for each in metadatas(pipeline)),
        TIMEOUT_S,
        "both tables are masked, and what is older deleted",
    )
    wait_until(
        lambda: "plain values" not in pipeline.writer.get("/health").text, TIMEOUT_S, "the status tells of them no more"
    )


def stream(pipeline: TopicPipeline, stop: threading.Event) -> None:
    """Change few documents all the time, with integers and doubles in one field."""
    number = 0
    while not stop.wait(0.02):
        number += 1
        send(pipeline, number % KEYS, {"n": number if number % 3 else number + 0.5, "author": PLAIN})


def send(pipeline: TopicPipeline, key: int, document: dict[str, Any]) -> None:
    value = event_value(
        "u",
        {"_id": key, **document},
        pipeline=pipeline.name,
        database=pipeline.name,
        collection="items",
        ts_ms=1,
    )
    pipeline.items.send(event_key(key), value)


def urls(pipeline: TopicPipeline) -> list[str]:
    return [pipeline.items.url, pipeline.items.url + HISTORY_SUFFIX]


def metadatas(pipeline: TopicPipeline) -> list[Metadata]:
    """The metadata of the table and of its history; none of a table that is not there yet."""
    states = [DeltaLog(open_store(url, pipeline.stack.object_store)).load() for url in urls(pipeline)]
    return [state.metadata or _NO_TABLE for state in states]


def is_promoted(metadata: Metadata) -> bool:
    if metadata is _NO_TABLE:
        return False
    schema: DocumentSchema = schema_of(metadata)
    return schema.by_name["n"].type == t.DOUBLE and PROMOTIONS not in metadata.configuration


_NO_TABLE: Final = Metadata("", None, "", [], {})  # type: ignore[arg-type]
