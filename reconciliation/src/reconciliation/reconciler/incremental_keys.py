"""Mode incremental: which keys are compared. Those that changed since the last verification, and some others.

Over `1 / share` runs every key has been in a share once: damage that no change has to do with is found as well.
"""

import math
from dataclasses import dataclass
from typing import Final

from reconciliation.reconciler.result import TopicPositions, Verified
from reconciliation.sources.changed_keys import ChangedKeys, PositionsGone, TooManyKeys

MAX_CHANGED_KEYS: Final = 1_000_000
"""They are held in memory; for more, a full comparison is the cheaper one anyway."""
_HASHES: Final = 2**64


@dataclass(frozen=True, slots=True)
class HashRange:
    """Keys whose `hash_hi` is in [low, high)."""

    low: int
    high: int

    def __contains__(self, hash_hi: int) -> bool:
        return self.low <= hash_hi < self.high


@dataclass(frozen=True, slots=True)
class IncrementalKeys:
    """What an incremental run compares.

    Attributes:
        changed: key texts of the `_id`s of documents that changed since.
        share: the keys that are compared this time although they did not; None is none of them.
        positions: up to where changes were looked at: where the next run begins if this one finds all equal.
        rotation: which share comes next.
    """

    changed: frozenset[str]
    share: HashRange | None
    positions: TopicPositions
    rotation: int


@dataclass(frozen=True, slots=True)
class FullInstead:
    """An incremental comparison cannot prove anything; `reason` says why, in plain words."""

    reason: str


def select_keys(
    events: ChangedKeys, verified: Verified | None, rows: str, share: float, max_keys: int = MAX_CHANGED_KEYS
) -> IncrementalKeys | FullInstead:
    """Select what to compare, or say why everything must be.

    `rows` is `rows_identity` of the table as it is now. Raises `Transient` and `Fatal` for Kafka's errors.
    """
    if verified is None:
        return FullInstead("no run has found the collection equal yet, so there is nothing to begin from")
    if verified.rows != rows:
        return FullInstead(
            "since the last verification the table was restored, made again, or changed by another program whose rows "
            "were accepted"
        )
    now = events.ends()
    try:
        changed = events.keys_between(verified.positions, now.offsets, max_keys)
    except PositionsGone as error:
        return FullInstead(str(error))
    except TooManyKeys as error:
        return FullInstead(f"{error} since the last verification")
    selected, rotation = rotating_share(share, verified.rotation)
    return IncrementalKeys(frozenset(changed), selected, now, rotation)


def rotating_share(share: float, rotation: int) -> tuple[HashRange | None, int]:
    """Return the keys of share number `rotation`, and the number of the next one.

    There are `1 / share` of them, rounded up; together they hold every key.
    """
    if share <= 0:
        return None, rotation
    shares = math.ceil(1 / min(share, 1.0))
    number = rotation % shares
    return HashRange(_HASHES * number // shares, _HASHES * (number + 1) // shares), (number + 1) % shares
