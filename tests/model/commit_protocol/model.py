"""What is looked at, and what is found."""

from __future__ import annotations

from dataclasses import dataclass

from commit_protocol.protections import ALL, Protection
from commit_protocol.stream import TWO_PARTITIONS, Stream


class Violation(Exception):
    """An invariant does not hold. `invariant` is its number in docs/architecture/data-flow.md."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


@dataclass(frozen=True)
class Model:
    """What is looked at: the stream, what may happen, and the protections that are on.

    Attributes:
        rewrites: how many rewrites may land; `sweeps`: whether a sweep may be made.
        restores: whether the table may be restored, once, while writers that should have been stopped were not.
        forgets: whether writers may sleep until the log that they know was cleaned up.
        cuts: whether a look at the table may fail half-way.
        delays: how many puts may be under way that nobody waits for any more.
    """

    stream: Stream = TWO_PARTITIONS
    writers: int = 2
    rewrites: int = 0
    sweeps: bool = False
    restores: bool = False
    forgets: bool = False
    cuts: bool = False
    delays: int = 0
    on: frozenset[Protection] = ALL

    @property
    def partitions(self) -> int:
        return len(self.stream.partitions)
