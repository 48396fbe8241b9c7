"""How fast the source is read: never above a cap of documents, and slower while the source answers slower than usual.

The second is what TCP does with a network (additive increase, multiplicative decrease), with the share of the time that
is spent reading: a source whose answers take several times what they usually take is busy with others, so the share is
halved, and it grows again by small steps once answers are as usual. What is usual is learned from the last answers, so
that a part of the collection that lies on slower disks is not punished for ever.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np

from reconciliation.workers.checkpoint import pause
from reconciliation.workers.task_progress import HeldBack

BATCH_DOCUMENTS: Final = 5_000
"""A server cuts a batch at 16 MB whatever is asked for."""
CAPPED_BATCH_S: Final = 0.5
"""With a cap, a batch has at most what the cap allows in this time, so that the source sees an even stream."""
SLOW: Final = 3.0
"""Answers that take so many times what is usual are slow."""
SLOW_FROM_S: Final = 0.05
"""Answers quicker than this are not slow, whatever is usual."""
USUAL_PERCENTILE: Final = 25
REMEMBERED_BATCHES: Final = 200
RECENT_BATCHES: Final = 5
"""Of so many the median is looked at: one slow answer, as a cursor's first often is, tells nothing."""
LEAST_SHARE: Final = 1 / 16
STEP: Final = 1 / 16
LONGEST_REST_S: Final = 30.0
_MEASURED_FROM_DOCUMENTS: Final = 50


class Throttle:
    """Of one reader; used by one thread.

    Attributes:
        source_s, rested_s, capped_s: seconds waited so far for the source's answers, for the source's sake, and because
            of the cap.
    """

    def __init__(
        self,
        documents_per_s: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = pause,
    ) -> None:
        self._cap = documents_per_s
        self._clock = clock
        self._sleep = sleep
        self._costs: deque[float] = deque(maxlen=REMEMBERED_BATCHES)
        self._share = 1.0
        self._rest_s = 0.0
        self._asked_at = clock()
        self._next_due = -math.inf
        self.source_s = self.rested_s = self.capped_s = 0.0
        self._answer_s = 0.0
        self.held_back = HeldBack.NOT
        """What the last `wait` was for, when it took longer than the answer before it."""

    @property
    def share(self) -> float:
        """Of the time that is spent reading, as far as the source's answers go: 1 is no throttling."""
        return self._share

    @property
    def batch_documents(self) -> int:
        """How many documents to ask for at a time."""
        if self._cap is None:
            return BATCH_DOCUMENTS
        return max(1, min(BATCH_DOCUMENTS, int(self._cap * CAPPED_BATCH_S)))

    def wait(self) -> None:
        """Wait until the next batch may be asked for; called before each."""
        rest_s, self._rest_s = self._rest_s, 0.0
        if rest_s > 0:
            self._sleep(rest_s)
            self.rested_s += rest_s
        capped_s = max(0.0, self._next_due - self._clock())
        if capped_s > 0:
            self._sleep(capped_s)
            self.capped_s += capped_s
        self.held_back = HeldBack.NOT
        if max(rest_s, capped_s) > self._answer_s:
            self.held_back = HeldBack.BY_SOURCE if rest_s >= capped_s else HeldBack.BY_CAP
        self._asked_at = self._clock()

    def answered(self, documents: int, size_bytes: int, seconds: float) -> None:
        """The source gave a batch; it took so many seconds."""
        self.source_s += seconds
        self._answer_s = seconds
        if self._cap is not None:
            self._next_due = self._asked_at + documents / self._cap
        if documents >= min(_MEASURED_FROM_DOCUMENTS, self.batch_documents):
            self._costs.append(seconds / (documents + size_bytes / 1024))
            self._adjust(seconds)
        self._rest_s = min(LONGEST_REST_S, seconds * (1 / self._share - 1))

    def _adjust(self, seconds: float) -> None:
        if len(self._costs) <= RECENT_BATCHES:
            return
        recent = float(np.median([*self._costs][-RECENT_BATCHES:]))
        usual = float(np.percentile(self._costs, USUAL_PERCENTILE))
        if seconds >= SLOW_FROM_S and recent > SLOW * usual:
            self._share = max(LEAST_SHARE, self._share / 2)
        else:
            self._share = min(1.0, self._share + STEP)
