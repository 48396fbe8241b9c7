"""Repairs by a real writer: a write at the moment of its own repair wins; a dead letter comes in once it can."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as Collected
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mongo_pipeline import MongoPipeline
from people import document, document_id
from pymongo import DeleteOne, ReplaceOne
from reconciling import MASKS, Reconciling, wrong
from table_damage import HARMLESS, Harm

from cdc_shared.dead_letters.dead_letters import Replayed
from cdc_shared.dead_letters.letter import Letter, Place
from cdc_shared.documents import key_text
from cdc_shared.kafka.reread_requests import RereadsRequested
from cdc_shared.models.reconciliation import DifferenceKind, Outcome
from reconciliation.reconciler.repair_engine import Requests

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

COLLECTION = "people"
DOCUMENTS = 600
EACH = 12
BATCH = 12
TIMEOUT_S = 60.0
LIMIT = 2_000
"""Bytes of a document, above which it is rejected."""


class WritesBesideRequests:
    """Writes each document once, around the request for it: before, in the same moment, or behind it."""

    def __init__(self, requests: Requests, write: Callable[[str], None]) -> None:
        self._requests = requests
        self._write = write
        self.written: list[str] = []

    def ask(self, source_keys: Sequence[str]) -> RereadsRequested:
        before, meanwhile, behind = (source_keys[turn::3] for turn in range(3))
        self._write_all(before)
        with ThreadPoolExecutor(1) as thread:
            writing = thread.submit(self._write_all, meanwhile)
            asked = self._requests.ask(source_keys)
            writing.result()
        self._write_all(behind)
        return asked

    def letters(self, keys: Collected[str]) -> Mapping[str, Sequence[Letter]]:
        return self._requests.letters(keys)

    def replay(self, places: frozenset[Place]) -> Replayed:
        return self._requests.replay(places)

    def applied(self) -> Mapping[int, int]:
        return self._requests.applied()

    def _write_all(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._write(key)
            self.written.append(key)


@pytest.fixture
def people(new_pipeline: Callable[..., MongoPipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reconciling:
    return Reconciling(new_pipeline(start=False, partitions=2), COLLECTION, tmp_path / "runs", monkeypatch)


def test_a_write_at_the_moment_of_its_repair_wins(people: Reconciling, rng: random.Random) -> None:
    """Each document is written once, so that no later write would hide a row that its repair has set back."""
    people.start()
    source = people.pipeline.db[COLLECTION]
    source.insert_many(map(document, range(DOCUMENTS)))
    people.await_rows(DOCUMENTS)
    people.stop_writer()
    extra = range(DOCUMENTS, DOCUMENTS + EACH)
    done = people.damage(rng, dict.fromkeys(Harm, EACH), extra)
    people.start_writer()
    found = wrong(people.run())
    assert len(found) == sum(harm not in HARMLESS for harm in done.values())

    numbers = {key_text(document_id(n)): n for n in range(DOCUMENTS + EACH)}
    newest: dict[str, str | None] = {}

    def write(key: str) -> None:
        number, version = numbers[key], rng.randrange(1, 10**9)
        match: dict[str, Any] = {"_id": document_id(number)}
        deletes = rng.random() < 0.2
        changed = document(number, version)
        source.bulk_write([DeleteOne(match) if deletes else ReplaceOne(match, changed, upsert=True)])
        newest[key] = None if deletes else changed["text"]

    racing: list[WritesBesideRequests] = []

    def beside(requests: Requests) -> Requests:
        racing.append(WritesBesideRequests(requests, write))
        return racing[0]

    repaired = people.repair(found, beside=beside, batch_keys=BATCH)
    keys = [each.source_key for each in found if each.source_key is not None]
    assert repaired.applied == len(found) == len(keys)
    assert sorted(racing[0].written) == sorted(keys), "each document was written, and once"
    people.await_texts(TIMEOUT_S)
    held = {key_text(each["_id"]): each["text"] for each in source.find({}, {"text": 1})}
    assert {key: held.get(key) for key in newest} == newest
    again = people.run()
    assert again.outcome is Outcome.EQUAL, (again.summary, again.differences[:3])
    assert again.summary.rows == len(held)


def test_a_dead_letter_is_no_difference_while_the_rules_reject_it_and_is_repaired_after_that(
    people: Reconciling,
) -> None:
    people.start(dirty_data={"max_document_size": LIMIT})
    source = people.pipeline.db[COLLECTION]
    source.insert_many(map(document, range(10)))
    people.await_rows(10)
    source.insert_one({**document(10), "notes": "x" * LIMIT})
    source.update_one({"_id": document_id(3)}, {"$set": {"text": "grown", "notes": "x" * LIMIT}})
    source.insert_one(document(11))
    people.await_rows(11)
    rejected = {key_text(document_id(number)) for number in (3, 10)}

    lasting = people.run()
    assert {each.key: each.kind for each in lasting.differences} == dict.fromkeys(rejected, DifferenceKind.REJECTED)
    assert (lasting.outcome, wrong(lasting)) == (Outcome.EQUAL, []), "the rules want it so: nothing to repair"

    people.pipeline.publish_quality(transformation=MASKS)
    people.pipeline.await_rules()
    found = people.run()
    assert {each.key: each.kind for each in found.differences} == dict.fromkeys(rejected, DifferenceKind.DEAD_LETTERED)
    assert found.outcome is Outcome.DIFFERENCES
    repaired = people.repair(found.differences)
    assert (repaired.replayed, repaired.refused, repaired.applied) == (2, {}, 2)
    people.await_rows(12)
    people.await_texts(TIMEOUT_S)
    clean = people.run()
    assert clean.outcome is Outcome.EQUAL, (clean.summary, clean.differences)
    assert list(clean.differences) == []
