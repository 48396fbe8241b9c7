"""What an incremental comparison looks at, and when it cannot be one."""

from typing import Any

import pytest

from cdc_shared.delta.key_hash import hash_keys
from reconciliation.reconciler.incremental_keys import FullInstead, IncrementalKeys, rotating_share, select_keys
from reconciliation.reconciler.result import TopicPositions, Verified
from reconciliation.sources.changed_keys import PositionsGone, TooManyKeys

pytestmark = pytest.mark.unit

BEFORE = TopicPositions("id", {0: 5, 1: 7})
NOW = TopicPositions("id", {0: 9, 1: 7})
VERIFIED = Verified(BEFORE, "rows", 3)


class Events:
    """The keys `1` and `2` have changed, or Kafka cannot tell."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[Any] = []

    def ends(self) -> TopicPositions:
        return NOW

    def keys_between(self, *asked: Any) -> set[str]:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        return {"1", "2"}


def select(events: Events, verified: Verified | None = VERIFIED, share: float = 0.25) -> Any:
    return select_keys(events, verified, "rows", share, max_keys=10)  # type: ignore[arg-type]


def test_what_changed_since_the_last_verification_and_the_next_share() -> None:
    events = Events()
    selected = select(events)
    assert isinstance(selected, IncrementalKeys)
    assert selected.changed == {"1", "2"}
    assert events.asked == [(BEFORE, NOW.offsets, 10)]
    assert selected.positions == NOW
    assert selected.share is not None
    assert (selected.share.low, selected.share.high) == (2**64 * 3 // 4, 2**64)
    assert selected.rotation == 0


@pytest.mark.parametrize(
    ("verified", "error", "reason"),
    [
        (None, None, "no run has found the collection equal yet"),
        (Verified(BEFORE, "rows-restored", 3), None, "the table was restored"),
        (VERIFIED, PositionsGone("retention has dropped it"), "retention has dropped it"),
        (VERIFIED, TooManyKeys("more than 10 documents changed"), "10 documents changed since"),
    ],
)
def test_when_everything_must_be_compared(verified: Verified | None, error: Exception | None, reason: str) -> None:
    instead = select(Events(error), verified)
    assert isinstance(instead, FullInstead)
    assert reason in instead.reason


@pytest.mark.parametrize("share", [0.05, 0.3, 1 / 3, 0.5, 0.75, 1.0, 2.0])
def test_every_key_is_in_one_share_of_a_round(share: float) -> None:
    hashes = [0, 2**63, 2**64 - 1, *hash_keys(map(str, range(500)))[:, 0].tolist()]
    seen = dict.fromkeys(hashes, 0)
    rotation, rounds = 0, 0
    while rounds == 0 or rotation:
        selected, rotation = rotating_share(share, rotation)
        assert selected is not None
        for each in hashes:
            seen[each] += each in selected
        rounds += 1
    assert set(seen.values()) == {1}
    assert rounds >= 1 / share


def test_no_share_at_all() -> None:
    assert rotating_share(0, 7) == (None, 7)


def test_a_share_of_another_size_goes_on_somewhere() -> None:
    selected, rotation = rotating_share(0.5, 19)
    assert selected is not None
    assert rotation == 0
