"""The background thread in which a process does the maintenance of all its tables, one job at a time."""

import math
import queue
import threading
from collections.abc import Callable
from enum import IntEnum
from itertools import count
from typing import Final

from cdc_shared.logging.structured_logger import get_logger

log = get_logger(__name__)


CLOSE_TIMEOUT_S: Final = 5.0


class Urgency(IntEnum):
    """How many jobs that are given later may go before a job of this kind.

    A count and not a rank: where something to rewrite is always waiting, vacuum would never have its turn.
    """

    CHECKPOINT = 0
    REWRITE = 8
    VACUUM = 32


class MaintenanceWorker:
    """Takes jobs from any thread; the more urgent first, the others before long."""

    def __init__(self) -> None:
        self._order = count()
        self._jobs: queue.PriorityQueue[tuple[float, int, Callable[[], None] | None]] = queue.PriorityQueue()
        self._thread = threading.Thread(target=self._work, name="maintenance", daemon=True)
        self._thread.start()

    def submit(self, urgency: Urgency, job: Callable[[], None]) -> None:
        """Queue a job, which must raise nothing. Does not block."""
        order = next(self._order)
        self._jobs.put((order + urgency, order, job))

    def close(self) -> None:
        """Wait for the job under way and those queued, `CLOSE_TIMEOUT_S` at most.

        Tables that are closed make theirs end at once. One that a library does not let end is cut off with the process:
        an upload without a commit, which vacuum takes.
        """
        self._jobs.put((math.inf, next(self._order), None))
        self._thread.join(CLOSE_TIMEOUT_S)

    def _work(self) -> None:
        while (job := self._jobs.get()[2]) is not None:
            try:
                job()
            except Exception:  # the thread serves other tables too
                log.exception("maintenance job failed unexpectedly")
