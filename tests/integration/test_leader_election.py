"""Of several processes exactly one leads, whatever becomes of its connection to Postgres."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from api_database import TrialDatabase

from control_plane.controller.leader import LEASE_S, LOCK, Election, Leadership, LeadershipLost

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

CANDIDATES = 4
TAKE_OVER_S = 5.0


class Candidate:
    """Stands for election again and again; `leads` while it does."""

    def __init__(self, dsn: str, seed: float) -> None:
        self.heard: list[str] = []
        self.leads: Leadership | None = None
        self._election = Election(dsn, self.heard.append, random.Random(seed))

    async def run(self) -> None:
        while True:
            async with self._election.lead() as leadership:
                self.leads = leadership
                try:
                    await leadership.keep()
                except LeadershipLost:
                    pass
                finally:
                    self.leads = None


async def until(condition: Callable[[], bool], timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


async def test_exactly_one_leads_and_another_takes_over(
    database: TrialDatabase, rng: random.Random, measured: Callable[[str, float, str], None]
) -> None:
    candidates = [Candidate(database.dsn, rng.random()) for _ in range(CANDIDATES)]

    def leaders() -> list[Candidate]:
        return [each for each in candidates if each.leads is not None and each.leads.holds]

    async with AsyncExitStack() as stack:
        tasks = {each: asyncio.create_task(each.run()) for each in candidates}
        stack.callback(lambda: [task.cancel() for task in tasks.values()])
        await until(lambda: len(leaders()) == 1, TAKE_OVER_S)
        (first,) = leaders()
        await database.execute("NOTIFY pipelines, 'shop'")
        await until(lambda: first.heard == ["shop"], 1.0)

        # The connection is cut: that is known at once, and nothing can be stored by it any more.
        cut_at, leadership = time.monotonic(), first.leads
        assert leadership is not None
        await database.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND granted",
            LOCK & 0xFFFFFFFF,
        )
        await until(lambda: not leadership.holds, 1.0)
        measured("a leader knows that it lost its connection after", time.monotonic() - cut_at, "s")
        with pytest.raises(LeadershipLost):
            async with leadership.connection() as connection:
                await connection.execute("SELECT 1")
        await until(lambda: len(leaders()) == 1, TAKE_OVER_S)
        measured("another one leads after", time.monotonic() - cut_at, "s")

        # The process ends: the next one has the lock.
        (second,) = leaders()
        tasks[second].cancel()
        await until(lambda: second not in leaders() and len(leaders()) == 1, TAKE_OVER_S)
        for _ in range(50):
            assert len(leaders()) <= 1
            await asyncio.sleep(0.02)


async def test_a_leader_that_is_suspended_leads_no_more_when_it_wakes(database: TrialDatabase) -> None:
    """Its own clock tells, before Postgres gives the lock to another."""
    now = [0.0]
    election = Election(database.dsn, lambda _: None, random.Random(0), clock=lambda: now[0])
    async with election.lead() as leadership:
        assert leadership.holds
        now[0] += LEASE_S
        assert not leadership.holds
