"""The audit trail (AUDIT fills this in)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from control_plane.database import Connection, Database
from control_plane.models.audit import AuditEntry


class AuditTrail:
    @classmethod
    @asynccontextmanager
    async def open(cls, database: Database) -> "AsyncIterator[AuditTrail]":
        yield cls()

    async def append(self, connection: Connection, entry: AuditEntry) -> None:
        """Store an entry in the caller's transaction, as its last statement."""

    async def record(self, entry: AuditEntry) -> None:
        """Store an entry of a call that changed nothing; returns once it is stored."""
