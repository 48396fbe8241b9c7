"""The audit trail on real Postgres: it only grows, it shows tampering, and many processes write one chain."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from api_database import TrialDatabase

from control_plane.database import Database
from control_plane.models.audit import Action, AuditEntry, AuditVerification, Outcome
from control_plane.models.audit_chain import entry_hash
from control_plane.problems import Problem
from control_plane.repositories import audit_repo
from control_plane.repositories.audit_repo import AuditFilter
from control_plane.services import audit_verification
from control_plane.services.audit_trail import AuditTrail, AuditUnavailable

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADA, BOB = str(UUID(int=1)), str(UUID(int=2))
WRITER = textwrap.dedent(
    """
    import asyncio, sys
    from datetime import UTC, datetime
    from control_plane.models.audit import Action, AuditEntry, Outcome
    from control_plane.services.audit_trail import AuditTrail

    async def write(dsn, who, count):
        async with AuditTrail.open(dsn) as trail:
            async def one(n):
                await trail.record(AuditEntry(datetime.now(UTC), None, who, (), Action.ME, None, Outcome.ALLOWED, 200,
                                              None, f"{who}-{n}", None, 1.0))
            print("ready", flush=True)
            sys.stdin.readline()
            for first in range(0, count, 25):
                await asyncio.gather(*(one(n) for n in range(first, first + 25)))

    asyncio.run(write(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    """
)


def entry(request_id: str = "r", **values: object) -> AuditEntry:
    made = AuditEntry(
        AT,
        ADA,
        "ada",
        ("admin",),
        Action.PIPELINE_READ,
        "shop",
        Outcome.ALLOWED,
        200,
        None,
        request_id,
        "10.0.0.7",
        1.5,
    )
    return replace(made, **values)  # type: ignore[arg-type]


@asynccontextmanager
async def opened(database: TrialDatabase) -> AsyncIterator[Database]:
    made = await Database.open(database.dsn, 4)
    try:
        yield made
    finally:
        await made.close()


async def fill(database: TrialDatabase, count: int) -> None:
    async with AuditTrail.open(database.dsn) as trail:
        for n in range(1, count + 1):
            await trail.record(entry(f"r-{n}"))


async def verify(database: TrialDatabase, after: int = 0) -> AuditVerification:
    async with opened(database) as made:
        return await audit_verification.verify(made, after)


async def tamper(database: TrialDatabase, statements: str) -> None:
    """What only the owner of the tables can do."""
    await database.execute(
        "ALTER TABLE audit_logs DISABLE TRIGGER append_only; ALTER TABLE audit_head DISABLE TRIGGER forward_only;"
        f"{statements};"
        "ALTER TABLE audit_logs ENABLE ALWAYS TRIGGER append_only; "
        "ALTER TABLE audit_head ENABLE ALWAYS TRIGGER forward_only"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_logs SET user_name = 'eve'",
        "UPDATE audit_logs SET user_name = 'eve' WHERE false",
        "DELETE FROM audit_logs",
        "TRUNCATE audit_logs",
        "INSERT INTO audit_logs SELECT * FROM audit_logs ON CONFLICT (id) DO UPDATE SET user_name = 'eve'",
        "SET session_replication_role = replica; DELETE FROM audit_logs",
        "UPDATE audit_head SET entries = 0",
        "UPDATE audit_head SET entries = entries",
        "DELETE FROM audit_head",
        "TRUNCATE audit_head",
    ],
)
async def test_the_trail_only_grows(database: TrialDatabase, statement: str) -> None:
    await fill(database, 1)

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="only grows"):
        await database.execute(statement)

    assert (await verify(database)).intact
    assert await database.fetch_value("SELECT user_name FROM audit_logs") == "ada"


@pytest.mark.parametrize(
    ("statements", "first_broken"),
    [
        ("UPDATE audit_logs SET user_name = 'eve' WHERE id = 4", 4),
        ("UPDATE audit_logs SET at = at - interval '1 microsecond' WHERE id = 1", 1),
        ("UPDATE audit_logs SET roles = '{}' WHERE id = 4", 4),
        ("UPDATE audit_logs SET hash = sha256('x') WHERE id = 4", 4),
        ("DELETE FROM audit_logs WHERE id = 4", 4),
        ("DELETE FROM audit_logs WHERE id = 1", 1),
        ("DELETE FROM audit_logs WHERE id >= 8", 8),
        ("DELETE FROM audit_logs", 1),
        ("DELETE FROM audit_logs WHERE id = 10; UPDATE audit_head SET entries = 9", 9),
        (
            "UPDATE audit_logs SET id = 11 WHERE id = 4; UPDATE audit_logs SET id = 4 WHERE id = 5; "
            "UPDATE audit_logs SET id = 5 WHERE id = 11",
            4,
        ),
        ("UPDATE audit_logs SET id = id + 100 WHERE id = 10", 10),
        ("INSERT INTO audit_logs SELECT 11, at, user_id, user_name, roles, action, resource, outcome, status, code, "
         "request_id, address, duration_us, hash FROM audit_logs WHERE id = 10", 11),
    ],
)  # fmt: skip
async def test_tampering_shows_and_where(database: TrialDatabase, statements: str, first_broken: int) -> None:
    await fill(database, 10)
    assert (await verify(database)).intact

    await tamper(database, statements)

    told = await verify(database)
    assert (told.intact, told.first_broken) == (False, first_broken)
    assert told.why
    assert told.next is None


async def test_a_forged_entry_that_is_hashed_anew_shows_at_the_next(database: TrialDatabase) -> None:
    await fill(database, 5)
    (before,) = await database.fetch("SELECT hash FROM audit_logs WHERE id = 2")
    forged = entry_hash(before["hash"], 3, entry("r-3", user="eve"))

    await tamper(database, f"UPDATE audit_logs SET user_name = 'eve', hash = '\\x{forged.hex()}' WHERE id = 3")

    assert (await verify(database)).first_broken == 4


async def test_a_long_trail_is_checked_in_parts(database: TrialDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(database, 10)
    monkeypatch.setattr(audit_verification, "CHUNK_ENTRIES", 4)
    times = iter([0.0, 0.0, 99.0])
    async with opened(database) as made:
        part = await audit_verification.verify(made, 0, lambda: next(times))
        rest = await audit_verification.verify(made, part.next or 0)

        assert (part.intact, part.checked, part.next) == (True, 4, 4)
        assert (rest.intact, rest.after, rest.checked, rest.next) == (True, 4, 6, None)
        with pytest.raises(Problem, match="no entry"):
            await audit_verification.verify(made, 11)


async def test_a_thousand_calls_at_once_are_a_thousand_entries(
    database: TrialDatabase, measured: Callable[[str, float, str], None]
) -> None:
    async with AuditTrail.open(database.dsn) as trail, opened(database) as made:
        started = asyncio.get_running_loop().time()

        async def change(n: int) -> None:
            """A mutation: its entry in its own transaction."""
            async with made.transaction() as connection:
                await trail.append(connection, entry(f"change-{n}"))

        await asyncio.gather(*(trail.record(entry(f"read-{n}")) for n in range(1000)), *(change(n) for n in range(100)))
        measured("audit entries at once", 1100 / (asyncio.get_running_loop().time() - started), "entries/s")

    assert await database.fetch_value("SELECT count(DISTINCT request_id) FROM audit_logs") == 1100
    told = await verify(database)
    assert (told.intact, told.entries) == (True, 1100)


async def test_two_processes_write_one_chain(database: TrialDatabase) -> None:
    pipe = asyncio.subprocess.PIPE
    writers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, database.dsn, who, "500", stdin=pipe, stdout=pipe, stderr=pipe
        )
        for who in ("one", "two")
    ]
    for each in writers:
        assert each.stdout is not None
        await each.stdout.readline()  # both have started: one alone could be done before the other is there
    for each, (_, told) in zip(
        writers, await asyncio.gather(*(each.communicate(b"go\n") for each in writers)), strict=True
    ):
        assert each.returncode == 0, told.decode()

    rows = await database.fetch("SELECT user_name, count(*) FROM audit_logs GROUP BY 1 ORDER BY 1")
    assert [tuple(each) for each in rows] == [("one", 500), ("two", 500)]
    assert (await verify(database)).intact
    order = [each["user_name"] for each in await database.fetch("SELECT user_name FROM audit_logs ORDER BY id")]
    assert order != sorted(order), "they did not write at the same time: the test shows nothing"


async def test_what_is_rolled_back_leaves_neither_change_nor_entry(database: TrialDatabase) -> None:
    async with AuditTrail.open(database.dsn) as trail, opened(database) as made:
        await trail.record(entry("before"))
        with suppress(ZeroDivisionError):
            async with made.transaction() as connection:
                await trail.append(connection, entry("lost"))
                raise ZeroDivisionError
        await trail.record(entry("after"))

    assert [each[0] for each in await database.fetch("SELECT request_id FROM audit_logs ORDER BY id")] == [
        "before",
        "after",
    ]
    assert (await verify(database)).intact


async def test_while_postgres_is_away_calls_are_refused_and_then_go_on(database: TrialDatabase) -> None:
    name = database.dsn.rsplit("/", 1)[1]
    async with AuditTrail.open(database.dsn) as trail:
        await trail.record(entry("before"))
        await _elsewhere(database, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await _elsewhere(database, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        with pytest.raises(AuditUnavailable):
            await trail.record(entry("meanwhile"))
        await _elsewhere(database, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await trail.record(entry("after"))

    assert [each[0] for each in await database.fetch("SELECT request_id FROM audit_logs ORDER BY id")] == [
        "before",
        "after",
    ]


async def shorten(database: TrialDatabase, setting: str) -> None:
    """Make one of the time-outs that a writer sets 300 ms."""
    source = await database.fetch_value("SELECT pg_get_functiondef('lock_audit_head'::regproc)")
    shortened = source.replace(f"'{setting}', '10s'", f"'{setting}', '300ms'")
    assert shortened != source
    await database.execute(shortened)


@asynccontextmanager
async def holder_of_the_lock(database: TrialDatabase) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A process that stopped between its entry and its commit."""
    connection = await asyncpg.connect(database.dsn)
    try:
        await connection.execute("BEGIN")
        await audit_repo.append(connection, [entry("frozen")])
        yield connection
    finally:
        await connection.close()


async def test_a_process_that_froze_with_the_lock_is_cut_off(database: TrialDatabase) -> None:
    await shorten(database, "idle_in_transaction_session_timeout")
    async with holder_of_the_lock(database), AuditTrail.open(database.dsn) as trail:
        await trail.record(entry("waited"))

    assert await database.fetch_value("SELECT array_agg(request_id) FROM audit_logs") == ["waited"]


async def test_who_cannot_have_the_lock_in_time_is_refused(database: TrialDatabase) -> None:
    await shorten(database, "lock_timeout")
    async with AuditTrail.open(database.dsn) as trail:
        async with holder_of_the_lock(database):
            with pytest.raises(AuditUnavailable):
                await trail.record(entry("refused"))
        await trail.record(entry("after"))

    assert await database.fetch_value("SELECT array_agg(request_id) FROM audit_logs") == ["after"]


FILTERED = [
    entry("1"),
    entry("2", at=AT + timedelta(hours=1), user="Bob", user_id=BOB, roles=("analyst",)),
    entry("3", at=AT + timedelta(hours=2), user="Bob", user_id=BOB, outcome=Outcome.REFUSED, status=403),
    entry("4", at=AT + timedelta(hours=3), action=Action.PIPELINE_DELETE, resource="other"),
    entry("5", at=AT + timedelta(hours=4), user=None, user_id=None, roles=(), outcome=Outcome.FAILED, status=404),
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (AuditFilter(), "54321"),
        (AuditFilter(user="ADA"), "41"),
        (AuditFilter(user="bob"), "32"),
        (AuditFilter(user=BOB), "32"),
        (AuditFilter(user="bo"), ""),
        (AuditFilter(action=Action.PIPELINE_DELETE), "4"),
        (AuditFilter(resource="shop"), "5321"),
        (AuditFilter(outcome=Outcome.REFUSED), "3"),
        (AuditFilter(since=AT + timedelta(hours=1), until=AT + timedelta(hours=3)), "32"),
        (AuditFilter(user="bob", outcome=Outcome.ALLOWED), "2"),
        (AuditFilter(user="bob'; DROP TABLE users; --"), ""),
    ],
)
async def test_filters_find_what_matches_all_of_them(database: TrialDatabase, wanted: AuditFilter, found: str) -> None:
    async with opened(database) as made:
        async with made.transaction() as connection:
            await audit_repo.append(connection, FILTERED)
        async with made.connection() as connection:
            newest = await audit_repo.newest(connection, wanted, None, 10)
            older = await audit_repo.newest(connection, wanted, 4, 10)
            oldest = await audit_repo.between(connection, wanted, 1, 4, 10)

    assert "".join(each.entry.request_id for each in newest) == found
    assert "".join(each.entry.request_id for each in older) == "".join(n for n in found if n < "4")
    assert "".join(each.entry.request_id for each in oldest) == "".join(n for n in found[::-1] if "1" < n <= "4")
    assert all(each.entry in FILTERED for each in newest)


async def _elsewhere(database: TrialDatabase, statement: str) -> None:
    """On the server, but not in this database."""
    connection = await asyncpg.connect(f"{database.dsn.rsplit('/', 1)[0]}/postgres")
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
