"""Bad records under each policy: a dead letter, skipped, or the end of the pipeline, which goes on when it may."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import pytest
from debezium_events import event_key, event_value
from topic_pipeline import TopicPipeline

from cdc_shared.dead_letters.letter import LetterFilter
from cdc_shared.dead_letters.letter_topic import LetterTopic
from cdc_shared.dead_letters.rejection import ReasonCode
from cdc_shared.models.data_quality import QualitySpec

pytestmark = pytest.mark.integration

TIMEOUT_S: Final = 60.0
LIMIT: Final = 2048
CONTENT: Final = "Ursula-K-4711"
"""In every bad record, and in nothing that is said of one."""
CODES: Final = {
    1: ReasonCode.MALFORMED_EVENT,
    2: ReasonCode.UNDECODABLE_KEY,
    3: ReasonCode.MALFORMED_DOCUMENT,
    4: ReasonCode.OVERSIZED_DOCUMENT,
    5: ReasonCode.VALIDATION_FAILED,
    6: ReasonCode.VALIDATION_FAILED,
}
"""Offset → why."""


def test_each_policy_meets_each_kind_of_bad_record(new_topic_pipeline: Callable[..., TopicPipeline]) -> None:
    pipelines = {policy: new_topic_pipeline(start=False) for policy in ("skip", "fail", "dlq")}
    host = pipelines["dlq"]
    for policy, pipeline in pipelines.items():
        if pipeline is not host:
            pipeline.run_beside(host)
        pipeline.items.make_topic()
        publish(pipeline, policy)
        send(pipeline)
    host.start_writer(ready=False)

    for policy in ("dlq", "skip"):
        pipeline = pipelines[policy]
        pipeline.items.await_equal(TIMEOUT_S)
        for code in set(CODES.values()):
            labels = {"pipeline": pipeline.name, "code": code.value, "policy": policy}
            assert host.writer.metric("cdc_rejections_total", **labels) == [*CODES.values()].count(code)
        for rule in ("required:/name", "adult"):
            assert host.writer.metric("cdc_validation_failures_total", pipeline=pipeline.name, rule=rule) == 1
    assert letters(host) == CODES
    assert letters(pipelines["skip"]) == {}
    assert host.writer.pipeline_state(host.name) == ("running", None)

    failing = pipelines["fail"]
    reason = host.writer.wait_state(failing.name, "failed", TIMEOUT_S) or ""
    assert f"{failing.items.topic}:0:1" in reason, "which record"
    assert failing.rows("items") == {}, "nothing of its batch was written"
    publish(failing, "skip")
    failing.items.await_equal(TIMEOUT_S)
    assert letters(failing) == {}
    assert CONTENT not in host.writer.log_file.read_text()


def publish(pipeline: TopicPipeline, policy: str) -> None:
    quality = QualitySpec.model_validate(
        {
            "dirty_data": {"policy": policy, "max_document_size": LIMIT},
            "validation": [
                {"rule": "required", "path": "/name"},
                {"rule": "type", "path": "/age", "types": ["long"], "name": "adult"},
            ],
        }
    )
    pipeline.publish(pipeline.spec.model_copy(update={"quality": quality}))


def send(pipeline: TopicPipeline) -> None:
    """Good records and one of each bad kind, which the model does not learn of: rows stay as they were."""
    items = pipeline.items

    def value(op: str, document: object) -> bytes:
        return event_value(
            op,
            document,
            pipeline=pipeline.name,
            database=pipeline.name,
            collection="items",
            ts_ms=1,  # type: ignore[arg-type]
        )

    items.insert({"_id": 1, "name": "good", "age": 1})
    items.send(event_key(1), f"{{{CONTENT}".encode())
    items.send(f'{{"other": "{CONTENT}"}}'.encode(), value("u", {"_id": 1, "name": CONTENT}))
    envelope = json.loads(value("u", {"_id": 1}))
    items.send(event_key(1), json.dumps(envelope | {"after": f'{{"_id": 1, "name": "{CONTENT}'}).encode())
    items.send(event_key(1), value("u", {"_id": 1, "name": CONTENT, "text": "x" * LIMIT}))
    items.send(event_key(2), value("c", {"_id": 2, "age": 1, "text": CONTENT}))
    items.send(event_key(1), value("u", {"_id": 1, "name": "good", "age": CONTENT}))
    items.insert({"_id": 3, "name": "last"})


def letters(pipeline: TopicPipeline) -> dict[int, str]:
    """The pipeline's dead letters: offset → code."""
    found = list(LetterTopic.on(pipeline.stack.kafka).letters(LetterFilter(pipeline=pipeline.name)))
    assert all(CONTENT not in each.letter.message for each in found)
    return {each.letter.place.offset: each.letter.code for each in found}
