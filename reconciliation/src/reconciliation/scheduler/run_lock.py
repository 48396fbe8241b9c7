"""One run of a collection at a time, whatever else goes wrong: a lock in Postgres that ends with its connection."""

import asyncio
from hashlib import blake2b
from types import TracebackType
from typing import Final, Self

import asyncpg

from cdc_shared.models.collection import Collection
from reconciliation.database import Database, database_errors

CLOSE_TIMEOUT_S: Final = 2.0
ASKED_IN_THAT_TIME: Final = 5
_NAMESPACE: Final = b"cdc reconciliation run"


class RunLock:
    """The lock of one collection of one pipeline, on a connection of its own.

    `async with` gives the connection back, and with it the lock. `lost` is set when the connection is gone before: then
    another process may hold the lock, and this one ends its run. A process that hangs loses it after `silent_s`.
    """

    def __init__(self, database: Database, pipeline: str, collection: Collection, silent_s: float) -> None:
        self._database = database
        self._number = lock_number(pipeline, collection)
        self._silent_s = silent_s
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self.lost = asyncio.Event()

    async def try_acquire(self) -> bool:
        """Take the lock if nobody has it; whether it is ours. Raises `Transient` without Postgres."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._database.own_connection(silent_s=self._silent_s)
        with database_errors():
            is_ours = await self._connection.fetchval("SELECT pg_try_advisory_lock($1)", self._number)
        if is_ours:
            self.lost.clear()
            self._keeping = asyncio.create_task(self._keep(self._connection))
        return bool(is_ours)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.close(timeout=CLOSE_TIMEOUT_S)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            connection.terminate()

    async def _keep(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        connection.add_termination_listener(lambda _: self.lost.set())
        try:
            while True:
                await asyncio.sleep(self._silent_s / ASKED_IN_THAT_TIME)
                await connection.execute("SELECT 1")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            self.lost.set()


def lock_number(pipeline: str, collection: Collection) -> int:
    """The lock's number. The control plane's locks (advisory_locks.py) are below 2^32; these are spread over 2^64."""
    names = "\x00".join((pipeline, collection.database, collection.name)).encode("utf-8", "surrogatepass")
    digest = blake2b(names, key=_NAMESPACE, digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
