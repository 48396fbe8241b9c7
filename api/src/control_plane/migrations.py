"""The database's schema: numbered SQL files that are applied forward, once, each in a transaction of its own.

Several starters take turns on an advisory lock. A file that was applied must stay as it was: its checksum is kept.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import asyncpg

from cdc_shared.errors import Fatal
from cdc_shared.logging.structured_logger import get_logger
from control_plane.advisory_locks import AdvisoryLock
from control_plane.database import CONNECT_TIMEOUT_S, connection_errors

LOCK: Final = AdvisoryLock.MIGRATIONS
"""The advisory lock of migrations."""
_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")

log = get_logger(__name__)


class InvalidMigrations(Fatal):
    """The files and the database do not belong together."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load_migrations() -> list[Migration]:
    """The files, by number: of the installed package, or of the checkout's `api/migrations`."""
    packaged = resources.files("control_plane") / "migrations"
    directory = packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "migrations"
    found = [
        Migration(int(match[1]), match[2], each.read_text(encoding="utf-8"))
        for each in directory.iterdir()
        if (match := _NAME.fullmatch(each.name))
    ]
    found.sort(key=lambda each: each.number)
    if [each.number for each in found] != list(range(1, len(found) + 1)) or not found:
        raise InvalidMigrations(f"{directory}: migrations must be numbered 0001, 0002, … without gaps")
    return found


async def migrate(dsn: str, migrations: Iterable[Migration] | None = None) -> list[Migration]:
    """Bring the database forward; return what was applied now. Safe to repeat, and for several at once.

    Raises:
        InvalidMigrations: an applied file has changed, or the database is of a newer release.
        Transient: Postgres does not answer.
    """
    wanted = list(load_migrations() if migrations is None else migrations)
    with connection_errors():
        connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        return await _apply(connection, wanted)
    finally:
        await connection.close()  # which gives the lock back


async def _apply(connection: Any, wanted: list[Migration]) -> list[Migration]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (number int PRIMARY KEY, name text NOT NULL, "
        "checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    applied = {row["number"]: row for row in await connection.fetch("SELECT * FROM schema_migrations")}
    if newer := applied.keys() - {each.number for each in wanted}:
        raise InvalidMigrations(
            f"the database has migration {max(newer):04}, which this release does not know: use the newer release"
        )
    done = []
    for each in wanted:
        if each.number in applied:
            if applied[each.number]["checksum"] != each.checksum:
                raise InvalidMigrations(f"migration {each.number:04}_{each.name} has changed since it was applied")
            continue
        async with connection.transaction():
            await connection.execute(each.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (number, name, checksum) VALUES ($1, $2, $3)",
                each.number,
                each.name,
                each.checksum,
            )
        log.info("migration applied", number=each.number, name=each.name)
        done.append(each)
    return done
