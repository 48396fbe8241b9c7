"""Many calls wait together for one commit, and none is answered without its entry."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from control_plane.database import Database
from control_plane.models.audit import Action, AuditEntry, Outcome
from control_plane.models.audit_chain import GENESIS
from control_plane.services.audit_trail import MAX_BATCH_ENTRIES, AuditTrail, AuditUnavailable

pytestmark = [pytest.mark.unit, pytest.mark.anyio]


def entry(request_id: str) -> AuditEntry:
    return AuditEntry(
        datetime(2026, 1, 1, tzinfo=UTC),
        None,
        None,
        (),
        Action.ME,
        None,
        Outcome.ALLOWED,
        200,
        None,
        request_id,
        None,
        1,
    )


class FakeDatabase:
    """Keeps the trail as Postgres would: what a transaction wrote is there when it ends well."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.batches: list[int] = []
        self.failing = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["FakeDatabase"]:
        self.entered.set()
        await self.gate.wait()
        if self.failing:
            raise ConnectionResetError("gone")
        self._written: list[str] = []
        yield self
        self.stored += self._written
        self.batches.append(len(self._written))

    async def fetchrow(self, _: str) -> dict[str, Any]:
        return {"entries": len(self.stored), "hash": GENESIS}

    async def executemany(self, _: str, rows: list[tuple[Any, ...]]) -> None:
        self._written = [row[10] for row in rows]

    async def execute(self, *_: Any) -> None:
        return None


@asynccontextmanager
async def trail_over(database: FakeDatabase) -> AsyncIterator[AuditTrail]:
    async with AuditTrail(cast(Database, database)).storing() as trail:
        yield trail


async def test_who_waits_is_stored_with_one_commit() -> None:
    database = FakeDatabase()
    async with trail_over(database) as trail:
        database.gate.clear()
        first = asyncio.create_task(trail.record(entry("first")))
        await database.entered.wait()
        others = [asyncio.create_task(trail.record(entry(str(n)))) for n in range(50)]
        await asyncio.sleep(0)
        assert not first.done()

        database.gate.set()
        await asyncio.gather(first, *others)

        assert database.batches == [1, 50]
        assert database.stored == ["first", *map(str, range(50))]


async def test_a_batch_is_bounded() -> None:
    database = FakeDatabase()
    async with trail_over(database) as trail:
        await asyncio.gather(*(trail.record(entry(str(n))) for n in range(MAX_BATCH_ENTRIES * 2 + 1)))

        assert max(database.batches) <= MAX_BATCH_ENTRIES
        assert len(database.stored) == MAX_BATCH_ENTRIES * 2 + 1


async def test_what_cannot_be_stored_is_told_to_each_and_storing_goes_on() -> None:
    database = FakeDatabase()
    async with trail_over(database) as trail:
        database.failing = True
        results = await asyncio.gather(*(trail.record(entry(str(n))) for n in range(3)), return_exceptions=True)
        assert [type(each) for each in results] == [AuditUnavailable] * 3

        database.failing = False
        await trail.record(entry("later"))
        assert database.stored == ["later"]


async def test_the_entry_of_whoever_went_away_is_stored() -> None:
    database = FakeDatabase()
    async with trail_over(database) as trail:
        database.gate.clear()
        gone = asyncio.create_task(trail.record(entry("gone")))
        await database.entered.wait()
        gone.cancel()
        database.gate.set()
        await trail.record(entry("other"))

        assert database.stored == ["gone", "other"]


async def test_the_end_stores_what_waits_and_takes_no_more() -> None:
    database = FakeDatabase()
    database.gate.clear()
    waiting: list[asyncio.Task[None]] = []
    async with trail_over(database) as trail:
        waiting = [asyncio.create_task(trail.record(entry(str(n)))) for n in range(3)]
        await database.entered.wait()
        asyncio.get_running_loop().call_soon(database.gate.set)

    await asyncio.gather(*waiting)
    assert sorted(database.stored) == ["0", "1", "2"]
    with pytest.raises(AuditUnavailable, match="shutting down"):
        await trail.record(entry("late"))
