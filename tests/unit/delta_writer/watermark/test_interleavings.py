"""The watermark when everything happens at once: sends, markers, aborts, late topics, crashes, rebalances, zombies."""

from random import Random

import pytest
from watermark_simulation import World

pytestmark = pytest.mark.unit

WORLDS = 60
STEPS = 400
TOPICS = {"a": 1, "b": 3, "c": 2}


def live(rng: Random, flaw: str = "") -> World:
    """Let a world go on for a while; it checks itself after every commit."""
    world = World(rng, TOPICS, writers=rng.choice([1, 2, 3]), flaw=flaw)
    for _ in range(STEPS):
        rng.choice(world.steps())()
    return world


def test_it_never_claims_what_is_not_in_and_rises_in_the_end(rng: Random) -> None:
    """Attacks I12."""
    for _ in range(WORLDS):
        world = live(rng)
        world.settle()
        assert world.tables
        for table in world.tables.values():
            world.check(table)
            assert table.watermark_ms is not None, table.topic
            assert table.watermark_ms >= (world.time_s - 11) * 1000, table.topic


@pytest.mark.parametrize("flaw", ["stable ends", "uncommitted sentinel", "time ahead"])
def test_a_flaw_would_be_noticed(flaw: str, rng: Random) -> None:
    """Of what the claims rest on, nothing may be left out."""

    def live_long() -> None:
        for _ in range(20 * WORLDS):
            live(rng, flaw)

    with pytest.raises(AssertionError, match=r"claims .* and lacks"):
        live_long()
