"""No false alarm, and nothing missed, however writes, lag, deletes, damage and settling are interleaved."""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from settling_world import World

from cdc_shared.models.reconciliation import WRONG, DifferenceKind
from reconciliation.reconciler.discrepancy_detector import Settled, SettleLimits, candidates_of_keys, settle
from reconciliation.reconciler.generations import Evidence
from reconciliation.reconciler.result import TopicPositions

pytestmark = pytest.mark.unit

WORLDS = int(os.environ.get("SETTLING_WORLDS", "60"))
STEPS_BEFORE = 80


class _Control:
    def check(self) -> None:
        pass


def settled(world: World, spoil: Callable[[Evidence], Evidence] = lambda evidence: evidence) -> Settled:
    """Let the world live a while, damage it, scan it, and settle what does not agree while it goes on."""
    for _ in range(STEPS_BEFORE):
        world.step()
    for _ in range(world.random.randrange(4)):
        world.damage()
    candidates, scan = world.scan()
    if world.random.random() < 0.3:  # as mode incremental has it: these documents, whatever is wrong with them
        candidates = list(candidates_of_keys(world.texts.values(), world.rules.newest.rules))
    limits = SettleLimits(timeout_s=float("inf"), keys_at_once=world.random.choice([2, 5, 50]))
    return settle(
        candidates, spoil(world.evidence()), limits, _Control(), scan=scan, clock=lambda: 0.0,
        sleep=lambda _: world.step(),
    )  # fmt: skip


def false_alarms(world: World, found: Settled) -> list[str]:
    """Keys that were called wrong, but were as an undisturbed writer leaves them in the version that it was told by."""
    wrong = {each.key for each in found.differences if each.kind in WRONG}
    keys = {world.rules.newest.rules.key_text(text): key for key, text in world.texts.items()}
    return [key for key in wrong if not world.looked_at[keys[key]].is_damaged(keys[key])]


def missed(world: World, found: Settled) -> list[int]:
    """Keys that were damaged when they were scanned, are still, and were not told of."""
    world.settle_down()
    told = {each.key for each in found.differences if each.kind in WRONG}
    assert world.pinned is not None
    return [
        key
        for key, text in world.texts.items()
        if world.pinned.is_damaged(key)
        and world.table.is_damaged(key)
        and world.rules.newest.rules.key_text(text) not in told
    ]


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("busy", [1, 6], ids=["calm", "busy"])
def test_nothing_right_is_called_wrong_and_nothing_wrong_is_missed(masked: bool, busy: int, rng: Random) -> None:
    steps = wrong = pending = 0
    for _ in range(WORLDS):
        world = World(rng, masked=masked, busy=busy)
        found = settled(world)
        assert not false_alarms(world, found)
        assert DifferenceKind.LAGGING not in found.counts
        assert not missed(world, found)
        steps += world.steps
        wrong += sum(found.counts.values())
        pending += sum(each.pending for each in found.generations)
    assert steps > 100 * WORLDS
    assert wrong > WORLDS // 6, "hardly any damage was there to be found"
    assert busy == 1 or pending > WORLDS // 3, "hardly any key was under way"


def without_window(evidence: Evidence) -> Evidence:
    """Nobody asks Kafka whether the key changed meanwhile."""
    events = evidence.events

    class Events:
        def ends(self) -> TopicPositions:
            return events.ends()

        def keys_between(self, start: TopicPositions, end: Mapping[int, int]) -> Collection[str]:
            events.keys_between(start, end)
            return set()

    return replace(evidence, events=Events())


def without_waiting(evidence: Evidence) -> Evidence:
    """The newest version is taken, whatever its watermark."""
    return replace(evidence, table=_Watermark(evidence.table, lambda _: 10**15))


def with_the_watermark_itself(evidence: Evidence) -> Evidence:
    """What happened *at* the watermark is taken to be in the table, too."""
    return replace(evidence, table=_Watermark(evidence.table, lambda ms: None if ms is None else ms + 1))


def with_the_window_after_the_read(evidence: Evidence) -> Evidence:
    """The window of changes begins after the documents were read."""
    events, documents = evidence.events, evidence.documents
    ends: list[TopicPositions] = []

    class Events:
        def ends(self) -> TopicPositions:
            return events.ends()

        def keys_between(self, start: TopicPositions, end: Mapping[int, int]) -> Collection[str]:
            return events.keys_between(ends[-1] if ends else start, end)

    def read(keys: Collection[str]) -> Any:
        found = documents(keys)
        ends.append(events.ends())
        return found

    return replace(evidence, events=Events(), documents=read)


def with_the_window_from_the_end(evidence: Evidence) -> Evidence:
    """The window begins at the end of the topic: re-read requests that lie before it are overlooked."""
    events, table = evidence.events, evidence.table

    class Newest(_Watermark):
        first = True

        def newest(self, topic: TopicPositions) -> Any:
            found = super().newest(topic)
            return replace(found, positions=dict(topic.offsets)) if self._is_first() else found

        def _is_first(self) -> bool:
            was, self.first = self.first, False
            return was

    class Events:
        def __init__(self, newest: Newest) -> None:
            self.newest = newest

        def ends(self) -> TopicPositions:
            self.newest.first = True
            return events.ends()

        def keys_between(self, start: TopicPositions, end: Mapping[int, int]) -> Collection[str]:
            return events.keys_between(start, end)

    newest = Newest(table, lambda ms: ms)
    return replace(evidence, events=Events(newest), table=newest)


class _Watermark:
    def __init__(self, table: Any, watermark: Callable[[int | None], int | None]) -> None:
        self.table = table
        self.watermark = watermark

    def newest(self, topic: TopicPositions) -> Any:
        found = self.table.newest(topic)
        return replace(found, watermark_ms=self.watermark(found.watermark_ms))

    def is_whole(self, table: Any) -> bool:
        return True

    def rows(self, table: Any, wanted: Any) -> Any:
        return self.table.rows(table, wanted)


@pytest.mark.parametrize(
    "spoil",
    [
        without_window,
        without_waiting,
        with_the_watermark_itself,
        with_the_window_after_the_read,
        with_the_window_from_the_end,
    ],
)
def test_each_part_of_a_generation_is_needed(spoil: Callable[[Evidence], Evidence], rng: Random) -> None:
    for _ in range(40 * WORLDS):
        world = World(rng)
        found = settled(world, spoil)
        if false_alarms(world, found):
            return
    pytest.fail("no false alarm came of it: the simulation is too tame")
