"""How often something has happened of late."""

from collections import deque
from typing import Final

WINDOW_S: Final = 60


class RecentRate:
    """Counts by whole seconds over the last `WINDOW_S`. Not thread-safe."""

    def __init__(self, started_s: float) -> None:
        """Counting begins now: until the window is full, the rate is over the time since."""
        self._started_s = started_s
        self._counts: deque[tuple[int, int]] = deque()
        self._sum = 0

    def add(self, count: int, now_s: float) -> None:
        """It happened so many times."""
        self._forget(now_s)
        second = int(now_s)
        if self._counts and self._counts[-1][0] == second:
            self._counts[-1] = (second, self._counts[-1][1] + count)
        else:
            self._counts.append((second, count))
        self._sum += count

    def per_s(self, now_s: float) -> float:
        """Return how many times a second."""
        self._forget(now_s)
        return self._sum / min(WINDOW_S, max(1.0, now_s - self._started_s))

    def _forget(self, now_s: float) -> None:
        while self._counts and self._counts[0][0] <= now_s - WINDOW_S:
            self._sum -= self._counts.popleft()[1]
