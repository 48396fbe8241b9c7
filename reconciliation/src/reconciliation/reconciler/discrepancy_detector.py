"""Candidates → what is really wrong with them: nothing is called wrong that a change under way would put right.

A candidate is a key whose row and document did not agree when they were scanned, at different times. Here both are read
again, a generation of keys at a time, in an order that makes the comparison a proof (`generations`). What is equal then
was lag; what differs while no change of the key is under way is wrong, and is explained (`explanations`); what was
changed meanwhile is looked at again.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cdc_shared.models.reconciliation import DifferenceKind
from reconciliation.reconciler.data_comparator import Candidate
from reconciliation.reconciler.difference import Difference, FieldDifference, How
from reconciliation.reconciler.generations import Evidence, ScanWindow
from reconciliation.reconciler.progress import Control

__all__ = ["Difference", "FieldDifference", "How", "Settled", "SettleLimits", "settle"]


@dataclass(frozen=True, slots=True)
class SettleLimits:
    """How long and how much.

    Attributes:
        timeout_s: so long a key may stay undecided since it was first looked at, before it is `lagging`.
        max_differences: so many are told one by one. When so many are wrong, the rest is not looked into.
        keys_at_once, bytes_at_once: of documents held in memory in one generation.
    """

    timeout_s: float = 300.0
    max_differences: int = 100_000
    keys_at_once: int = 50_000
    bytes_at_once: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Generation:
    """What one generation decided of its keys; `version` of the table is None when the writer did not come as far."""

    number: int
    keys: int
    equal: int
    confirmed: int
    pending: int
    version: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of the candidates.

    Attributes:
        differences: what is not equal, up to `max_differences`.
        counts: how many there are by kind, all of them.
        equal: candidates that are equal by now: they differed only because the scans read at different times.
        uninspected: candidates that were not looked into, because enough were found to be wrong.
        generations: how it went, in order.
    """

    differences: Sequence[Difference]
    counts: Mapping[DifferenceKind, int]
    equal: int
    uninspected: int = 0
    generations: Sequence[Generation] = field(default=())


def settle(
    candidates: Iterable[Candidate],
    evidence: Evidence,
    limits: SettleLimits,
    control: Control,
    *,
    scan: ScanWindow | None = None,
    values: bool = True,
    advance: Callable[[int], None] = lambda keys: None,
    waiting: Callable[[str | None], None] = lambda why: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Settled:
    """Settle every candidate.

    Args:
        scan: of the source, for rows whose `_id` is masked: what it did not see is known to be gone.
        values: without, only whether there is a row for each document and a document for each row (mode keys).
        advance: told how many keys more are decided.
        waiting: told what is waited for, None when it is over.

    Raises:
        Transient, Fatal: source, Kafka or store; settling the same candidates again is safe.
        Cancelled, Stopped: by `control`.
    """
    raise NotImplementedError
