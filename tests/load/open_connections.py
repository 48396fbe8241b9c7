"""Thousands of connections that are open together and send one request each at the same moment."""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

CONNECTS_AT_ONCE = 200
"""Well below the length of a listener's queue, which would drop what is too much."""
SPARE_FILES = 200
RESPONSE_BYTES_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Rush:
    """How the requests of a rush were answered."""

    statuses: Counter[int]
    unanswered: list[str]
    """Why, of each that was not."""
    latencies_s: list[float]
    """Of those that were answered, in order of their size."""


async def rush(host: str, port: int, request: Callable[[int], bytes], connections: int, timeout_s: float) -> Rush:
    """Open the connections; when the last is open, send on all, and read each answer's head.

    Args:
        request: the bytes of the n-th connection's request.
        timeout_s: from the moment of sending; what is not answered by then is unanswered.
    """
    _allow_files(connections + SPARE_FILES)
    gate = asyncio.Semaphore(CONNECTS_AT_ONCE)

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with gate:
            return await asyncio.open_connection(host, port, limit=RESPONSE_BYTES_LIMIT)

    opened = await asyncio.gather(*(connect() for _ in range(connections)))
    requests = [request(n) for n in range(connections)]
    started_s = time.monotonic()
    for (_, writer), data in zip(opened, requests, strict=True):
        writer.write(data)

    async def status(reader: asyncio.StreamReader) -> tuple[int, float]:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + timeout_s):
            head = await reader.readuntil(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), time.monotonic() - started_s

    answers = await asyncio.gather(*(status(reader) for reader, _ in opened), return_exceptions=True)
    for _, writer in opened:
        writer.close()
    answered = [each for each in answers if not isinstance(each, BaseException)]
    return Rush(
        Counter(code for code, _ in answered),
        [repr(each) for each in answers if isinstance(each, BaseException)],
        sorted(latency_s for _, latency_s in answered),
    )


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise RuntimeError(f"{wanted} open files are needed and the hard limit is {hard}: raise it (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
