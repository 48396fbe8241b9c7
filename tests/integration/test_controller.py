"""The controller's loop over real Postgres, with everything else simulated: prompt, and through lost connections."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from api_database import TrialDatabase
from controller_world import World

from cdc_shared.metrics.prometheus_metrics import PipelineState
from control_plane.controller.controller import Controller
from control_plane.models.pipeline import PipelineConfig

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

PIPELINES = 12
TIMEOUT_S = 60.0
REACTION_LIMIT_S = 1.0
TICK_S = 0.02
CUTS = 1


@asynccontextmanager
async def running(world: World, database: TrialDatabase, processes: int = 1) -> AsyncIterator[None]:
    """Controllers, and the world's time passing."""

    async def pass_time() -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            world.advance(now - before)
            before = now

    controllers = [Controller(world.systems(), database.dsn, random.Random(n)) for n in range(processes)]
    tasks = [asyncio.create_task(work) for work in (pass_time(), *(each.run() for each in controllers))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def add(database: TrialDatabase, name: str) -> None:
    config = PipelineConfig.model_validate({"name": name, "source": {"connection": "env:X", "database": "db"}})
    await database.fetch(
        "INSERT INTO pipelines (name, spec, created_by, updated_by) VALUES ($1, $2::text::jsonb, '', '')",
        name,
        config.model_dump_json(exclude={"quality": {"version"}}),
    )


async def want(database: TrialDatabase, desired: str, name: str = "%") -> None:
    await database.fetch(
        "UPDATE pipelines SET desired = $1, desired_version = desired_version + 1, started = true WHERE name LIKE $2",
        desired,
        name,
    )


async def until_reached(database: TrialDatabase, count: int) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while (
            await database.fetch_value(
                "SELECT count(*) FROM pipelines p JOIN observations o ON o.pipeline = p.name "
                "WHERE o.reached_version = p.desired_version"
            )
            != count
        ):
            await asyncio.sleep(0.1)


async def test_it_acts_within_a_second(
    database: TrialDatabase, rng: random.Random, measured: Callable[[str, float, str], None]
) -> None:
    world = World(rng)
    await add(database, "shop")
    async with running(world, database):
        async with asyncio.timeout(TIMEOUT_S):
            while await database.fetch_value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)  # it has looked at everything, and waits
        asked_at = time.monotonic()
        await want(database, "running")
        async with asyncio.timeout(TIMEOUT_S):
            while "publish shop" not in world.calls:
                await asyncio.sleep(0.005)
        reaction_s = time.monotonic() - asked_at
        measured("from a change in Postgres to the first thing done", reaction_s, "s")
        assert reaction_s < REACTION_LIMIT_S
        await until_reached(database, 1)


@pytest.mark.timeout(180)
async def test_many_pipelines_while_leaders_lose_their_connections(database: TrialDatabase, rng: random.Random) -> None:
    world = World(rng)
    world.failure_rate = 0.05
    for n in range(PIPELINES):
        await add(database, f"p{n}")
    await database.execute(
        "INSERT INTO pipelines (name, spec, desired, started, created_by, updated_by) "
        "VALUES ('unreadable', '{\"from\": \"another release\"}', 'running', true, '', '')"
    )
    async with running(world, database, processes=3):
        for desired in ("running", "paused", "stopped"):
            await want(database, desired, "p%")
            for _ in range(CUTS):
                await asyncio.sleep(rng.uniform(0.1, 1.5))
                await database.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cdc-controller' "
                    "AND datname = current_database()"
                )
            await until_reached(database, PIPELINES)
            states = {connector.told for connector in world.connectors.values()}
            assert states == {desired.upper()}
    assert set(world.writer_states.values()) == {PipelineState.STOPPED}
    found = await database.fetch("SELECT DISTINCT kind, status, reason FROM conditions ORDER BY kind")
    assert [tuple(each) for each in found] == [
        ("ConnectorRunning", "false", "Stopped"),
        ("ResyncNeeded", "false", "NothingLost"),
        ("SpecPublished", "true", "Published"),
        ("WriterRunning", "false", "Stopped"),
    ]
