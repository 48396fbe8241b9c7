"""Postgres: one pool of connections, and the transaction of a request."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg
import msgspec

from cdc_shared.errors import Fatal, Transient
from cdc_shared.logging.redaction import redact_text

MIN_CONNECTIONS: Final = 2
CONNECT_TIMEOUT_S: Final = 10.0
COMMAND_TIMEOUT_S: Final = 30.0
ACQUIRE_TIMEOUT_S: Final = 120.0
"""In a rush of 10,000 requests the last one waits its turn for tens of seconds: it is late, not refused."""

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Connection = asyncpg.Connection


class Database:
    """A pool of connections to Postgres. `jsonb` goes in and comes out as Python values."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    @classmethod
    async def open(cls, dsn: str, max_connections: int) -> "Database":
        """Connect. Raises `Transient` when Postgres does not answer, `Fatal` when it refuses."""
        with connection_errors():
            pool = await asyncpg.create_pool(
                dsn,
                min_size=MIN_CONNECTIONS,
                max_size=max_connections,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=COMMAND_TIMEOUT_S,
                init=prepare_connection,
                reset=_leave_as_it_is,
            )
        return cls(pool)

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection; each statement is a transaction of its own."""
        async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection in a transaction: committed at the end, rolled back on an exception."""
        async with self.connection() as connection, connection.transaction():
            yield connection


async def prepare_connection(connection: Any) -> None:
    """What every connection needs, the pool's and those of their own (listeners, locks)."""
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=msgspec.json.decode, schema="pg_catalog")


async def _leave_as_it_is(_: Any) -> None:
    """Called when a connection comes back; asyncpg has rolled back what was open.

    Its own way asks the server to reset the session each time, a round trip that nothing here needs: what is set or
    locked is set or locked for the transaction. Who needs a session has a connection of its own, not the pool's.
    """


class connection_errors:  # noqa: N801 # used as a function
    """Turns asyncpg's errors of connecting into the platform's, without the password."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        match error:
            case asyncpg.InvalidAuthorizationSpecificationError() | asyncpg.InvalidCatalogNameError():
                raise Fatal(f"Postgres refuses: {redact_text(str(error))}; correct POSTGRES_DSN") from None
            case ValueError() | asyncpg.InterfaceError():
                raise Fatal(
                    "POSTGRES_DSN is no connection string: write postgresql://user:password@host:5432/database"
                ) from None
            case asyncpg.PostgresError() | OSError() | TimeoutError():
                raise Transient(
                    f"Postgres does not answer: {redact_text(str(error)) or type(error).__name__}"
                ) from None
