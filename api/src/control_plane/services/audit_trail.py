"""The audit trail: an entry of every call, stored before the call is answered.

A call that changes something stores its entry in its own transaction (`append`). All others (`record`) wait together:
one transaction stores whoever waits, so that the trail costs a commit for many calls and not one for each. It has
connections of its own: calls that hold all of the pool's would otherwise wait for an entry that waits for one.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Self

import asyncpg

from cdc_shared.errors import Transient, shown
from cdc_shared.logging.structured_logger import get_logger
from control_plane.database import Connection, Database
from control_plane.models.audit import AuditEntry
from control_plane.repositories import audit_repo

MAX_BATCH_ENTRIES: Final = 1000
STORE_TIMEOUT_S: Final = 15.0
CONNECTIONS: Final = 2
"""One that stores, and one while a broken one is replaced."""

log = get_logger(__name__)


class AuditUnavailable(Transient):
    """The entry could not be stored, so the call must not be answered as if it were."""


class AuditTrail:
    """Used from one event loop. `open` makes one; what waits at its end is still stored."""

    def __init__(self, database: Database) -> None:
        """`database` is for the trail alone."""
        self._database = database
        self._waiting: deque[tuple[AuditEntry, asyncio.Future[None]]] = deque()
        self._wake = asyncio.Event()
        self._closing = False

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str) -> AsyncIterator[Self]:
        """Raises `Transient` when Postgres does not answer, `Fatal` when it refuses.

        The newest hash is logged: a trail that somebody rewrote as a whole still differs from the logs.
        """
        database = await Database.open(dsn, CONNECTIONS)
        try:
            async with database.connection() as connection:
                head, _ = await audit_repo.ends(connection)
            log.info("audit trail", entries=head.entries, hash=head.hash.hex())
            async with cls(database).storing() as trail:
                yield trail
        finally:
            await database.close()

    @asynccontextmanager
    async def storing(self) -> AsyncIterator[Self]:
        """Store what is recorded, until the end; then what still waits."""
        storing = asyncio.create_task(self._store_while_open(), name="audit-trail")
        try:
            yield self
        finally:
            self._closing = True
            self._wake.set()
            await storing

    async def append(self, connection: Connection, entry: AuditEntry) -> None:
        """Store an entry in the caller's transaction, as its last statement: the chain is locked until it ends.

        Raises `AuditUnavailable` when others hold the chain for too long, and asyncpg's errors.
        """
        try:
            await audit_repo.append(connection, [entry])
        except asyncpg.LockNotAvailableError:
            raise AuditUnavailable("the audit trail is busy; try again") from None

    async def record(self, entry: AuditEntry) -> None:
        """Store an entry of a call that changed nothing; returns once it is stored.

        Raises `AuditUnavailable`. Whoever is cancelled while waiting leaves the entry to be stored all the same.
        """
        if self._closing:
            raise AuditUnavailable("the service is shutting down; try again")
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, stored))
        self._wake.set()
        await stored

    async def _store_while_open(self) -> None:
        while self._waiting or not self._closing:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            count = min(len(self._waiting), MAX_BATCH_ENTRIES)
            batch = [self._waiting.popleft() for _ in range(count)]
            error = await self._store([entry for entry, _ in batch])
            for _, stored in batch:
                if stored.done():  # whoever waited was cancelled
                    continue
                if error is None:
                    stored.set_result(None)
                else:
                    stored.set_exception(AuditUnavailable("the audit trail cannot be written; try again"))

    async def _store(self, entries: Sequence[AuditEntry]) -> Exception | None:
        """Store a batch whole. Whatever goes wrong is each caller's to be told: storing goes on."""
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S), self._database.transaction() as connection:
                await audit_repo.append(connection, entries)
        except Exception as error:
            log.error("audit entries not stored: their calls are refused", entries=len(entries), reason=shown(error))
            return error
        return None
