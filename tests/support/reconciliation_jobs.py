"""Jobs of reconciliation as the API leaves them in Postgres, and what becomes of them."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final

from api_database import TrialDatabase

PIPELINE: Final = "shop"
WAIT_S: Final = 15.0

NewJob = Callable[..., Awaitable[uuid.UUID]]


async def add_job(
    database: TrialDatabase,
    overlap: str = "queue",
    collections: list[str] | None = None,
    repair_id: uuid.UUID | None = None,
    **options: Any,
) -> uuid.UUID:
    """Queue a job; `options` as in `JobOptions`."""
    added = await database.fetch_value(
        "INSERT INTO reconciliation_jobs (pipeline, collections, mode, overlap, requested_by, options, repair_id) "
        "VALUES ($1, $2, 'full', $3, 'ada', $4::text::jsonb, $5) RETURNING id",
        PIPELINE,
        collections,
        overlap,
        json.dumps(options),
        repair_id,
    )
    assert isinstance(added, uuid.UUID)
    return added


async def wait_for(condition: Callable[[], Awaitable[Any]], what: str, timeout_s: float = WAIT_S) -> Any:
    until = time.monotonic() + timeout_s
    while not (found := await condition()):
        assert time.monotonic() < until, f"{what}: not within {timeout_s} s"
        await asyncio.sleep(0.02)
    return found


async def state_of(database: TrialDatabase, job: uuid.UUID) -> str:
    state = await database.fetch_value("SELECT state FROM reconciliation_jobs WHERE id = $1", job)
    assert isinstance(state, str)
    return state


async def until(database: TrialDatabase, job: uuid.UUID, *states: str, timeout_s: float = WAIT_S) -> str:
    async def reached() -> str | None:
        state = await state_of(database, job)
        return state if state in states else None

    found = await wait_for(reached, f"job {job} is {states}", timeout_s)
    assert isinstance(found, str)
    return found


async def want(database: TrialDatabase, job: uuid.UUID, wanted: str) -> None:
    await database.fetch("UPDATE reconciliation_jobs SET wanted = $2 WHERE id = $1", job, wanted)
