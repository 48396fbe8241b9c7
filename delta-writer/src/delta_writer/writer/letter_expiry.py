"""What lies in the lake of dead letters goes when it is older than the topic keeps its letters: a pipeline's chore."""

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from typing import Final

from delta_writer.background_thread import BackgroundThread
from delta_writer.writer.tables import Table

INTERVAL_S: Final = 24 * 3600.0


class LetterExpiry:
    """An `upkeep.Chore`. Several writers of one pipeline may do the same: what is gone is gone."""

    name = "dead letters"

    def __init__(
        self,
        expire: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        executor: Executor | None = None,
    ) -> None:
        """`expire` raises nothing that is `CdcError`; it is run in a thread of its own, or by `executor`."""
        self._expire = expire
        self._clock = clock
        self._executor = executor or BackgroundThread("dead-letters")
        self._due = clock()

    def turn(self, tables: Mapping[str, Table], assigned: Collection[tuple[str, int]]) -> None:  # noqa: ARG002
        """See `upkeep.Chore`."""
        if self._clock() >= self._due:
            self._due = self._clock() + INTERVAL_S
            self._executor.submit(self._expire)

    def close(self) -> None:
        """See `upkeep.Chore`."""
        self._executor.shutdown(wait=False, cancel_futures=True)
