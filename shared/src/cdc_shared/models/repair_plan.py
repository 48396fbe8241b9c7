"""What a repair can mend of what a job found, and what it leaves: the same for the API, which people ask, and for the
reconciliation service, which proposes by itself.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final, Literal

from pydantic import BaseModel, Field

from cdc_shared.models.reconciliation import DifferenceKind

RepairableKind = Literal[
    DifferenceKind.MISSING,
    DifferenceKind.EXTRA,
    DifferenceKind.DUPLICATED,
    DifferenceKind.DIFFERENT,
    DifferenceKind.DEAD_LETTERED,
]
"""What asking the writer again can mend. A decoder's fault would come again; other kinds are as the spec wants them."""
REPAIRABLE: Final[tuple[RepairableKind, ...]] = (
    DifferenceKind.MISSING,
    DifferenceKind.EXTRA,
    DifferenceKind.DUPLICATED,
    DifferenceKind.DIFFERENT,
    DifferenceKind.DEAD_LETTERED,
)
DEFAULT_MAX_KEYS: Final = 10_000
"""More is not repaired unless somebody who has looked says so."""
COUNT_DIFFERENCES: Final = (
    "SELECT d.kind, d.source_key IS NOT NULL AS is_known, count(*) AS keys FROM reconciliation_differences d "
    "JOIN reconciliation_runs r ON r.id = d.run_id WHERE r.job_id = $1 GROUP BY 1, 2"
)
"""Gives the `Counts` of a job, a row each."""

NOT_ASKED_FOR: Final = "not among the kinds that were asked for"
UNKNOWN_ID: Final = (
    "the table does not tell which document the row is of (its _id is masked): resync the collection, which sweeps "
    "rows that the source does not have"
)
WHY_NOT: Final[Mapping[DifferenceKind, str]] = MappingProxyType(
    {
        DifferenceKind.DECODER: "the writer would read the document in the same way again: report the fault",
        DifferenceKind.REJECTED: "a rule rejects the document: correct the document or the rule",
        DifferenceKind.FILTERED: "as the pipeline's filter says: nothing is wrong",
        DifferenceKind.LAGGING: "not settled yet: let the writer come as far, and compare again",
    }
)

Counts = Mapping[tuple[DifferenceKind, bool], int]
"""(kind, whether the `_id` is known) → keys."""


class NotRepairable(BaseModel):
    """Keys that a repair leaves as they are."""

    kind: DifferenceKind
    keys: int
    reason: str = Field(description="why, and what helps instead")


class RepairPlan(BaseModel):
    """What a repair will do: `plan` of table `reconciliation_repairs`."""

    keys: int = Field(description="that the writer will be asked to read again")
    by_kind: dict[DifferenceKind, int] = Field(description="the same, by what is wrong")
    not_repairable: list[NotRepairable]


def plan_repair(counts: Counts, kinds: Collection[DifferenceKind]) -> RepairPlan:
    """What a repair of these kinds does, and what it leaves, of all that was found. Every key is told once."""
    by_kind: dict[DifferenceKind, int] = {
        kind: counts[kind, True] for kind in REPAIRABLE if kind in kinds and counts.get((kind, True))
    }
    left = [
        NotRepairable(kind=kind, keys=keys, reason=_reason(kind, kinds))
        for (kind, is_known), keys in sorted(counts.items())
        if not (is_known and kind in by_kind)
    ]
    return RepairPlan(keys=sum(by_kind.values()), by_kind=by_kind, not_repairable=left)


def _reason(kind: DifferenceKind, kinds: Collection[DifferenceKind]) -> str:
    if kind in WHY_NOT:
        return WHY_NOT[kind]
    return UNKNOWN_ID if kind in kinds else NOT_ASKED_FOR
