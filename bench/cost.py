"""CPU and wall-clock time of a piece of work in this process, all its threads included."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass
class Cost:
    """Seconds of CPU (user and system, every thread) and of wall-clock time; filled in when the work ends."""

    cpu_s: float = 0.0
    wall_s: float = 0.0


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure the body of the `with`."""
    cost = Cost()
    cpu, wall = _cpu_seconds(), time.perf_counter()
    yield cost
    cost.cpu_s, cost.wall_s = _cpu_seconds() - cpu, time.perf_counter() - wall


def median_cost(costs: list[Cost]) -> Cost:
    """The median of each figure by itself."""
    return Cost(median(cost.cpu_s for cost in costs), median(cost.wall_s for cost in costs))


def peak_rss_mb() -> float:
    """The most memory that this process has held so far, in MB.

    Not `ru_maxrss`: a process that is started begins with that of the one that started it.
    """
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
