"""How many dead letters a minute are too many: then a rule or the source is wrong, and not each document."""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

from cdc_shared.errors import Fatal
from delta_writer.consumer.event_handler import DeadLetter

WINDOW_S: Final = 60.0


class TooManyDeadLetters(Fatal):
    """The pipeline pauses itself. Nothing is lost: the batch at hand is not committed, and is read again."""


Record = tuple[str, int, int]
"""Topic, partition, offset."""


class FloodLimit:
    """Counts each record once a minute, also when its batch is read again. `clock` is monotonic, in seconds."""

    def __init__(self, max_a_minute: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        """`max_a_minute` is asked each time: it may change while the pipeline runs."""
        self._max_a_minute = max_a_minute
        self._clock = clock
        self._counted: deque[tuple[float, frozenset[Record]]] = deque()

    def admit(self, letters: Sequence[DeadLetter]) -> None:
        """Count letters that are about to be written. Raises `TooManyDeadLetters` when they pass the limit."""
        now = self._clock()
        while self._counted and self._counted[0][0] <= now - WINDOW_S:
            self._counted.popleft()
        # Not by the highest offset: of one batch, what is wrong with records comes before what is wrong with documents.
        counted = frozenset().union(*(records for _, records in self._counted))
        new = [each for each in letters if _record(each) not in counted]
        limit = self._max_a_minute()
        count = len(counted) + len(new)
        if count > limit and new:
            raise TooManyDeadLetters(_message(new, count, limit))
        self._counted.append((now, frozenset(map(_record, new))))


def _record(letter: DeadLetter) -> Record:
    return letter.topic, letter.partition, letter.offset


def _message(letters: Sequence[DeadLetter], count: int, limit: int) -> str:
    codes = Counter(each.rejection.rule or each.rejection.code.value for each in letters)
    reasons = ", ".join(f"{code} ({number})" for code, number in codes.most_common(3))
    first = letters[0]
    return (
        f"{count} records would be dead letters within a minute, more than the {limit} of "
        f"quality.dirty_data.max_dead_letters_per_minute: {reasons}; the first is {first.topic}:{first.partition}:"
        f"{first.offset}: {first.rejection.message}. Nothing is lost. Correct the rules or the source, or raise the "
        "limit, and publish the pipeline again: it goes on from there"
    )
