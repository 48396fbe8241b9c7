"""The schema comes forward on real Postgres: from nothing, from any release, twice, and by several at once."""

from __future__ import annotations

import asyncio
import multiprocessing
from dataclasses import replace

import asyncpg
import pytest
from api_database import TrialDatabase

from control_plane.migrations import InvalidMigrations, Migration, load_migrations, migrate

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

STARTERS = 4


async def applied(database: TrialDatabase) -> list[int]:
    return [row["number"] for row in await database.fetch("SELECT number FROM schema_migrations ORDER BY applied_at")]


async def schema(database: TrialDatabase) -> list[tuple[str, str, str]]:
    rows = await database.fetch(
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = 'public' ORDER BY table_name, ordinal_position"
    )
    return [tuple(row) for row in rows]


async def test_an_empty_database_comes_forward_and_a_second_time_changes_nothing(
    empty_database: TrialDatabase,
) -> None:
    wanted = load_migrations()
    assert await migrate(empty_database.dsn) == wanted
    made = await schema(empty_database)
    assert {"users", "audit_logs", "pipelines"} <= {table for table, _, _ in made}
    assert await migrate(empty_database.dsn) == []
    assert await schema(empty_database) == made
    assert await applied(empty_database) == [each.number for each in wanted]


async def test_a_filled_database_of_every_earlier_release_comes_forward_and_loses_nothing(
    empty_database: TrialDatabase,
) -> None:
    wanted = load_migrations()
    for release in range(1, len(wanted) + 1):
        assert await migrate(empty_database.dsn, wanted[:release]) == [wanted[release - 1]]
        await empty_database.execute(
            "INSERT INTO users (name, password_hash, created_at, password_changed_at) "
            f"VALUES ('of-release-{release}', 'x', now(), now())"
        )
    assert await empty_database.fetch_value("SELECT count(*) FROM users") == len(wanted)
    assert await migrate(empty_database.dsn) == []


def _start(dsn: str) -> None:
    asyncio.run(migrate(dsn))


async def test_several_processes_that_start_at_once_apply_each_migration_once(empty_database: TrialDatabase) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_start, args=(empty_database.dsn,)) for _ in range(STARTERS)]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join, 60)
    assert [process.exitcode for process in processes] == [0] * STARTERS
    assert await applied(empty_database) == [each.number for each in load_migrations()]


async def test_of_several_starters_in_one_process_one_does_the_work(empty_database: TrialDatabase) -> None:
    done = await asyncio.gather(*(migrate(empty_database.dsn) for _ in range(STARTERS)))
    assert sorted(map(len, done)) == [0] * (STARTERS - 1) + [len(load_migrations())]


async def test_a_migration_that_fails_leaves_nothing_of_itself_and_all_before_it(empty_database: TrialDatabase) -> None:
    wanted = load_migrations()
    number = len(wanted) + 1
    broken = Migration(number, "broken", "CREATE TABLE half (id int); INSERT INTO no_such_table VALUES (1);")
    with pytest.raises(asyncpg.UndefinedTableError):
        await migrate(empty_database.dsn, [*wanted, broken])
    assert await applied(empty_database) == [each.number for each in wanted]
    assert "half" not in {table for table, _, _ in await schema(empty_database)}
    mended = replace(broken, sql="CREATE TABLE half (id int);")
    assert await migrate(empty_database.dsn, [*wanted, mended]) == [mended]


async def test_a_file_that_changed_since_and_a_newer_database_are_refused(empty_database: TrialDatabase) -> None:
    wanted = load_migrations()
    await migrate(empty_database.dsn)
    changed = replace(wanted[0], sql=wanted[0].sql + "\n-- a comment")
    with pytest.raises(InvalidMigrations, match="0001_users has changed"):
        await migrate(empty_database.dsn, [changed, *wanted[1:]])
    with pytest.raises(InvalidMigrations, match="use the newer release"):
        await migrate(empty_database.dsn, wanted[:-1])
    assert await applied(empty_database) == [each.number for each in wanted]
