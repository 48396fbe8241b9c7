"""A table altered by hand, while its writer runs and while it stands still: reported, never overwritten."""

from __future__ import annotations

import json
import re
import shlex

import obstore
import pytest
from delta_reading import versions
from deltalake import DeltaTable, Field
from msgspec.structs import replace
from status_reports import last_report
from topic_pipeline import TopicPipeline
from typer.testing import CliRunner

from cdc_shared.delta.actions import Action
from cdc_shared.delta.log import LOG_DIR, DeltaLog
from cdc_shared.delta.schema_history import read_schema_history
from cdc_shared.storage.object_store import open_store
from delta_writer.command_line import app

pytestmark = pytest.mark.integration

TIMEOUT_S = 60.0


def command(pipeline: TopicPipeline, *words: str) -> tuple[int, str]:
    """Run a command of the delta-writer; return its status and what it said."""
    environment = {**pipeline.stack.writer_environment, "CDC_PIPELINES_TOPIC": pipeline.specs_topic}
    result = CliRunner().invoke(app, list(words), env=environment)
    return result.exit_code, result.output


def test_a_table_altered_by_hand_is_reported_and_never_overwritten(topic_pipeline: TopicPipeline) -> None:
    pipeline, items = topic_pipeline, topic_pipeline.items
    options = pipeline.stack.object_store.storage_options()
    store = open_store(items.url, pipeline.stack.object_store)
    items.insert(*({"_id": n, "v": n, "name": "x"} for n in range(50)))
    items.await_equal(TIMEOUT_S)

    # While the writer runs: a column is added.
    DeltaTable(items.url, storage_options=options).alter.add_columns([Field("mine", "string")])
    altered = versions(items.url, pipeline.stack.object_store)
    items.update(*({"_id": n, "v": -n, "name": "y"} for n in range(50)))
    items.flush()
    reason = pipeline.writer.wait_state(pipeline.name, "failed", TIMEOUT_S) or ""
    assert "column mine (string) was added" in reason
    assert last_report(pipeline.stack.kafka, pipeline.name).reason == reason
    assert f"version {altered - 1} of {items.url}" in reason
    assert versions(items.url, pipeline.stack.object_store) == altered
    status, told = command(pipeline, "schema-history", pipeline.name, "items")
    assert status == 0, told
    assert "mine" not in told

    # As the reason says.
    pipeline.writer.stop()
    remedy = re.search(r"`delta-writer (restore .*?) --spec FILE`", reason)
    assert remedy is not None, reason
    status, told = command(pipeline, *shlex.split(remedy[1]))
    assert status == 0, told
    assert "mine" in told
    pipeline.start_writer()
    items.await_equal(TIMEOUT_S)
    assert [change.operation for change in read_schema_history(store)] == ["created", "restored"]

    # While it stands still, and so long ago that the log says no longer by whom: a column is dropped, another retyped.
    pipeline.writer.stop()
    log = DeltaLog(store)
    newest = log.load()
    assert newest.metadata is not None
    schema = json.loads(newest.metadata.schema_string)
    schema["fields"] = [each for each in schema["fields"] if each["name"] != "name"]
    next(each for each in schema["fields"] if each["name"] == "v")["type"] = "string"
    changed = replace(newest.metadata, schema_string=json.dumps(schema))
    log.append(newest.version + 1, [Action(commit_info={"operation": "CHANGE COLUMN"}), Action(meta_data=changed)])
    DeltaTable(items.url, storage_options=options).create_checkpoint()
    entries = [each["path"] for page in obstore.list(store, f"{LOG_DIR}/") for each in page]
    obstore.delete(store, [path for path in entries if path.endswith(".json")])

    items.update({"_id": 1, "v": 1, "name": "z"})
    items.flush()
    pipeline.start_writer(ready=False)
    reason = pipeline.writer.wait_state(pipeline.name, "failed", TIMEOUT_S) or ""
    assert "column name (string) was dropped; column v was long and is string" in reason
    assert f"`delta-writer schema-history {pipeline.name} items --json`" in reason
    assert pipeline.writer.get("/health").status_code == 503
    assert log.load().version == newest.version + 1
    pipeline.writer.stop()
