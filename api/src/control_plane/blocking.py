"""Calls that block (Kafka, the object store, MongoDB), kept off the event loop, so many at once and no more."""

from collections.abc import Callable
from typing import Final, TypeVar

from anyio import CapacityLimiter, to_thread

AT_ONCE: Final = 16

T = TypeVar("T")


class BlockingCalls:
    """Threads for calls that block. Whoever finds all of them busy waits."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._limiter = CapacityLimiter(at_once)

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns; it is run in a thread, and finishes there even when the request is given up."""
        return await to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._limiter)
