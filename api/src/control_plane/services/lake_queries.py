"""Questions to the tables, each in a process of its own that ends with it (`cdc_shared.analytics.query_process`).

So many at once and no more; who comes later waits a while, and is then told. A process that is still there when its
time is over, or when nobody waits for the answer any more, is killed.
"""

import asyncio
import os
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import msgspec
from pydantic import SecretStr

from cdc_shared.analytics.query_process import ANSWER, QueryRequest, QueryResult
from cdc_shared.errors import Transient
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.settings import ObjectStoreSettings
from control_plane.models.auth import Principal
from control_plane.models.query import Query
from control_plane.problems import Problem
from control_plane.settings import QuerySettings

PROGRAM: Final = "cdc_shared.analytics.query_process"
MAX_WAIT_S: Final = 10.0
"""For one of those that run to end."""
GRACE_S: Final = 5.0
"""Beyond the time limit, which the process keeps itself where it can."""
CHUNK_BYTES: Final = 256 * 1024
_PASSED_ON: Final = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
_PASSED_ON_FAMILIES: Final = ("AWS_", "AZURE_", "GOOGLE_", "LC_")
STATUSES: Final = {
    "NoSuchTable": (404, "no_such_table"),
    "NoSuchVersion": (422, "no_such_version"),
    "NoSuchMoment": (422, "no_such_moment"),
    "NotReadOnly": (422, "statement_not_allowed"),
    "QueryFailed": (422, "invalid_query"),
    "QueryTimeout": (422, "query_timeout"),
    "QueryTooLarge": (422, "query_too_large"),
    "Fatal": (422, "invalid_query"),
}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, and the file that it is in; whoever has it closes it, and it is gone."""

    result: QueryResult
    file: BinaryIO

    def chunks(self) -> Iterator[bytes]:
        """The whole of the file, which is closed at the end."""
        with self.file:
            while chunk := self.file.read(CHUNK_BYTES):
                yield chunk


class LakeQueries:
    """Used from one event loop. `open` makes one, and kills what still runs at its end."""

    def __init__(self, stores: ObjectStoreSettings, limits: QuerySettings) -> None:
        self._stores = stores
        self._limits = limits
        self._places = asyncio.Semaphore(limits.at_once)
        self._spare: asyncio.Task[Process] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, stores: ObjectStoreSettings, limits: QuerySettings) -> AsyncIterator[Self]:
        """Give the queries of a service."""
        queries = cls(stores, limits)
        try:
            yield queries
        finally:
            if queries._spare is not None:
                _kill(await queries._spare)

    async def ask(self, query: Query, principal: Principal) -> Answered:
        """The answer to a question of somebody, who sees the tables of the pipelines that they may touch.

        Raises `Problem`: 404 for a table that is not there, 422 for what the statement, the table or a limit does not
        allow, 503 where too many ask, or the object store does not answer.
        """
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                await self._places.acquire()
        except TimeoutError:
            raise Problem(
                503, "queries_busy", "too many queries run; try again", headers={"Retry-After": str(int(MAX_WAIT_S))}
            ) from None
        try:
            return await self._answer(query, principal)
        finally:
            self._places.release()

    async def _answer(self, query: Query, principal: Principal) -> Answered:
        with tempfile.TemporaryDirectory(prefix="cdc-query-") as directory:
            result = await self._run(self._request(query, principal, directory))
            if result.error is not None:
                raise _problem(result)
            return Answered(result, (Path(directory) / ANSWER).open("rb"))

    def _request(self, query: Query, principal: Principal, directory: str) -> QueryRequest:
        return QueryRequest(
            sql=query.sql,
            as_of=query.as_of,
            format=query.format,
            stores={name: _plain(value) for name, value in self._stores},
            pipelines=None if principal.pipelines is None else sorted(principal.pipelines),
            directory=directory,
            memory_mb=self._limits.memory_mb,
            threads=self._limits.threads,
            timeout_s=self._limits.timeout_s,
            max_rows=min(query.max_rows, self._limits.max_rows),
            max_bytes=self._limits.max_answer_mb * 1024**2,
        )

    async def _run(self, request: QueryRequest) -> QueryResult:
        spare, self._spare = self._spare, None
        process = await (spare or _start())
        self._spare = asyncio.create_task(_start())  # Python's start is most of what a small question takes
        try:
            async with asyncio.timeout(request.timeout_s + GRACE_S):
                answer, _ = await process.communicate(msgspec.msgpack.encode(request))
        except TimeoutError:
            message = f"the query took longer than {request.timeout_s:g} s: ask for less"
            return QueryResult(error="QueryTimeout", message=message)
        finally:
            _kill(process)
        try:
            return msgspec.msgpack.decode(answer, type=QueryResult)
        except msgspec.DecodeError:
            log.warning("a query's process ended without a result", status=process.returncode)
            message = "the query brought its process down, most likely by the memory that it needs: ask for less"
            return QueryResult(error="QueryTooLarge", message=message)


async def _start() -> Process:
    """A process that waits for its request. It has none of this one's secrets."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_FAMILIES) or name.lower().endswith("_proxy")
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        PROGRAM,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C in a terminal is the service's to handle
    )


def _kill(process: Process) -> None:
    if process.returncode is None:
        process.kill()


def _plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _problem(result: QueryResult) -> Exception:
    if result.error == Transient.__name__:
        return Transient(result.message)
    status, code = STATUSES[str(result.error)]
    return Problem(status, code, result.message)
