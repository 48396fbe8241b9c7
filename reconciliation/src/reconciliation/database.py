"""Postgres: a small pool, and connections of their own for locks and listening."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg
import msgspec

from cdc_shared.errors import Fatal, Transient
from cdc_shared.logging.redaction import redact_text

CONNECT_TIMEOUT_S: Final = 10.0
COMMAND_TIMEOUT_S: Final = 30.0
MAX_CONNECTIONS: Final = 8
IDLE_IN_TRANSACTION_S: Final = 10.0
"""Postgres ends a transaction that asks nothing for so long: its process hangs, and its locks would keep others out."""

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Connection = asyncpg.Connection


class Database:
    """A pool of connections; `jsonb` goes in and comes out as Python values.

    Whatever fails because Postgres is away, in a block that `connection` or `transaction` opens, is `Transient`.
    """

    def __init__(self, dsn: str, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._dsn = dsn
        self._pool = pool

    @classmethod
    async def open(cls, dsn: str) -> "Database":
        """Connect. Raises `Transient` when Postgres does not answer, `Fatal` when it refuses."""
        try:
            with database_errors():
                pool = await asyncpg.create_pool(
                    dsn,
                    min_size=1,
                    max_size=MAX_CONNECTIONS,
                    timeout=CONNECT_TIMEOUT_S,
                    command_timeout=COMMAND_TIMEOUT_S,
                    server_settings={"idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S * 1000:.0f}"},
                    init=_prepare,
                )
        except Transient as error:
            raise Transient(f"{error} (at {host_of(dsn)}); start it, or correct POSTGRES_DSN") from None
        return cls(dsn, pool)

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection; each statement is a transaction of its own."""
        with database_errors():
            async with self._pool.acquire(timeout=CONNECT_TIMEOUT_S) as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection in a transaction: committed at the end, rolled back on an exception."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def own_connection(self, *, silent_s: float | None = None) -> "asyncpg.Connection[asyncpg.Record]":
        """A connection that is the caller's until it closes it: what it locks or listens to ends with it.

        Postgres ends it when it has asked nothing for `silent_s`: its holder hangs, or is cut off.
        """
        settings = {} if silent_s is None else {"idle_session_timeout": f"{silent_s * 1000:.0f}"}
        with database_errors():
            return await asyncpg.connect(
                self._dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S, server_settings=settings
            )

    async def has_tables(self) -> bool:
        """Whether the control plane has made what the service works with."""
        async with self.connection() as connection:
            return bool(await connection.fetchval("SELECT to_regclass('reconciliation_jobs') IS NOT NULL"))


def host_of(dsn: str) -> str:
    """The hosts and ports of a connection string, without what else it holds."""
    # Not urlsplit: it refuses some strings, and shows them, password and all.
    authority = dsn.partition("://")[2].partition("/")[0].partition("?")[0]
    return authority.rpartition("@")[2] or "the default host"


async def _prepare(connection: Any) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=msgspec.json.decode, schema="pg_catalog")


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn asyncpg's errors of reaching Postgres into the platform's, without the password."""
    try:
        yield
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
        raise Fatal(f"Postgres refuses: {redact_text(str(error))}; correct POSTGRES_DSN") from None
    except (asyncpg.ClientConfigurationError, asyncpg.exceptions.InvalidPasswordError):
        raise Fatal(
            "POSTGRES_DSN is no connection string: write postgresql://user:password@host:5432/database"
        ) from None
    except (
        asyncpg.PostgresConnectionError,
        asyncpg.TransactionRollbackError,
        asyncpg.OperatorInterventionError,
        asyncpg.InsufficientResourcesError,
        asyncpg.IdleInTransactionSessionTimeoutError,
        asyncpg.ReadOnlySQLTransactionError,  # a server that has just become a standby
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,  # a connection that broke between two states of its protocol
        OSError,
        TimeoutError,
    ) as error:
        raise Transient(f"Postgres does not answer: {redact_text(str(error)) or type(error).__name__}") from None
