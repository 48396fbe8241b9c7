"""How much of the machine maintenance may take: it works, then rests until its share of time and bytes is kept."""

import threading
import time
from collections.abc import Callable


class Stopped(Exception):
    """The table is being closed: what is under way is dropped."""


class Budget:
    """Of one run, in one thread. What it has used is read off when the run is over.

    Attributes:
        worked_s: CPU seconds of this thread, and whole seconds of calls that work in threads of their own.
        rested_s: seconds slept to keep the shares.
        bytes_read, bytes_written: of data files.
    """

    def __init__(
        self,
        cpu_share: float,
        bytes_per_s: float,
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """`cpu_share` of one core; bytes count read and written alike."""
        self._cpu_share = cpu_share
        self._bytes_per_s = bytes_per_s
        self._stop = stop
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._cpu_at = cpu_clock()
        self._free_at = clock()
        self.worked_s = self.rested_s = 0.0
        self.bytes_read = self.bytes_written = 0

    def used(self, *, read: int = 0, written: int = 0, elsewhere_s: float = 0.0) -> None:
        """Account for what was done since the last call, and rest as long as that calls for.

        `elsewhere_s` is time spent in a library that works in threads of its own (delta-rs), whose CPU is not seen.

        Raises:
            Stopped: instead of resting or going on.
        """
        cpu = self._cpu_clock()
        worked_s, self._cpu_at = cpu - self._cpu_at + elsewhere_s, cpu
        self.worked_s += worked_s
        self.bytes_read += read
        self.bytes_written += written
        self._free_at += max(worked_s / self._cpu_share, (read + written) / self._bytes_per_s)
        now = self._clock()
        rest_s = self._free_at - now
        if self._stop.is_set() or (rest_s > 0 and self._stop.wait(rest_s)):
            raise Stopped
        self.rested_s += max(0.0, rest_s)
        self._free_at = max(self._free_at, now)  # time spent waiting for the store is no credit
