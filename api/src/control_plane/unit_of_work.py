"""The transaction of one request: its changes and its audit entry are stored together, or neither is."""

import time
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from control_plane.database import Connection, Database
from control_plane.models.audit import AuditDraft
from control_plane.services.audit_trail import AuditTrail


class UnitOfWork:
    """Begun by the first who needs it, committed by the route once the answer is known; otherwise rolled back."""

    def __init__(self, database: Database, trail: AuditTrail, draft: AuditDraft) -> None:
        self._database = database
        self._trail = trail
        self._draft = draft
        self._stack = AsyncExitStack()
        self._connection: Connection | None = None

    async def begin(self) -> Self:
        """Open the transaction, unless it is open."""
        if self._connection is None:
            connection = await self._stack.enter_async_context(self._database.connection())
            self._transaction = connection.transaction()
            await self._transaction.start()
            self._connection = connection
        return self

    @property
    def connection(self) -> Connection:
        """The connection, in the transaction."""
        if self._connection is None:
            raise RuntimeError("the unit of work has not begun")
        return self._connection

    def set_resource(self, resource: str) -> None:
        """What the audit entry names as the thing that was acted on."""
        self._draft.resource = resource

    async def commit(self, status: int) -> None:
        """Store what was changed, with the audit entry of an answer of this status."""
        if self._connection is None:
            return
        await self._trail.append(self._connection, self._draft.entry(status, time.monotonic()))
        await self._transaction.commit()
        self._connection = None
        self._draft.stored = True

    async def abandon(self) -> None:
        """Roll back what was begun, and give the connection back."""
        try:
            if self._connection is not None and not self._connection.is_closed():
                await self._transaction.rollback()
        finally:
            self._connection = None
            await self._stack.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.abandon()
