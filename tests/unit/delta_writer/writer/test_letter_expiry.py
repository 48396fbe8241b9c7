"""Old letters in the lake are looked for at the start and once a day, beside the stream."""

from concurrent.futures import Executor, Future
from typing import Any

import pytest

from delta_writer.writer.letter_expiry import INTERVAL_S, LetterExpiry

pytestmark = pytest.mark.unit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class AtOnce(Executor):
    def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(call(*args, **kwargs))
        return future


def test_once_a_day() -> None:
    clock, runs = Clock(), list[float]()
    chore = LetterExpiry(lambda: runs.append(clock.now), clock, AtOnce())
    for clock.now in (0.0, 1.0, INTERVAL_S - 1, INTERVAL_S, INTERVAL_S + 1):
        chore.turn({}, [])
    chore.close()
    assert runs == [0.0, INTERVAL_S]
