"""Events that are sent again for the history alone: they are its rows, and no business of the current state's."""

import json
from typing import Any

import pytest
from fake_kafka import SOURCE
from local_pipeline import LocalPipeline

from cdc_shared.documents import Replay, event_key

pytestmark = pytest.mark.unit

HISTORY = "things__changes"
FIRST_SEEN_MS = 77


def send_again(run: LocalPipeline, key: str, op: str, document: dict[str, Any] | None, attempt: int = 2) -> None:
    replay = {"attempt": attempt, "first_seen_ms": FIRST_SEEN_MS, "history_only": True}
    after = None if document is None else json.dumps(document)
    value = {"op": op, "after": after, "source": SOURCE, "replay": replay}
    run.kafka.send_raw(event_key(key), json.dumps(value).encode())


def rows(run: LocalPipeline, name: str = "things") -> list[tuple[str, str | None]]:
    columns = ["_cdc_key", "v"] if name == "things" else ["_cdc_op", "v"]
    order = "_cdc_key" if name == "things" else "_cdc_offset"
    return [tuple(row.values()) for row in run.rows(name, order).select(columns).to_pylist()]


@pytest.fixture(params=[1, 100], ids=["a batch each", "one batch"])
def max_rows(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_an_older_event_is_a_row_of_the_history_and_changes_nothing_today(tmp_path: Any, max_rows: int) -> None:
    run = LocalPipeline(tmp_path, history=True)
    run.max_rows = max_rows
    run.kafka.send("1", "c", {"_id": 1, "v": "new"})
    send_again(run, "1", "u", {"_id": 1, "v": "old"})
    send_again(run, "1", "d", None)
    send_again(run, "2", "c", {"_id": 2, "v": "gone since"})
    run.go()
    assert rows(run) == [("1", "new")]
    assert rows(run, HISTORY) == [("c", "new"), ("u", "old"), ("d", None), ("c", "gone since")]


def test_without_a_history_they_are_nothing(tmp_path: Any, max_rows: int) -> None:
    run = LocalPipeline(tmp_path)
    run.max_rows = max_rows
    run.kafka.send("1", "c", {"_id": 1, "v": "new"})
    send_again(run, "1", "u", {"_id": 1, "v": "old"})
    run.go()
    assert rows(run) == [("1", "new")]


@pytest.mark.parametrize("rejected_updates", ["keep", "delete"])
def test_one_that_is_rejected_again_is_a_letter_one_attempt_further_and_no_delete(
    tmp_path: Any, max_rows: int, rejected_updates: str
) -> None:
    run = LocalPipeline(tmp_path, history=True)
    quality = {"dirty_data": {"max_document_size": 1024, "rejected_updates": rejected_updates}}
    run.spec = run.spec.model_validate({**run.spec.model_dump(), "quality": quality})
    run.max_rows = max_rows
    run.kafka.send("1", "c", {"_id": 1, "v": "new"})
    for op in "ru":
        send_again(run, "1", op, {"_id": 1, "v": "x" * 2000}, attempt=3)
    run.go()
    assert rows(run) == [("1", "new")]
    assert rows(run, HISTORY) == [("c", "new")]
    assert [(each.offset, each.replay, each.collection) for each in run.letters] == [
        (offset, Replay(3, FIRST_SEEN_MS, history_only=True), "things") for offset in (1, 2)
    ]


def test_other_events_of_the_batch_keep_their_places_when_some_are_taken_out(tmp_path: Any) -> None:
    """A request that is refused is taken out before the documents are decoded."""
    run = LocalPipeline(tmp_path, history=True)
    run.max_rows = 100
    elsewhere = {"op": "x", "source": {**SOURCE, "collection": "others"}}
    run.kafka.send_raw(event_key("9"), json.dumps(elsewhere).encode())
    run.kafka.send("1", "c", {"_id": 1, "v": "new"})
    send_again(run, "1", "u", {"_id": 1, "v": "old"})
    run.kafka.send("2", "c", {"_id": 2, "v": "other"})
    run.go()
    assert rows(run) == [("1", "new"), ("2", "other")]
    assert len(run.letters) == 1
