"""Of all processes that could be the controller, one is: whoever holds an advisory lock in Postgres.

The lock lives and dies with one connection, over which the leader also hears of changes and stores what it finds: who
has lost the connection has lost the lock, and can store nothing any more. A leader that has not heard from Postgres for
`LEASE_S` acts no more; Postgres in turn ends a session that has said nothing for longer, so a process that was
suspended, or cut off, does not keep others from taking over.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import asyncpg

from cdc_shared.errors import Transient, shown
from cdc_shared.logging.structured_logger import get_logger
from control_plane.advisory_locks import AdvisoryLock
from control_plane.database import CONNECT_TIMEOUT_S, prepare_connection

LOCK: Final = AdvisoryLock.CONTROLLER
CHANNEL: Final = "pipelines"
"""Triggers notify it with the name of the pipeline that was changed (api/migrations/0003_pipelines.sql)."""
HEARTBEAT_S: Final = 1.0
LEASE_S: Final = 5.0
SESSION_TIMEOUT_S: Final = 10
"""More than the lease: before Postgres gives the lock to another one, this one has stopped."""
ASK_AGAIN_S: Final = 1.0
CLOSE_TIMEOUT_S: Final = 2.0

_GONE: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that was given up in the middle of a statement
    asyncpg.OperatorInterventionError,
    asyncpg.IdleSessionTimeoutError,
    OSError,
)

log = get_logger(__name__)


class LeadershipLost(Transient):
    """The connection that holds the lock is gone, or Postgres does not answer."""


class Leadership:
    """The time during which this process is the controller. Its connection serves one statement at a time."""

    def __init__(self, connection: Any, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock
        self._heard_at = clock()
        self._turn = asyncio.Lock()
        self._lost = asyncio.Event()

    @property
    def holds(self) -> bool:
        """Whether it may still act; to be asked from any thread."""
        return not self._lost.is_set() and self._clock() - self._heard_at < LEASE_S

    def lose(self) -> None:
        """Note that the connection is gone."""
        self._lost.set()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Lend the connection, in a transaction. Raises `LeadershipLost` when it is gone."""
        async with self._turn:
            try:
                async with self._connection.transaction():
                    yield self._connection
                self._heard_at = self._clock()
            except _GONE as error:
                self.lose()
                raise LeadershipLost(f"the controller's connection to Postgres: {shown(error)}") from error

    async def keep(self) -> None:
        """Ask Postgres every second whether it is there. Raises `LeadershipLost`, and nothing else."""
        while True:
            async with self.connection() as connection:
                await connection.execute("SELECT 1")  # within the connection's `command_timeout`
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._lost.wait()
            if not self.holds:
                self.lose()
                raise LeadershipLost("the controller's connection to Postgres was closed")


class Election:
    """Stands for election until it wins. One object, one process."""

    def __init__(
        self,
        dsn: str,
        on_change: Callable[[str], None],
        rng: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_change` gets the names of pipelines that were changed, while this process is the leader."""
        self._dsn = dsn
        self._on_change = on_change
        self._rng = rng
        self._clock = clock
        self._trouble: str | None = None

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[Leadership]:
        """Wait until this process is the leader; it is one at most until the end of the block."""
        connection = await self._won()
        leadership = Leadership(connection, self._clock)
        connection.add_termination_listener(lambda _: leadership.lose())
        log.info("this process is the controller")
        try:
            yield leadership
        finally:
            leadership.lose()
            await _close(connection)
            log.info("this process is the controller no more")

    async def _won(self) -> Any:
        while True:
            connection = None
            try:
                connection = await asyncpg.connect(
                    self._dsn,
                    timeout=CONNECT_TIMEOUT_S,
                    command_timeout=LEASE_S,
                    server_settings={
                        "application_name": "cdc-controller",
                        "idle_session_timeout": str(SESSION_TIMEOUT_S * 1000),
                        "idle_in_transaction_session_timeout": str(SESSION_TIMEOUT_S * 1000),
                    },
                )
                await prepare_connection(connection)
                while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
                    self._trouble = None
                    await self._pause()
                await connection.add_listener(CHANNEL, self._notified)
                self._trouble = None
                return connection
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                self._note(error)
                if connection is not None:
                    await _close(connection)
                await self._pause()
            except BaseException:
                if connection is not None:
                    connection.terminate()
                raise

    def _notified(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        self._on_change(str(payload))

    async def _pause(self) -> None:
        await asyncio.sleep(self._rng.uniform(ASK_AGAIN_S / 2, ASK_AGAIN_S))

    def _note(self, error: BaseException) -> None:
        reason = shown(error)
        if reason != self._trouble:
            log.warning("no controller can be elected while Postgres does not answer", reason=reason)
        self._trouble = reason


async def _close(connection: Any) -> None:
    """Give the lock back: at once where Postgres answers, else as soon as it finds the connection closed."""
    try:
        await connection.close(timeout=CLOSE_TIMEOUT_S)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        connection.terminate()
