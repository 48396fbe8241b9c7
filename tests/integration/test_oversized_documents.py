"""Documents beyond the pipeline's limit meet its policy; what MongoDB itself would not hold is always a dead letter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from debezium_events import event_key, event_value
from topic_pipeline import TopicPipeline

from cdc_shared.dead_letters.lake_records import get_from_lake
from cdc_shared.dead_letters.letter import LetterFilter
from cdc_shared.dead_letters.letter_topic import LetterTopic
from cdc_shared.dead_letters.rejection import ReasonCode
from cdc_shared.dead_letters.sealed_record import unseal
from cdc_shared.documents import key_text

pytestmark = pytest.mark.integration

MEBIBYTE: Final = 1024 * 1024
TIMEOUT_S: Final = 60.0
BEYOND_MONGODB: Final = 20 * MEBIBYTE
OVERSIZED: Final = ReasonCode.OVERSIZED_DOCUMENT.value


def test_each_policy_meets_documents_beyond_the_limit(new_topic_pipeline: Callable[..., TopicPipeline]) -> None:
    pipelines = {policy: pipeline_of(new_topic_pipeline, policy) for policy in ("skip", "fail", "dlq")}
    host = pipelines["dlq"]
    for pipeline in pipelines.values():
        if pipeline is not host:
            pipeline.run_beside(host)
        pipeline.publish()
        items = pipeline.items
        items.insert({"_id": "small"}, {"_id": "grows", "text": "small"})
        items.insert({"_id": "as large as allowed", "text": "x" * (10 * MEBIBYTE - 60)})
        sent(pipeline, "u", "grows", 10 * MEBIBYTE)  # the fourth record
        items.insert({"_id": "between"})
        sent(pipeline, "c", "too large for MongoDB", BEYOND_MONGODB)
        items.insert({"_id": "last"})
    host.start_writer(ready=False)

    for policy in ("dlq", "skip"):
        pipelines[policy].items.await_equal(TIMEOUT_S)
    check_letters(pipelines["dlq"], {3: "grows", 5: "too large for MongoDB"})
    check_letters(pipelines["skip"], {5: "too large for MongoDB"})
    for policy, letters in (("dlq", 2), ("skip", 1)):
        labels = {"pipeline": pipelines[policy].name, "reason": OVERSIZED}
        assert host.writer.metric("cdc_events_invalid_total", **labels) == 2
        assert host.writer.metric("cdc_dead_letters_total", **labels) == letters

    failing = pipelines["fail"]
    reason = host.writer.wait_state(failing.name, "failed", TIMEOUT_S)
    assert reason is not None
    assert f"{failing.items.topic}:0:3" in reason, "which record"
    assert "10,485,760" in reason, "and what was allowed"
    assert "publish the pipeline again" in reason, "and the remedy"
    check_letters(failing, {})
    before = {key_text(each) for each in ("small", "grows", "as large as allowed")}
    assert failing.rows("items").keys() <= before, "nothing of what comes after it"
    assert host.writer.pipeline_state(host.name) == ("running", None), "another pipeline's failure is its own"


def pipeline_of(new_topic_pipeline: Callable[..., TopicPipeline], policy: str) -> TopicPipeline:
    pipeline = new_topic_pipeline(start=False)
    pipeline.items.make_topic()
    quality = pipeline.spec.quality
    dirty_data = quality.dirty_data.model_copy(update={"policy": policy})
    pipeline.spec = pipeline.spec.model_copy(update={"quality": quality.model_copy(update={"dirty_data": dirty_data})})
    return pipeline


def oversized(document_id: str, size: int) -> dict[str, Any]:
    return {"_id": document_id, "text": "x" * size}


def sent(pipeline: TopicPipeline, op: Any, document_id: str, size: int) -> None:
    """Send a change that the model does not learn of: the row stays as it was."""
    value = event_value(
        op,
        oversized(document_id, size),
        pipeline=pipeline.name,
        database=pipeline.name,
        collection="items",
        ts_ms=1,
    )
    pipeline.items.send(event_key(document_id), value)


def check_letters(pipeline: TopicPipeline, expected: dict[int, str]) -> None:
    """The pipeline's letters are of these offsets, say why, and hold the whole record, in the lake."""
    letters = list(LetterTopic.on(pipeline.stack.kafka).letters(LetterFilter(pipeline=pipeline.name)))
    assert {each.letter.place.offset: each.letter.code for each in letters} == dict.fromkeys(expected, OVERSIZED)
    for each in letters:
        document_id = expected[each.letter.place.offset]
        record = unseal(get_from_lake(each.letter, pipeline.stack.object_store), each.letter, pipeline.stack.data_keys)
        assert record.key == event_key(document_id)
        assert record.value is not None
        size = BEYOND_MONGODB if document_id == "too large for MongoDB" else 10 * MEBIBYTE
        assert len(record.value) > size
        assert each.letter.message.startswith("the document has ")
        assert "x" * 100 not in each.letter.message
