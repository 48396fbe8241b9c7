"""What a job's end is to those who are told of it, and whether it is news to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from cdc_shared.models.reconciliation import WRONG, DifferenceKind, JobState, Mode, Outcome

Counts = Mapping[DifferenceKind, int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a completed run said of a collection: its outcome, and keys by kind of difference."""

    outcome: Outcome
    differences: Counts = field(default_factory=dict)

    @property
    def wrong(self) -> Counts:
        """Only of what is wrong. What rules and filters leave out grows with the collection, and is no news."""
        return {kind: count for kind, count in self.differences.items() if kind in WRONG and count}


@dataclass(frozen=True, slots=True)
class CollectionNews:
    """One run of a job.

    Attributes:
        verdict: None of a run that did not come to its end; `error` then says why.
        before: what the last completed run before it said; None when there was none.
    """

    database: str
    collection: str
    state: JobState
    verdict: Verdict | None
    before: Verdict | None = None
    verified_through: datetime | None = None
    documents: int = 0
    rows: int = 0
    error: str | None = None

    @property
    def is_changed(self) -> bool:
        """Whether the outcome, or the numbers of what is wrong, are not what they were. A first verdict is a change."""
        if self.verdict is None:
            return False
        return (
            self.before is None
            or self.verdict.outcome is not self.before.outcome
            or self.verdict.wrong != self.before.wrong
        )


@dataclass(frozen=True, slots=True)
class JobNews:
    """A job that came to its end; or, still queued and with a `warning`, one that has to wait for another.

    `requested_by`: a user, or what made the job. `job_error`: why the job failed, or None.
    """

    job_id: str
    pipeline: str
    mode: Mode
    state: JobState
    requested_by: str
    at: datetime
    collections: Sequence[CollectionNews] = ()
    warning: str | None = None
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the job, or its run of a collection, failed."""
        return self.state is JobState.FAILED or any(each.state is JobState.FAILED for each in self.collections)

    @property
    def waits(self) -> bool:
        """Whether it has not begun, and says why."""
        return self.state is JobState.QUEUED and self.warning is not None

    def of_outcome(self, outcome: Outcome) -> list[CollectionNews]:
        """Return the collections with this outcome."""
        return [each for each in self.collections if each.verdict and each.verdict.outcome is outcome]


def is_news(on: Literal["changed", "differences", "always"], news: JobNews) -> bool:
    """Tell whether those who want to hear `on` this are told. Failures and warnings everybody hears of."""
    if news.failed or news.waits or on == "always":
        return True
    if on == "differences":
        return bool(news.of_outcome(Outcome.DIFFERENCES))
    return any(each.is_changed for each in news.collections)
