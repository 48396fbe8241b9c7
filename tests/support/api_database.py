"""A Postgres database of a test's own, with the control plane's tables, on the running stack's server."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from dotenv import dotenv_values
from stack_endpoints import ENDPOINTS_FILE, StackNotUp

DSN_VARIABLE = "POSTGRES_DSN"
CONNECT_TIMEOUT_S = 10.0
NAME_PREFIX = "cdc_test_"


@dataclass(frozen=True, slots=True)
class TrialDatabase:
    """One database. Every query takes a connection of its own, so a test may ask from any thread or event loop."""

    dsn: str = field(repr=False)

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.dsn, timeout=CONNECT_TIMEOUT_S)
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await connection.close()

    async def fetch_value(self, query: str, *arguments: Any) -> Any:
        """The first column of the first row, None when there is no row."""
        rows = await self.fetch(query, *arguments)
        return rows[0][0] if rows else None

    async def execute(self, statements: str) -> None:
        """Run statements without parameters."""
        connection = await asyncpg.connect(self.dsn, timeout=CONNECT_TIMEOUT_S)
        try:
            await connection.execute(statements)
        finally:
            await connection.close()


class DatabaseServer:
    """Makes databases on the server that `POSTGRES_DSN` names. The role must have CREATEDB."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._template: str | None = None

    @classmethod
    def from_environment(cls) -> DatabaseServer:
        """The server of the environment, else of `.local/endpoints.env`. Raises `StackNotUp` with the remedy."""
        written = dotenv_values(ENDPOINTS_FILE, interpolate=False)
        dsn = os.environ.get(DSN_VARIABLE) or written.get(DSN_VARIABLE)
        if not dsn:
            raise StackNotUp(f"nothing says where Postgres is ({DSN_VARIABLE} not set): run `make up` first")
        return cls(dsn)

    @contextmanager
    def empty_database(self) -> Iterator[TrialDatabase]:
        """A database without a table, dropped at the end with whoever is still connected to it."""
        name = self._create()
        try:
            yield TrialDatabase(self._dsn_of(name))
        finally:
            self._drop(name)

    @contextmanager
    def migrated_database(self) -> Iterator[TrialDatabase]:
        """A database with all migrations: a copy of one that was migrated once, about 50 ms each."""
        if self._template is None:
            self._template = self._create()
            _migrate(self._dsn_of(self._template))
        name = self._create(template=self._template)
        try:
            yield TrialDatabase(self._dsn_of(name))
        finally:
            self._drop(name)

    def close(self) -> None:
        """Drop the template."""
        if self._template is not None:
            self._drop(self._template)
            self._template = None

    def _create(self, template: str = "template0") -> str:
        name = f"{NAME_PREFIX}{uuid.uuid4().hex[:16]}"
        asyncio.run(self._run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
        return name

    def _drop(self, name: str) -> None:
        asyncio.run(self._run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))

    async def _run(self, statement: str) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=CONNECT_TIMEOUT_S)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _dsn_of(self, name: str) -> str:
        return urlunsplit(urlsplit(self._dsn)._replace(path=f"/{name}"))


def _migrate(dsn: str) -> None:
    from control_plane.migrations import migrate  # only tests with a database pay for the import

    asyncio.run(migrate(dsn))
