"""What a delta-writer shows of itself: /health, /ready, /metrics and its log. No secret is in any of them."""

from __future__ import annotations

import pytest
from topic_pipeline import TopicPipeline

pytestmark = pytest.mark.integration

METRICS = (
    "cdc_events_total",
    "cdc_events_invalid_total",
    "cdc_dead_letters_total",
    "cdc_rescued_values_total",
    "cdc_batch_rows",
    "cdc_batch_seconds",
    "cdc_commit_seconds",
    "cdc_retries_total",
    "cdc_end_to_end_lag_seconds",
    "cdc_end_to_end_latency_seconds",
    "cdc_consumer_lag_events",
    "cdc_pipeline_state",
    "cdc_table_files",
)


def test_health_ready_and_metrics_of_a_working_pipeline(topic_pipeline: TopicPipeline) -> None:
    items, writer = topic_pipeline.items, topic_pipeline.writer
    items.insert(*({"_id": n, "v": n} for n in range(40)))
    items.update({"_id": 0, "v": -1})
    items.delete(1, 2)
    items.await_equal()

    running = {topic_pipeline.name: {"state": "running", "reason": None}}
    for path, status in (("/health", "ok"), ("/ready", "ready")):
        answer = writer.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": status, "pipelines": running})
    assert writer.get("/nothing").status_code == 404

    exposed = writer.get("/metrics")
    assert exposed.headers["content-type"].startswith("text/plain")
    for name in METRICS:
        assert f"# HELP {name} " in exposed.text
        assert f"# TYPE {name} " in exposed.text
    labels = {"pipeline": topic_pipeline.name, "database": topic_pipeline.name, "collection": "items"}
    assert [writer.metric("cdc_events_total", **labels, op=op) for op in "cud"] == [40, 1, 2]
    # A tombstone that came after its delete's batch changes no row: it waits for the next commit.
    assert 40 + 1 + 2 <= writer.metric("cdc_batch_rows_sum", **labels) <= 40 + 1 + 2 * 2
    assert writer.metric("cdc_commit_seconds_count", **labels) >= 1
    assert 0 <= writer.metric("cdc_end_to_end_lag_seconds", **labels) < 30
    assert writer.metric("cdc_consumer_lag_events", pipeline=topic_pipeline.name, topic=items.topic) <= 1
    assert writer.metric("cdc_pipeline_state", pipeline=topic_pipeline.name, state="running") == 1
    assert writer.metric("cdc_pipeline_state", pipeline=topic_pipeline.name) == 1, "one state at a time"


def test_not_ready_before_a_pipeline_runs_and_gone_when_unpublished(topic_pipeline: TopicPipeline) -> None:
    writer = topic_pipeline.writer
    topic_pipeline.unpublish()
    writer.wait_gone(topic_pipeline.name)
    assert writer.get("/ready").json() == {"status": "ready", "pipelines": {}}
    assert topic_pipeline.name not in writer.get("/metrics").text


def test_no_secret_is_logged_or_exposed(topic_pipeline: TopicPipeline) -> None:
    stack = topic_pipeline.stack
    topic_pipeline.items.insert({"_id": 1, "password": "document-content"})
    topic_pipeline.items.send(b"key-content", b"record-content")
    topic_pipeline.items.await_equal()
    shown = [topic_pipeline.writer.get(path).text for path in ("/health", "/ready", "/metrics")]
    topic_pipeline.writer.stop()
    shown.append(topic_pipeline.writer.log_file.read_text())
    for text in shown:
        for secret in (stack.secret_access_key, "document-content", "record-content", "key-content"):
            assert secret not in text
