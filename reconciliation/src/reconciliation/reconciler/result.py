"""What a run is asked and what it answers: one collection of one pipeline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.models.reconciliation import WRONG, DifferenceKind, JobOptions, Mode, Outcome

if TYPE_CHECKING:
    from reconciliation.reconciler.data_comparator import RangeDigest
    from reconciliation.reconciler.discrepancy_detector import Difference


@dataclass(frozen=True, slots=True)
class TopicPositions:
    """Where a change topic stood: `offsets` by partition, of the incarnation with this Kafka id."""

    topic_id: str
    offsets: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Verified:
    """What the last run that was `equal` left for mode incremental.

    Attributes:
        positions: from where changes are to be looked at.
        rows: `rows_identity` of the table that was compared: another one has rows that nobody has compared.
        rotation: which share of the keys that did not change comes next.
    """

    positions: TopicPositions
    rows: str
    rotation: int = 0


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One collection, to be compared in one mode.

    Attributes:
        run_id: names the run's directory: a run that is taken up again under its id goes on where it was.
        keys: only these, as key texts of `_id`s: the verification of a repair.
        verified: for mode incremental; None makes it a full comparison.
    """

    run_id: str
    spec: PipelineSpec
    collection: Collection
    mode: Mode
    options: JobOptions
    keys: Sequence[str] | None = None
    verified: Verified | None = None


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """One bar of the timeline."""

    name: str
    began: datetime
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The numbers of a run.

    Attributes:
        mode: in which it was compared; a note says so when that is not the one asked for.
        documents, rows: read of the source and of the table (mode counts: how many there are).
        compared: keys whose row and document were held against each other.
        sampled: of these, also through the independent decoder.
        differences: keys by kind; kinds with none are left out.
        settled: keys that differed at first and were equal once the writer had come as far.
        uninspected: keys beyond `max_differences` that were not looked into.
        rescued_rows: rows that hold values in `_cdc_rescued`.
        version: of the table that was scanned.
        watermark: of that version: everything in the source before this was in it.
        notes: what a reader of the report must know, in plain words.
    """

    mode: Mode
    documents: int = 0
    rows: int = 0
    compared: int = 0
    sampled: int = 0
    differences: Mapping[DifferenceKind, int] = field(default_factory=dict)
    settled: int = 0
    uninspected: int = 0
    generations: int = 0
    rescued_rows: int = 0
    version: int | None = None
    watermark: datetime | None = None
    timeline: Sequence[PhaseTime] = ()
    notes: Sequence[str] = ()

    @property
    def wrong(self) -> int:
        """How many keys are wrong, of those that were looked into."""
        return sum(count for kind, count in self.differences.items() if kind in WRONG)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run that came to its end says.

    Attributes:
        verified_through: every row was right as of this time of the source; None unless the outcome is `equal`.
        verified: for the next incremental run; None unless the outcome is `equal`.
    """

    outcome: Outcome
    summary: RunSummary
    differences: "Sequence[Difference]" = ()
    digest_map: "Sequence[RangeDigest]" = ()
    verified_through: datetime | None = None
    verified: Verified | None = None
