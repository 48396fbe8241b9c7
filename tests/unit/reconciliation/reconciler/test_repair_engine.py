"""A repair asks for every key, in order, a batch behind the writer, and goes on where it was interrupted."""

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from cdc_shared.dead_letters.dead_letters import Replayed
from cdc_shared.dead_letters.letter import Letter, Place
from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.reread_requests import RereadsRequested
from cdc_shared.models.reconciliation import DifferenceKind
from reconciliation.reconciler.progress import Cancelled
from reconciliation.reconciler.repair_engine import STALLED_AFTER_S, RepairEngine, RepairKey, RepairProgress

pytestmark = pytest.mark.unit


class Clock:
    """Stands still unless somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Collected:
    """A change topic of two partitions, and a writer that takes so many records each time that it is looked at."""

    def __init__(self, records_a_look: int = 3) -> None:
        self.asked: list[str] = []
        self.replayed: list[Place] = []
        self.standing: dict[str, list[Letter]] = {}
        self.refuses: Counter[str] = Counter()
        self.fails: list[Mapping[str, str]] = []
        self.ends = {0: 0, 1: 0}
        self.applied_to = {0: 0, 1: 0}
        self.most_ahead = 0
        self._records_a_look = records_a_look

    def ask(self, source_keys: Sequence[str]) -> RereadsRequested:
        failed = self.fails.pop(0) if self.fails else {}
        taken = [key for key in source_keys if key not in failed]
        for key in taken:
            self.asked.append(key)
            self.ends[len(key) % 2] += 1
        self.most_ahead = max(self.most_ahead, sum(self.ends.values()) - sum(self.applied_to.values()))
        return RereadsRequested(len(taken), dict(failed), dict(self.ends))

    def letters(self, keys: Collection[str]) -> Mapping[str, Sequence[Letter]]:
        return {key: self.standing[key] for key in keys if key in self.standing}

    def replay(self, places: frozenset[Place]) -> Replayed:
        self.replayed += sorted(places)
        self.standing = {}
        return Replayed(len(places) - self.refuses.total(), self.refuses)

    def applied(self) -> Mapping[int, int]:
        for partition, end in self.ends.items():
            self.applied_to[partition] = min(end, self.applied_to[partition] + self._records_a_look)
        return dict(self.applied_to)


class Control:
    def __init__(self, cancel_at: int | None = None) -> None:
        self._left = cancel_at

    def check(self) -> None:
        if self._left is not None:
            if not self._left:
                raise Cancelled
            self._left -= 1


def keys(count: int, kind: DifferenceKind = DifferenceKind.MISSING, start: int = 0) -> list[RepairKey]:
    return [RepairKey(3 * n, kind, f"masked {n}", f'"{n}"') for n in range(start, count)]


def letter(offset: int) -> Letter:
    place = Place("p.db.things", 0, offset)
    return Letter("p", place, "things", "rule", "no", "r", 1, 0, 10, "00")


def engine(requests: Collected, control: Control | None = None, batch_keys: int = 10) -> RepairEngine:
    clock = Clock()
    return RepairEngine(requests, control or Control(), batch_keys=batch_keys, clock=clock, sleep=clock.sleep)


def test_every_key_is_asked_for_once_in_order_and_a_batch_waits_for_the_one_before():
    topic, told = Collected(), list[RepairProgress]()
    done = engine(topic).apply(iter(keys(35)), 35, told.append)
    assert topic.asked == [f'"{n}"' for n in range(35)]
    assert topic.most_ahead == 10
    assert done == told[-1] == RepairProgress(number=102, asked=35, applied=35)
    assert [(each.asked, each.applied) for each in told][:4] == [(10, 0), (10, 10), (20, 10), (20, 20)]


@pytest.mark.parametrize("kind", [kind for kind in DifferenceKind if kind is not DifferenceKind.DEAD_LETTERED])
def test_an_interrupted_repair_goes_on_behind_the_last_batch_that_is_in_the_table(kind, rng: random.Random):
    topic, told = Collected(records_a_look=10), [RepairProgress()]
    everything = keys(60, kind)
    while True:
        control = Control(rng.randrange(1, 6))
        try:
            left = (each for each in everything if each.number > told[-1].number)
            engine(topic, control).apply(left, 60, told.append, told[-1])
            break
        except Cancelled:
            continue
    assert told[-1] == RepairProgress(number=177, asked=60, applied=60)
    assert set(topic.asked) == {each.source_key for each in everything}


def test_never_more_than_max_keys():
    topic, told = Collected(), list[RepairProgress]()
    with pytest.raises(Fatal, match="may ask for 15 keys and there are more"):
        engine(topic).apply(keys(16), 15, told.append)
    assert len(topic.asked) == 15
    with pytest.raises(Fatal):  # nor after it was interrupted
        engine(topic).apply(keys(16, start=15), 15, told.append, told[-1])
    assert len(topic.asked) == 15


def test_what_kafka_did_not_take_is_sent_again():
    topic = Collected()
    topic.fails = [{'"3"': "timed out", '"4"': "timed out"}, {'"4"': "timed out"}]
    done = engine(topic).apply(keys(10), 10, lambda _: None)
    assert Counter(topic.asked) == Counter(f'"{n}"' for n in range(10))
    assert done.applied == 10


def test_kafka_that_takes_nothing_is_given_up_on():
    topic = Collected()
    topic.fails = [{'"0"': "broker away"}] * 1000
    with pytest.raises(Transient, match="did not take 1 re-read requests: broker away"):
        engine(topic).apply(keys(1), 10, lambda _: None)


def test_a_writer_that_stands_still_is_told_of():
    topic, told = Collected(records_a_look=0), list[RepairProgress]()
    clock = Clock()
    with pytest.raises(Transient, match=r"has not come nearer .* 4 records are before them"):
        RepairEngine(topic, Control(), clock=clock, sleep=clock.sleep).apply(keys(4), 10, told.append)
    assert STALLED_AFTER_S < clock.now < STALLED_AFTER_S + 5
    assert told == [RepairProgress(asked=4)]


def test_a_slow_writer_is_waited_for_as_long_as_it_comes_nearer():
    topic = Collected(records_a_look=1)
    clock = Clock()
    RepairEngine(topic, Control(), clock=clock, sleep=clock.sleep).apply(keys(2_000), 2_000, lambda _: None)
    assert clock.now > 2 * STALLED_AFTER_S


def test_dead_letters_are_replayed_instead():
    topic = Collected()
    topic.standing = {"masked 1": [letter(7), letter(9)], "masked 2": [letter(8)]}
    mixed: list[Any] = [*keys(3, DifferenceKind.DEAD_LETTERED), *keys(5, start=3)]
    done = engine(topic).apply(mixed, 10, lambda _: None)
    assert [place.offset for place in topic.replayed] == [7, 8, 9]
    assert topic.asked == ['"0"', '"3"', '"4"']  # the letter of the first was discarded since
    assert (done.asked, done.applied, done.replayed, done.refused) == (5, 5, 3, {})


def test_documents_of_letters_that_cannot_be_replayed_are_read_again_all_the_same():
    topic = Collected()
    topic.standing = {"masked 0": [letter(7)], "masked 1": [letter(8)]}
    topic.refuses = Counter({"the data key is gone": 1})
    done = engine(topic).apply(keys(2, DifferenceKind.DEAD_LETTERED), 10, lambda _: None)
    assert topic.asked == ['"0"', '"1"']
    assert (done.replayed, done.refused) == (1, {"the data key is gone": 1})


def test_a_source_key_is_not_shown():
    assert "secret" not in repr(RepairKey(1, DifferenceKind.EXTRA, "hmac", '"secret"'))
