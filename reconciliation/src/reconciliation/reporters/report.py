"""What a report says, in whatever form it is read: a run that came to its end, and what it found."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final

from cdc_shared.delta.key_hash import hash_keys
from cdc_shared.models.collection import Collection
from cdc_shared.models.reconciliation import WRONG, DifferenceKind, JobOptions, Mode, Outcome
from reconciliation.reconciler.result import RunResult

if TYPE_CHECKING:
    from reconciliation.reconciler.data_comparator import RangeDigest

FORMAT: Final = 1
"""Of the JSON report; it grows when a field changes its meaning or goes, not when one is added."""
MAX_FIELDS: Final = 1_000
"""So many fields are told by name, those that differ most."""
COUNTED_FIELDS: Final = 20_000
"""So many are counted by name, as they come: names in documents can be data. The rest is `OTHER_FIELDS`."""
OTHER_FIELDS: Final = "(others)"
_RANGE_SHIFT: Final = 56
"""A range of the digest map is the highest byte of a key's hash. Rows without a key have the hash 0."""

MEANINGS: Final[Mapping[DifferenceKind, str]] = {
    DifferenceKind.MISSING: "in MongoDB, no row in the table",
    DifferenceKind.EXTRA: "a row in the table, no document in MongoDB",
    DifferenceKind.DUPLICATED: "several rows of one document",
    DifferenceKind.DIFFERENT: "the row does not hold what the document says",
    DifferenceKind.DECODER: "an independent decoder reads the document otherwise",
    DifferenceKind.DEAD_LETTERED: "a change is among the dead letters: replay it",
    DifferenceKind.REJECTED: "a validation rule rejects the document",
    DifferenceKind.FILTERED: "the pipeline's filter leaves the document out",
    DifferenceKind.LAGGING: "not settled: the writer had not come as far, or the key changes too fast",
}

_EQUAL_IN_PART: Final[Mapping[Mode, str]] = {
    Mode.KEYS: "Every document has its row and every row its document",
    Mode.COUNTS: "There are as many rows as documents",
}


@dataclass(frozen=True, slots=True)
class ReportedRun:
    """Which run it was.

    Attributes:
        mode: that was asked for; the summary's is the one it was compared in.
        requested_by: a user, or what made the job (`schedule …`).
    """

    run_id: str
    job_id: str
    pipeline: str
    collection: Collection
    mode: Mode
    options: JobOptions
    requested_by: str
    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class FieldCount:
    """In how many keys a field differs, by how."""

    pointer: str
    by_how: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.by_how.values())


@dataclass(frozen=True)
class Report:
    """A run and its result, with what is counted over its differences."""

    run: ReportedRun
    result: RunResult

    @property
    def name(self) -> str:
        """The collection's full name."""
        return f"{self.run.collection.database}.{self.run.collection.name}"

    @cached_property
    def kinds(self) -> Sequence[tuple[DifferenceKind, int]]:
        """How many keys of each kind there are, wrong ones first; none of those that there are not."""
        counts = self.result.summary.differences
        return [(kind, counts[kind]) for kind in DifferenceKind if counts.get(kind)]

    @cached_property
    def fields(self) -> Sequence[FieldCount]:
        """Fields that differ, most often first; at most `MAX_FIELDS`."""
        counted: dict[str, Counter[str]] = {}
        for difference in self.result.differences:
            for field in difference.fields:
                is_told = field.pointer in counted or len(counted) < COUNTED_FIELDS
                counted.setdefault(field.pointer if is_told else OTHER_FIELDS, Counter())[str(field.how)] += 1
        found = [FieldCount(pointer, by_how) for pointer, by_how in counted.items()]
        return sorted(found, key=lambda each: (-each.total, each.pointer))[:MAX_FIELDS]

    @cached_property
    def wrong_by_range(self) -> Mapping[int, int]:
        """Range of the digest map → how many keys of it are wrong."""
        wrong = [each.key for each in self.result.differences if each.kind in WRONG]
        ranges = (hash_keys(wrong)[:, 0] >> _RANGE_SHIFT).tolist()
        return Counter(range_ if key else 0 for key, range_ in zip(wrong, ranges, strict=True))

    @cached_property
    def digest_map(self) -> "Sequence[RangeDigest]":
        """Ranges in their order."""
        return sorted(self.result.digest_map, key=lambda each: each.range)

    @cached_property
    def headline(self) -> str:
        """The verdict in one sentence."""
        return headline(self.result)


def headline(result: RunResult) -> str:
    """Return the verdict in one sentence."""
    match result.outcome:
        case Outcome.EQUAL:
            if result.verified_through is None:  # only some keys were compared, or not their values
                return f"{_EQUAL_IN_PART.get(result.summary.mode, 'All that was compared is right')}."
            what = "The table" if result.summary.mode is Mode.FULL else "All that was compared"
            return f"{what} is right as of {instant(result.verified_through)}."
        case Outcome.DIFFERENCES:
            wrong = [(kind, count) for kind, count in result.summary.differences.items() if kind in WRONG and count]
            told = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in wrong)
            one = result.summary.wrong == 1
            more = f"; {result.summary.uninspected:,} more were not looked into" * bool(result.summary.uninspected)
            return f"{result.summary.wrong:,} {'key is' if one else 'keys are'} wrong: {told}{more}."
        case Outcome.UNDECIDED:
            return "Nothing wrong was confirmed, but not everything could be decided."


def instant(moment: datetime | None) -> str:
    """Return a time as it is written everywhere in reports: UTC, to the second."""
    return "–" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float) -> str:
    """Return a duration as people read it: 0.4 s, 12 s, 3 min 20 s, 5 h 12 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
