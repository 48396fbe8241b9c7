"""SIGKILL of Kafka Connect in the middle of the stream: what is written meanwhile is not lost, nothing is doubled."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mongo_pipeline import MongoPipeline
from pinned_table import check_offset_chain
from private_connect import PrivateConnect
from pymongo.collection import Collection
from trial_pipeline import trial_name
from waiting import wait_until

from cdc_shared.connect.connect_client import ConnectClient

pytestmark = pytest.mark.faults

KILLS = 2
KEYS = 200
WRITES_WHILE_AWAY = 300
TIMEOUT_S = 120.0
UP_TO_A_KILL_S = 2.0


@pytest.fixture
def pipeline(
    connect: PrivateConnect, tests_root: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[MongoPipeline]:
    """A running pipeline whose connector is on the private worker."""
    name = trial_name(request.node.name)
    pipeline = MongoPipeline(connect.stack, name, tests_root, tmp_path / name)
    try:
        pipeline.start()
        yield pipeline
    finally:
        pipeline.close()


class Writes:
    """Random inserts, updates, replaces and deletes in one collection; `count` of them so far."""

    def __init__(self, collection: Collection[dict[str, Any]], rng: random.Random) -> None:
        self.count = 0
        self._collection = collection
        self._rng = rng

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write in a thread of its own while the block runs."""
        stop = threading.Event()
        failed: list[BaseException] = []

        def work() -> None:
            try:
                while not stop.is_set():
                    self.write()
                    stop.wait(self._rng.uniform(0.0, 0.01))
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=work, name="writes")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        if failed:
            raise failed[0]

    def write(self) -> None:
        self.count += 1
        key = {"_id": self._rng.randrange(KEYS)}
        match self._rng.randrange(10):
            case 0 | 1:
                self._collection.delete_one(key)
            case 2 | 3 | 4:
                self._collection.replace_one(key, {"n": self.count, "whole": True}, upsert=True)
            case _:
                self._collection.update_one(key, {"$set": {"n": self.count}, "$inc": {"times": 1}}, upsert=True)


@pytest.mark.timeout(600)
def test_a_stream_goes_on_where_connect_was_killed(
    pipeline: MongoPipeline, connect: PrivateConnect, rng: random.Random
) -> None:
    items = pipeline.db["items"]
    items.insert_many([{"_id": n, "n": 0} for n in range(KEYS)])
    writes = Writes(items, random.Random(rng.random()))
    pipeline.await_equal("items", TIMEOUT_S)
    with writes.running():
        for _ in range(KILLS):
            version = pipeline.offsets("items")
            wait_until(lambda: pipeline.offsets("items") != version, TIMEOUT_S, "the stream flows")  # noqa: B023
            time.sleep(rng.uniform(0.0, UP_TO_A_KILL_S))
            connect.kill()
            written = writes.count
            wait_until(lambda: writes.count > written + WRITES_WHILE_AWAY, TIMEOUT_S, "writes go on")  # noqa: B023
            connect.start()
            with ConnectClient(connect.stack.connect_url) as client:
                client.wait_running(pipeline.name, TIMEOUT_S)
    pipeline.await_equal("items", TIMEOUT_S)
    check_offset_chain(pipeline.table_url("items"), pipeline.stack.object_store)
