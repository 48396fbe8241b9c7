"""Repairs on a real Postgres, Kafka and table made up: applied once approved, within their cap, resumed, verified."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Collection as Collected
from pathlib import Path
from typing import Any

import pytest
from api_database import TrialDatabase
from reconciliation_worker import FakeRunner, reconciliation_worker

from cdc_shared.dead_letters.dead_letters import Replayed
from cdc_shared.dead_letters.letter import Letter, Place
from cdc_shared.errors import Transient
from cdc_shared.kafka.reread_requests import RereadsRequested
from cdc_shared.models.collection import Collection
from cdc_shared.models.reconciliation import DifferenceKind
from reconciliation.reconciler.difference import Difference
from reconciliation.scheduler import repair_worker

pytestmark = [pytest.mark.integration, pytest.mark.anyio, pytest.mark.timeout(60)]

WAIT_S = 15.0
KEYS = 12


class FakeRequests:
    """Kafka and a writer that applies at once; `failures` are raised by the next calls."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failures: list[Exception] = []

    def ask(self, source_keys: Sequence[str]) -> RereadsRequested:
        if self.failures:
            raise self.failures.pop(0)
        self.asked += source_keys
        return RereadsRequested(acknowledged=len(source_keys), ends={0: len(self.asked)})

    def letters(self, keys: Collected[str]) -> Mapping[str, Sequence[Letter]]:
        return {}

    def replay(self, places: frozenset[Place]) -> Replayed:
        raise AssertionError("there are no dead letters")

    def applied(self) -> Mapping[int, int]:
        return {0: len(self.asked)}


async def wait_for(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    until = time.monotonic() + WAIT_S
    while not (found := await condition()):
        assert time.monotonic() < until, f"{what}: not within {WAIT_S} s"
        await asyncio.sleep(0.02)
    return found


async def found_wrong(database: TrialDatabase, runner: FakeRunner) -> uuid.UUID:
    """A completed job with `KEYS` differences of two collections each; its id."""
    runner.differences = [
        Difference(f"k{n}", f'{{"id":"{n}"}}', DifferenceKind.MISSING if n % 2 else DifferenceKind.EXTRA)
        for n in range(KEYS)
    ]
    job = await database.fetch_value(
        "INSERT INTO reconciliation_jobs (pipeline, mode, requested_by) VALUES ('shop', 'full', 'ada') RETURNING id"
    )
    async with reconciliation_worker(database.dsn, runner):

        async def over() -> Any:
            return await database.fetch_value("SELECT true FROM reconciliation_jobs WHERE state = 'completed'")

        await wait_for(over, "the job is over")
    runner.differences = ()
    assert isinstance(job, uuid.UUID)
    return job


async def approved(
    database: TrialDatabase, job: uuid.UUID, max_keys: int = 100, kinds: Sequence[str] = ("missing", "extra")
) -> None:
    await database.fetch(
        "INSERT INTO reconciliation_repairs (pipeline, job_id, kinds, max_keys, plan, state, proposed_by, decided_by, "
        "decided_at) VALUES ('shop', $1, $2, $3, '{}', 'approved', 'ada', 'grace', now())",
        job,
        list(kinds),
        max_keys,
    )


async def over(database: TrialDatabase) -> Any:
    async def ended() -> Any:
        rows = await database.fetch("SELECT * FROM reconciliation_repairs WHERE finished_at IS NOT NULL")
        return rows[0] if rows else None

    return await wait_for(ended, "the repair is over")


async def test_an_approved_repair_is_applied_and_verified_by_its_keys_alone(
    database: TrialDatabase, tmp_path: Path
) -> None:
    runner, opened = FakeRunner(tmp_path, tables=("a", "b")), dict[Collection, FakeRequests]()
    job = await found_wrong(database, runner)
    await database.execute("UPDATE reconciliation_verifications SET checked_at = '2020-01-01'")
    await approved(database, job, kinds=["missing"])

    def open_requests(pipeline: str, collection: Collection) -> FakeRequests:
        assert pipeline == "shop"
        return opened.setdefault(collection, FakeRequests())

    async with reconciliation_worker(database.dsn, runner, open_requests=open_requests):
        repair = await over(database)
    missing = [f'{{"id":"{n}"}}' for n in range(KEYS) if n % 2]
    assert (repair["state"], repair["error"], repair["worker"]) == ("done", None, None)
    assert {collection.name: requests.asked for collection, requests in opened.items()} == {"a": missing, "b": missing}
    progress = json.loads(repair["progress"])
    assert (progress["asked"], progress["applied"]) == (KEYS, KEYS)
    assert progress["verification"] == {"outcome": "equal", "differences": {}}
    verification = [request for request in runner.requests if request.keys is not None]
    assert [(request.collection.name, request.keys) for request in verification] == [("a", missing), ("b", missing)]
    job_row = (await database.fetch("SELECT * FROM reconciliation_jobs WHERE repair_id = $1", repair["id"]))[0]
    assert (job_row["id"], job_row["outcome"]) == (repair["verification_job_id"], "equal")
    # It says nothing of the other keys.
    verdicts = await database.fetch("SELECT last_outcome, checked_at FROM reconciliation_verifications")
    assert {(each["last_outcome"], each["checked_at"].year) for each in verdicts} == {("differences", 2020)}


async def test_what_is_away_is_waited_for_and_nothing_is_asked_for_twice(
    database: TrialDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair_worker, "AGAIN_AFTER_S", 0.05)
    monkeypatch.setattr(repair_worker, "BATCH_KEYS", 5)
    runner, requests = FakeRunner(tmp_path), FakeRequests()
    requests.failures = [Transient("Kafka is away")] * 2
    away = [Transient("the store is away")]

    def open_requests(pipeline: str, collection: Collection) -> FakeRequests:
        if away:
            raise away.pop()
        return requests

    await approved(database, await found_wrong(database, runner))
    async with reconciliation_worker(database.dsn, runner, open_requests=open_requests):
        repair = await over(database)
    assert (repair["state"], repair["error"]) == ("done", None)
    assert requests.asked == [f'{{"id":"{n}"}}' for n in range(KEYS)]


async def test_more_keys_than_were_approved_are_not_asked_for(database: TrialDatabase, tmp_path: Path) -> None:
    runner, requests = FakeRunner(tmp_path), FakeRequests()
    await approved(database, await found_wrong(database, runner), max_keys=5)
    async with reconciliation_worker(database.dsn, runner, open_requests=lambda *_: requests):
        repair = await over(database)
    assert repair["state"] == "failed"
    assert "may ask for 5 keys and there are more" in repair["error"]
    assert len(requests.asked) == 5


async def test_a_repair_whose_verification_finds_more_has_failed(database: TrialDatabase, tmp_path: Path) -> None:
    runner, requests = FakeRunner(tmp_path), FakeRequests()
    await approved(database, await found_wrong(database, runner))
    runner.differences = [Difference("k1", '{"id":"1"}', DifferenceKind.MISSING)]
    async with reconciliation_worker(database.dsn, runner, open_requests=lambda *_: requests):
        repair = await over(database)
    assert (repair["state"], json.loads(repair["progress"])["verification"]) == (
        "failed",
        {"outcome": "differences", "differences": {"missing": 1}},
    )
    assert "still wrong" in repair["error"]


async def test_a_repair_of_a_killed_process_goes_on_behind_its_last_batch(
    database: TrialDatabase, tmp_path: Path
) -> None:
    runner, requests = FakeRunner(tmp_path), FakeRequests()
    await approved(database, await found_wrong(database, runner))
    run = await database.fetch_value("SELECT id FROM reconciliation_runs")
    await database.fetch(
        "UPDATE reconciliation_repairs SET state = 'applying', worker = 'gone', heartbeat_at = now() - interval '1 h', "
        "progress = $1::text::jsonb",
        json.dumps({"runs": {str(run): {"number": 8, "asked": 8, "applied": 8}}}),
    )
    async with reconciliation_worker(database.dsn, runner, open_requests=lambda *_: requests):
        repair = await over(database)
    assert (repair["state"], repair["error"]) == ("done", None)
    assert requests.asked == [f'{{"id":"{n}"}}' for n in range(8, KEYS)]
    assert json.loads(repair["progress"])["applied"] == KEYS
