"""Runs while 1,000 writes a second go on: no false alarm, all seeded damage found; a repair never undoes a write."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from machine_pace import machine_pace
from mongo_pipeline import MongoPipeline
from people import document, document_id
from people_writes import WRITES_A_SECOND, PeopleWrites
from reconciling import Reconciling, assert_explained, only_wrong, wrong
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
TIMEOUT_S = 120.0
MIN_SHARE_OF_RATE = 0.3
"""Of the writes a second asked for, on a machine of full pace. The stack's stand-in for MongoDB has one core for
writes, scans and change streams: started anew it takes all of them, after two hours of other tests half."""


@pytest.mark.timeout(300 + 120 * ROUNDS)
def test_runs_beside_writes_find_all_damage_and_nothing_else_and_repairs_undo_no_write(
    new_pipeline: Callable[..., MongoPipeline],
    rng: random.Random,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    measured: Callable[[str, float, str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    people = Reconciling(new_pipeline(start=False, partitions=2), COLLECTION, tmp_path / "runs", monkeypatch)
    people.start()
    source = people.pipeline.db[COLLECTION]
    source.insert_many(map(document, range(DOCUMENTS)))
    people.await_rows(DOCUMENTS)

    writes = PeopleWrites(people.pipeline, COLLECTION, HOT, rng)
    pace = machine_pace()
    with writes.running():
        people.stop_writer()
        cold = {key_text(document_id(number)) for number in COLD}
        done = people.damage(rng, dict.fromkeys(Harm, EACH), range(DOCUMENTS, DOCUMENTS + EACH), only=cold)
        people.start_writer()
        settled, lagging, seconds = 0, 0, 0.0
        for number in range(1, ROUNDS + 1):
            started = time.monotonic()
            found = people.run(people.request(settle_timeout_s=TIMEOUT_S))
            took = time.monotonic() - started
            seconds += took
            with capsys.disabled():
                print(f"\nround {number} of {ROUNDS}: {took:.1f} s, {found.summary.settled:,} settled", flush=True)
            settled += found.summary.settled
            lagging += found.summary.differences.get(DifferenceKind.LAGGING, 0)
            assert_explained(only_wrong(found), done)
    pace = min(pace, machine_pace())
    rate = writes.count / writes.seconds
    measured("writes to the source beside the runs", rate, "writes/s")
    measured("the machine's pace before or after them", pace, "of a quiet one's")
    measured("a run beside them", seconds / ROUNDS, "s")
    measured("keys a run that differed at first and were equal some generations later", settled / ROUNDS, "keys")
    measured("keys a run that were written too often to be decided", lagging / ROUNDS, "keys")
    assert rate >= MIN_SHARE_OF_RATE * WRITES_A_SECOND * pace, "the runs met the writes that they were to meet"
    assert settled > 0, "the runs met changes under way"
    assert lagging <= ROUNDS * MAX_LAGGING

    # The damaged documents are written while they are repaired: the newest write must win, whichever comes first.
    racing = PeopleWrites(people.pipeline, COLLECTION, range(COLD.start, DOCUMENTS + EACH), rng)
    with racing.running():
        for _ in range(3):
            repaired = people.repair(wrong(found))
    damaged = sum(harm not in HARMLESS for harm in done.values())
    assert repaired.applied == damaged
    people.await_texts(TIMEOUT_S)
    clean = people.run()
    assert clean.outcome is Outcome.EQUAL, clean.summary
    assert clean.summary.rows == source.count_documents({})
