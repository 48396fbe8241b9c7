"""The order of a key's events is Kafka's: neither the source's clock nor the kind of event decides."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from debezium_events import Op, event_key, event_value
from topic_pipeline import TopicCollection, TopicPipeline

from cdc_shared.documents import canonical_document, key_text

pytestmark = pytest.mark.integration

NOW_MS = 1_767_225_600_000


def send(items: TopicCollection, op: Op, document_id: Any, version: int | None, ts_ms: int) -> None:
    """One event with a clock of its choice; without a version it has no document. The model follows Kafka's order."""
    document = None if version is None else {"_id": document_id, "v": version}
    name = items.pipeline.name
    value = event_value(op, document, pipeline=name, database=name, collection=items.name, ts_ms=ts_ms)
    if document is not None:
        items.model[key_text(document_id)] = canonical_document(document)
    elif op == "d":
        items.model.pop(key_text(document_id), None)
    items.send(event_key(document_id), value, changes_a_row=document is not None)


@pytest.mark.parametrize("batches", ["together", "each on its own", "cut anywhere"])
def test_the_last_event_in_kafka_wins_in_every_order(
    topic_pipeline: TopicPipeline, rng: random.Random, batches: str
) -> None:
    """Every order of an insert, two updates, a snapshot's read and a delete, each order on a key of its own."""
    items = topic_pipeline.items
    events: list[tuple[Op, int | None]] = [("c", 1), ("u", 2), ("u", 3), ("r", 4), ("d", None)]
    orders = list(itertools.permutations(events))
    for step in range(len(events)):
        for key, order in enumerate(orders):
            send(items, *_with_key(order[step], key), ts_ms=NOW_MS + rng.randint(-10_000, 10_000))
        if batches == "each on its own" or (batches == "cut anywhere" and rng.random() < 0.5):
            items.await_applied()
    items.await_equal()
    assert len(items.model) == len(orders) * 4 // 5


def test_an_older_source_time_does_not_hold_an_event_back(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    for version in range(10):
        send(items, "u", "key", version, ts_ms=NOW_MS - version * 60_000)
    items.await_equal()
    send(items, "u", "key", 99, ts_ms=0)  # in a batch of its own
    items.await_equal()
    send(items, "d", "key", None, ts_ms=0)
    send(items, "u", "other", 1, ts_ms=NOW_MS)
    items.await_equal()
    assert items.model.keys() == {key_text("other")}


def test_events_sent_again_after_a_connectors_restart_change_nothing_in_the_end(topic_pipeline: TopicPipeline) -> None:
    items = topic_pipeline.items
    sent: list[tuple[Op, int, int | None]] = [
        *(("u", key, version) for version in range(5) for key in range(20)),
        *(("d", key, None) for key in range(0, 20, 4)),
    ]
    for op, key, version in sent:
        send(items, op, key, version, ts_ms=NOW_MS)
    items.await_equal()
    in_the_end = dict(items.model)
    for first in (0, len(sent) // 2, len(sent) - 3):  # from an earlier position to the end, as often as it restarts
        for op, key, version in sent[first:]:
            send(items, op, key, version, ts_ms=NOW_MS)
    assert items.model == in_the_end
    items.await_equal()


def _with_key(event: tuple[Op, int | None], key: int) -> tuple[Op, int, int | None]:
    op, version = event
    return op, key, version
