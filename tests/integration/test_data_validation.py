"""Every kind of validation rule on the real stack, each with its own policy, and what a rejected change leaves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from debezium_events import event_key, event_value
from topic_pipeline import TopicPipeline

from cdc_shared.dead_letters.letter import LetterFilter
from cdc_shared.dead_letters.letter_topic import LetterTopic
from cdc_shared.kafka.rules_topic import read_rules
from cdc_shared.models.common import InvalidSpec
from cdc_shared.rules.rule_checks import InvalidRules

pytestmark = pytest.mark.integration

TIMEOUT_S: Final = 60.0
SECRET: Final = "Ursula-K-4711"
RULES: Final[list[dict[str, Any]]] = [
    {"rule": "required", "path": "/name"},
    {"rule": "type", "path": "/age", "types": ["long"]},
    {"rule": "range", "path": "/age", "min": 0, "max": 150},
    {"rule": "length", "path": "/tags", "max": 2},
    {"rule": "regex", "path": "/zip", "pattern": "[0-9]{5}"},
    {"rule": "enum", "path": "/state", "values": ["new", "paid"], "name": "state", "on_failure": "skip"},
    {"rule": "compare", "path": "/begin", "operator": "<=", "other": "/end"},
    {"rule": "sql", "expression": "total IS NULL OR total >= 0", "name": "total"},
]
GOOD: Final[dict[str, Any]] = {
    "_id": "good",
    "name": "n",
    "age": 7,
    "tags": ["a", "b"],
    "zip": "01234",
    "state": "new",
    "begin": datetime(2026, 1, 1, tzinfo=UTC),
    "end": datetime(2026, 1, 2, tzinfo=UTC),
    "total": 1.5,
}
BAD: Final[dict[str, dict[str, Any]]] = {
    "required:/name": {"name": None},
    "type:/age": {"age": SECRET},
    "range:/age": {"age": 151},
    "length:/tags": {"tags": ["a", "b", SECRET]},
    "regex:/zip": {"zip": SECRET},
    "state": {"state": SECRET},
    "compare:/begin": {"begin": datetime(2027, 1, 1, tzinfo=UTC)},
    "total": {"total": -1},
}
"""Rule → what makes the good document fail it."""


def test_every_rule_rejects_what_it_says_and_keeps_the_last_valid_row(
    new_topic_pipeline: Callable[..., TopicPipeline],
) -> None:
    pipeline = new_topic_pipeline(start=False)
    items = pipeline.items
    refused = [*RULES, {"rule": "range", "path": "/age", "min": 2, "max": 1}]
    with pytest.raises(InvalidRules, match="validation rule 9"):
        pipeline.publish_quality(validation=refused)
    pipeline.publish_quality(validation=RULES)
    items.make_topic()
    items.insert(GOOD)
    for number, change in enumerate(BAD.values()):
        send(pipeline, "u", GOOD | change)
        send(pipeline, "c", GOOD | change | {"_id": number})
    items.insert(GOOD | {"_id": "last", "age": 8})
    writer = pipeline.start_writer(ready=False)
    items.await_equal(TIMEOUT_S)

    found = list(LetterTopic.on(pipeline.stack.kafka).letters(LetterFilter(pipeline=pipeline.name)))
    told = {each.letter.place.offset: each.letter.rule for each in found}
    rules = [rule for rule in BAD for _ in range(2)]
    assert told == {offset: rule for offset, rule in enumerate(rules, start=1) if rule != "state"}
    assert all(SECRET not in each.letter.message for each in found)
    for rule in BAD:
        assert writer.metric("cdc_validation_failures_total", pipeline=pipeline.name, rule=rule) == 2
    assert writer.metric("cdc_rejections_total", pipeline=pipeline.name, policy="skip") == 2
    assert SECRET not in writer.log_file.read_text()

    assert pipeline.spec.quality.version == 1
    assert read_rules(pipeline.stack.kafka, pipeline.name, 1) == pipeline.spec.quality
    with pytest.raises(InvalidSpec, match="rules published last have version 1"):
        pipeline.publish_quality(version=7, validation=RULES)
    pipeline.publish_quality(validation=RULES[1:], dirty_data={"rejected_updates": "delete"})
    assert pipeline.spec.quality.version == 2
    pipeline.await_rules()
    items.insert({"_id": "nameless"})
    items.await_equal(TIMEOUT_S)
    send(pipeline, "u", {"_id": "nameless", "age": 151}, changes_a_row=True)
    items.model.pop('"nameless"')
    items.await_equal(TIMEOUT_S)


def send(pipeline: TopicPipeline, op: Any, document: dict[str, Any], *, changes_a_row: bool = False) -> None:
    """Send a change that the model does not learn of."""
    value = event_value(op, document, pipeline=pipeline.name, database=pipeline.name, collection="items", ts_ms=1)
    pipeline.items.send(event_key(document["_id"]), value, changes_a_row=changes_a_row)
