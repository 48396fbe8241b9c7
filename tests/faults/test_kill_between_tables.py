"""SIGKILL of the writer between a batch's two commits, to the history and to the current state."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from delta_reading import open_table, read_with_query_builder
from hot_key_load import HotKeyLoad
from kafka_reading import records_since
from tcp_proxy import RequestMatcher, TcpProxy
from topic_pipeline import TopicPipeline

from cdc_shared.documents import canonical_document, canonical_row, from_delta_schema

pytestmark = pytest.mark.faults

TIMEOUT_S = 60.0
PARTITIONS = 2
CHANGES = 150

Change = tuple[int, int, str, str, bytes | None]
"""Partition, offset, op, `_cdc_key` and the document in canonical form."""


def commit_to(table: str) -> RequestMatcher:
    """The put of a log entry of the table of this name."""
    return lambda method, path: method == "PUT" and bool(re.search(rf"/{table}/_delta_log/\d{{20}}\.json", path))


def test_each_table_drops_what_it_has_and_takes_what_it_lacks(
    new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random
) -> None:
    """Attacks I1, I2 and I3, with the answer, or the put itself, lost with the process."""
    pipeline = new_topic_pipeline(start=False, partitions=PARTITIONS, max_seconds=0.1)
    pipeline.items.make_topic()
    sink = pipeline.spec.sink.model_copy(update={"history": True})
    pipeline.publish(pipeline.spec.model_copy(update={"sink": sink}))
    load = HotKeyLoad(pipeline.items, rng)
    with TcpProxy(pipeline.stack.s3_endpoint) as proxy:
        environment = {"S3_ENDPOINT": proxy.url, "WRITER_INSTANCE_ID": "killed"}
        for table, arrives in (("items", False), ("items", True), ("items__changes", True)):
            load.send(CHANGES)
            held = proxy.hold(commit_to(table))
            pipeline.start_writer(environment, ready=False)
            assert held.happened.wait(TIMEOUT_S), f"nothing was committed to {table}\n{pipeline.writer.log_tail()}"
            pipeline.writer.kill()
            if arrives:
                held.release()
            load.check_where_it_stands()
        load.send(CHANGES)
        load.end_with_a_row()
        pipeline.start_writer(environment)
        load.await_equal(TIMEOUT_S)
        pipeline.writer.stop()
    changes = recorded_changes(pipeline)
    assert changes == sent_changes(pipeline)
    last = {key: document for _, _, _, key, document in changes}
    assert {key: document for key, document in last.items() if document is not None} == pipeline.rows("items")


def recorded_changes(pipeline: TopicPipeline) -> list[Change]:
    """What the history holds, by partition and offset."""
    url, store = f"{pipeline.items.url}__changes", pipeline.stack.object_store
    table = open_table(url, store)
    assert table is not None
    schema = from_delta_schema(table.schema().to_json())

    def change(row: dict[str, Any]) -> Change:
        document = None if row["_cdc_op"] == "d" else canonical_row(row, schema, row["_cdc_rescued"])
        return row["_cdc_partition"], row["_cdc_offset"], row["_cdc_op"], row["_cdc_key"], document

    return sorted(map(change, read_with_query_builder(url, store).to_pylist()), key=lambda each: each[:2])


def sent_changes(pipeline: TopicPipeline) -> list[Change]:
    """What Kafka holds: every event but tombstones and updates whose document was gone."""
    changes: list[Change] = []
    for partition in range(PARTITIONS):
        for record in records_since(pipeline.stack.kafka, pipeline.items.topic, 0, partition):
            event = json.loads(record.value() or b"null")
            if event is None or (event["after"] is None and event["op"] != "d"):
                continue
            document = None if event["after"] is None else canonical_document(event["after"])
            key = json.loads(record.key() or b"")["id"]
            changes.append((partition, record.offset() or 0, event["op"], key, document))
    return changes
