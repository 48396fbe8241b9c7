"""What a pipeline does for its tables beside the stream: in its own thread, between batches, a short turn at a time.

Long work (reading files to rewrite, looking for rows to sweep, asking the source) belongs in a thread of the chore's
own; what touches a table's writer or commits to it is done in a turn, because writers are not thread-safe.
"""

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Protocol

from cdc_shared.errors import Transient
from cdc_shared.logging.structured_logger import get_logger
from delta_writer.writer.tables import Table

FIRST_WAIT_S: Final = 1.0
MAX_WAIT_S: Final = 60.0

log = get_logger(__name__)


class Chore(Protocol):
    """One kind of upkeep."""

    name: str

    def turn(self, tables: Mapping[str, Table], assigned: Collection[tuple[str, int]]) -> None:
        """Go one short step on; called several times a second, so return at once when there is nothing to do.

        `tables` are the open tables by topic, `assigned` the topic-partitions that this process reads. Raises
        `Transient` to be called again after a while, `Fatal` to end the pipeline.
        """

    def close(self) -> None:
        """The pipeline ends: drop what is under way. Called once, also when no turn was."""


@dataclass(slots=True)
class _Wait:
    failures: int = 0
    until: float = 0.0


class Upkeep:
    """Gives each chore its turns; one that fails for a while waits, and the stream and the other chores go on."""

    def __init__(self, chores: Sequence[Chore], clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is monotonic, in seconds."""
        self._waits = [(chore, _Wait()) for chore in chores]
        self._clock = clock

    def turn(self, tables: Mapping[str, Table], assigned: Collection[tuple[str, int]]) -> None:
        """Give every chore that does not wait its turn. Raises `Fatal` when one finds that going on would do harm."""
        assigned = frozenset(assigned)  # chores look tables up in it
        for chore, wait in self._waits:
            if self._clock() < wait.until:
                continue
            try:
                chore.turn(tables, assigned)
                wait.failures = 0
            except Transient as error:
                self._back_off(chore, wait, error)

    def close(self) -> None:
        """Close every chore, also when one cannot be closed."""
        with ExitStack() as closing:
            for chore, _ in reversed(self._waits):
                closing.callback(chore.close)

    def _back_off(self, chore: Chore, wait: _Wait, error: Transient) -> None:
        ceiling_s = min(MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** min(wait.failures, 30))
        wait_s = random.uniform(ceiling_s / 2, ceiling_s)  # nosec B311 # spreads retries, guards nothing
        wait.failures += 1
        wait.until = self._clock() + wait_s
        log.warning("upkeep waits to try again", chore=chore.name, wait_s=round(wait_s, 2), reason=str(error))
