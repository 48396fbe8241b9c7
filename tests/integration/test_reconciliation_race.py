"""Runs while 1,000 writes a second go on: no false alarm, all seeded damage found; a repair never undoes a write."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mongo_pipeline import MongoPipeline
from pymongo import DeleteOne, ReplaceOne, UpdateOne
from reconciling import Reconciling, assert_explained, document, document_id, only_wrong, wrong
from table_damage import HARMLESS, Harm

from cdc_shared.documents import key_text
from cdc_shared.models.reconciliation import DifferenceKind, Outcome

pytestmark = pytest.mark.integration

ROUNDS = int(os.environ.get("RECONCILIATION_ROUNDS", "2"))
"""By hand, 20: `RECONCILIATION_ROUNDS=20 pytest tests/integration/test_reconciliation_race.py`."""
COLLECTION = "people"
DOCUMENTS = 12_000
HOT = range(10_000)
COLD = range(10_000, DOCUMENTS)
MAX_LAGGING = len(HOT) // 100
"""Keys a run may leave undecided: those that are written again and again while it waits for the writer."""
EACH = 20
WRITES_A_SECOND = 1_000
WRITES_A_BULK = 50
TIMEOUT_S = 120.0


class Writes:
    """Random writes at a steady pace to documents of `numbers`, from a thread of its own: replaced or inserted,
    updated, deleted and made anew, as it happens.
    """

    def __init__(self, collection: Any, numbers: Sequence[int], rng: random.Random) -> None:
        self._collection = collection
        self._numbers = numbers
        self._rng = random.Random(rng.random())
        self.count = 0
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        stop, failures = threading.Event(), list[BaseException]()

        def work() -> None:
            started = time.monotonic()
            try:
                while not stop.wait(max(0.0, started + self.count / WRITES_A_SECOND - time.monotonic())):
                    self._collection.bulk_write([self._one() for _ in range(WRITES_A_BULK)], ordered=False)
                    self.count += WRITES_A_BULK
            except BaseException as failure:
                failures.append(failure)
            self.seconds = time.monotonic() - started

        thread = threading.Thread(target=work, name="writes")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        if failures:
            raise failures[0]

    def _one(self) -> ReplaceOne[dict[str, Any]] | UpdateOne | DeleteOne:
        number, choice = self._rng.choice(self._numbers), self._rng.random()
        match = {"_id": document_id(number)}
        if choice < 0.85:
            return ReplaceOne(match, document(number, self._rng.randrange(10**9)), upsert=True)
        if choice < 0.9:  # few: of each the source looks the document up, and half of its time would go there
            return UpdateOne(match, {"$set": {"text": f"updated {self._rng.randrange(10**9)}"}})
        return DeleteOne(match)


def test_runs_beside_writes_find_all_damage_and_nothing_else_and_repairs_undo_no_write(
    new_pipeline: Callable[..., MongoPipeline],
    rng: random.Random,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    measured: Callable[[str, float, str], None],
) -> None:
    people = Reconciling(new_pipeline(start=False, partitions=2), COLLECTION, tmp_path / "runs", monkeypatch)
    people.start()
    source = people.pipeline.db[COLLECTION]
    source.insert_many(map(document, range(DOCUMENTS)))
    people.await_rows(DOCUMENTS)

    writes = Writes(source, HOT, rng)
    with writes.running():
        people.stop_writer()
        cold = {key_text(document_id(number)) for number in COLD}
        done = people.damage(rng, dict.fromkeys(Harm, EACH), range(DOCUMENTS, DOCUMENTS + EACH), only=cold)
        people.start_writer()
        settled, lagging, seconds = 0, 0, 0.0
        for _ in range(ROUNDS):
            started = time.monotonic()
            found = people.run(people.request(settle_timeout_s=TIMEOUT_S))
            seconds += time.monotonic() - started
            settled += found.summary.settled
            lagging += found.summary.differences.get(DifferenceKind.LAGGING, 0)
            assert_explained(only_wrong(found), done)
    measured("writes to the source beside the runs", writes.count / writes.seconds, "writes/s")
    measured("a run beside them", seconds / ROUNDS, "s")
    measured("keys a run that differed at first and were equal some generations later", settled / ROUNDS, "keys")
    measured("keys a run that were written too often to be decided", lagging / ROUNDS, "keys")
    assert settled > 0, "the runs met changes under way"
    assert lagging <= ROUNDS * MAX_LAGGING

    # The damaged documents are written while they are repaired: the newest write must win, whichever comes first.
    racing = Writes(source, [*COLD, *range(DOCUMENTS, DOCUMENTS + EACH)], rng)
    with racing.running():
        for _ in range(3):
            repaired = people.repair(wrong(found))
    damaged = sum(harm not in HARMLESS for harm in done.values())
    assert repaired.applied == damaged
    people.await_texts(TIMEOUT_S)
    clean = people.run()
    assert clean.outcome is Outcome.EQUAL, clean.summary
    assert clean.summary.rows == source.count_documents({})
