"""The source is read no faster than the cap, and less while it answers slower than usual."""

from __future__ import annotations

import random

import pytest

from reconciliation.sources.throttle import BATCH_DOCUMENTS, LEAST_SHARE, LONGEST_REST_S, REMEMBERED_BATCHES, Throttle
from reconciliation.workers.task_progress import HeldBack

pytestmark = pytest.mark.unit


class Reading:
    """A reader on a clock of its own: each batch takes the source the seconds that the test says."""

    def __init__(self, documents_per_s: float | None = None) -> None:
        self.now = 1000.0
        self.documents = 0
        self.throttle = Throttle(documents_per_s, clock=lambda: self.now, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def batch(self, seconds: float, documents: int | None = None) -> None:
        self.throttle.wait()
        self.now += seconds
        documents = self.throttle.batch_documents if documents is None else documents
        self.documents += documents
        self.throttle.answered(documents, documents * 1024, seconds)


def test_without_a_cap_a_steady_source_is_never_waited_for(rng: random.Random) -> None:
    reading = Reading()
    for _ in range(300):
        reading.batch(rng.uniform(0.1, 0.25))
    assert reading.throttle.rested_s == reading.throttle.capped_s == 0
    assert reading.throttle.share == 1
    assert reading.throttle.batch_documents == BATCH_DOCUMENTS


@pytest.mark.parametrize("cap", [0.5, 3, 100, 7_000, 1_000_000])
def test_the_cap_is_held_and_used(cap: float) -> None:
    reading = Reading(cap)
    began = reading.now
    for _ in range(50):
        reading.batch(0.001)
    reading.throttle.wait()
    rate = reading.documents / (reading.now - began)
    assert 0.999 * cap <= rate <= 1.000001 * cap


def test_a_source_slower_than_the_cap_is_not_waited_for() -> None:
    reading = Reading(1000)
    for _ in range(20):
        reading.batch(2.0)
    assert reading.throttle.capped_s == 0
    assert reading.throttle.held_back is HeldBack.NOT


def test_it_says_what_it_waits_for() -> None:
    capped = Reading(1000)
    for _ in range(3):
        capped.batch(0.001)
    assert capped.throttle.held_back is HeldBack.BY_CAP
    slow = Reading()
    for _ in range(20):
        slow.batch(0.1)
    assert slow.throttle.held_back is HeldBack.NOT
    for _ in range(8):
        slow.batch(2.0)
    assert slow.throttle.held_back is HeldBack.BY_SOURCE


def test_with_a_cap_the_source_is_asked_for_little_at_a_time() -> None:
    assert Throttle(1000).batch_documents == 500
    assert Throttle(0.1).batch_documents == 1


def test_a_source_that_becomes_slow_is_read_a_small_share_of_the_time_and_recovers() -> None:
    reading = Reading()
    for _ in range(30):
        reading.batch(0.1)
    for _ in range(20):
        reading.batch(0.5)
    assert reading.throttle.share == LEAST_SHARE
    assert reading.throttle.rested_s > 10 * 0.5
    for _ in range(30):
        reading.batch(0.1)
    assert reading.throttle.share == 1


def test_one_slow_answer_tells_nothing() -> None:
    reading = Reading()
    for i in range(200):
        reading.batch(8.0 if i % 20 == 0 else 0.1)  # as a cursor's first answer may be
    assert reading.throttle.rested_s == 0


def test_what_stays_slow_becomes_usual() -> None:
    reading = Reading()
    for _ in range(REMEMBERED_BATCHES):
        reading.batch(0.1)
    for _ in range(2 * REMEMBERED_BATCHES):
        reading.batch(1.0)
    assert reading.throttle.share == 1


def test_small_documents_after_large_ones_are_not_a_slow_source() -> None:
    reading = Reading()
    for i in range(100):
        reading.throttle.wait()
        documents, kib = (5000, 1) if i < 50 else (900, 16)
        reading.throttle.answered(documents, documents * kib * 1024, 0.1 * documents * (1 + kib) / 10_000)
    assert reading.throttle.share == 1


def test_quick_answers_are_never_slow() -> None:
    reading = Reading()
    for i in range(100):
        reading.batch(0.001 if i < 50 else 0.02)
    assert reading.throttle.share == 1


def test_the_last_documents_of_a_chunk_say_nothing_of_the_source() -> None:
    reading = Reading()
    for _ in range(20):
        reading.batch(0.1)
    for _ in range(20):
        reading.batch(0.1, documents=3)
    assert reading.throttle.share == 1


def test_a_rest_has_an_end() -> None:
    reading = Reading()
    for _ in range(10):
        reading.batch(1.0)
    for _ in range(10):
        reading.batch(100.0)
    before = reading.now
    reading.throttle.wait()
    assert reading.now - before == LONGEST_REST_S
