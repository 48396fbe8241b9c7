"""SIGKILL of Kafka Connect in the middle of a snapshot, with deletes going on: no ghost row. Attacks I9."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mongo_pipeline import MongoPipeline
from pinned_table import check_offset_chain
from private_connect import PrivateConnect
from trial_pipeline import trial_name
from waiting import wait_until

from cdc_shared.snapshots.notifications import NotificationKind

pytestmark = pytest.mark.faults

DOCUMENTS = 2_000
SLOW_SNAPSHOT = {  # a transaction for every two documents: some 300 a second on an idle machine
    "snapshot.fetch.size": "2",
    "max.batch.size": "2",
    "max.queue.size": "4",
    "poll.interval.ms": "20",
    # A killed worker's transaction keeps its successor from starting until it has timed out: a minute by default.
    "producer.override.transaction.timeout.ms": "5000",
}
TIMEOUT_S = 120.0
DELETED_WHILE_AWAY = 300


@contextmanager
def deleting(pipeline: MongoPipeline, ids: list[int]) -> Iterator[list[int]]:
    """Delete these documents one after the other while the block runs; yields those deleted so far."""
    stop = threading.Event()
    deleted: list[int] = []

    def work() -> None:
        for each in ids:
            if stop.wait(0.02):
                return
            pipeline.db["items"].delete_one({"_id": each})
            deleted.append(each)

    thread = threading.Thread(target=work, name="deletes")
    thread.start()
    try:
        yield deleted
    finally:
        stop.set()
        thread.join()


def completed(pipeline: MongoPipeline) -> bool:
    return NotificationKind.COMPLETED in [each.kind for each in pipeline.notifications()]


@pytest.mark.timeout(400)
def test_what_was_deleted_between_attempts_leaves_no_row(
    connect: PrivateConnect, tests_root: str, tmp_path: Path, request: pytest.FixtureRequest, rng: random.Random
) -> None:
    name = trial_name(request.node.name)
    pipeline = MongoPipeline(connect.stack, name, tests_root, tmp_path / name, partitions=2, connector=SLOW_SNAPSHOT)
    items = pipeline.db["items"]
    try:
        items.insert_many([{"_id": n, "n": n, "text": "x" * 300} for n in range(DOCUMENTS)])
        ids = rng.sample(range(DOCUMENTS), DOCUMENTS)
        pipeline.start()
        with deleting(pipeline, ids):
            wait_until(lambda: len(pipeline.rows("items")) > DELETED_WHILE_AWAY, TIMEOUT_S, "a part of it is in")
            connect.kill()
            seen = pipeline.rows("items").keys()
            assert not completed(pipeline), "the snapshot was faster than the kill"
            # Of these, no event will ever tell: the next attempt begins with what is there then.
            gone = [each for each in range(DOCUMENTS) if str(each) in seen][:DELETED_WHILE_AWAY]
            items.delete_many({"_id": {"$in": gone}})
            connect.start()
            wait_until(lambda: completed(pipeline), TIMEOUT_S, "the second attempt completes", poll_s=0.5)
        pipeline.await_equal("items", TIMEOUT_S)
        assert len(gone) == DELETED_WHILE_AWAY
        assert pipeline.writer.metric("cdc_rows_swept_total") >= len(gone)
        check_offset_chain(pipeline.table_url("items"), pipeline.stack.object_store)
    finally:
        pipeline.close()
