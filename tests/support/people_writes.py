"""Random writes to `people` at a steady pace, from a process of their own: the test's own work must not slow them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mongo_pipeline import EXACT, MongoPipeline
from people import document, document_id
from pymongo import DeleteOne, MongoClient, ReplaceOne, UpdateOne

WRITES_A_SECOND = 1_000
WRITES_A_BULK = 200
STOP_TIMEOUT_S = 60.0


class PeopleWrites:
    """Writes to the documents of some numbers: replaced or inserted, updated, deleted, as it happens.

    Attributes:
        count, seconds: how many there were in how long, once they have ended.
    """

    def __init__(self, pipeline: MongoPipeline, collection: str, numbers: range, rng: random.Random) -> None:
        self._uri = pipeline.stack.mongodb_uri
        self._arguments = [pipeline.database, collection, str(numbers.start), str(numbers.stop), str(rng.random())]
        self.count = 0
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write until the block ends. Raises AssertionError when the writes failed."""
        process = subprocess.Popen(
            [sys.executable, __file__, *self._arguments],
            env={**os.environ, "MONGODB_URI": self._uri},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            told, _ = process.communicate(timeout=STOP_TIMEOUT_S)
        assert process.returncode == 0, "the writes failed: see above"
        self.count, self.seconds = json.loads(told)


def write(collection: Any, numbers: range, rng: random.Random) -> tuple[int, float]:
    """Write until SIGTERM; how many writes there were, in how many seconds."""
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    count, started = 0, time.monotonic()
    while not stopped:
        time.sleep(max(0.0, started + count / WRITES_A_SECOND - time.monotonic()))
        collection.bulk_write([_one(rng.choice(numbers), rng) for _ in range(WRITES_A_BULK)], ordered=False)
        count += WRITES_A_BULK
    return count, time.monotonic() - started


def _one(number: int, rng: random.Random) -> ReplaceOne[dict[str, Any]] | UpdateOne | DeleteOne:
    match, choice = {"_id": document_id(number)}, rng.random()
    if choice < 0.85:
        return ReplaceOne(match, document(number, rng.randrange(10**9)), upsert=True)
    if choice < 0.9:  # few: of each the source looks the document up, and half of its time would go there
        return UpdateOne(match, {"$set": {"text": f"updated {rng.randrange(10**9)}"}})
    return DeleteOne(match)


if __name__ == "__main__":
    database, name, first, end, seed = sys.argv[1:]
    with MongoClient[dict[str, Any]](os.environ["MONGODB_URI"]) as client:
        written = client.get_database(database, codec_options=EXACT)[name]
        print(json.dumps(write(written, range(int(first), int(end)), random.Random(seed))))
