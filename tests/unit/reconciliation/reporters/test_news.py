"""Who is told of what: only of what changed, and always of what failed."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cdc_shared.models.reconciliation import DifferenceKind, JobState, Mode, Outcome
from reconciliation.reporters.news import CollectionNews, JobNews, Verdict, is_news

pytestmark = pytest.mark.unit

MISSING, FILTERED, LAGGING = DifferenceKind.MISSING, DifferenceKind.FILTERED, DifferenceKind.LAGGING
EQUAL = Verdict(Outcome.EQUAL)
WRONG = Verdict(Outcome.DIFFERENCES, {MISSING: 3})


def news(now: Verdict | None, before: Verdict | None, state: JobState = JobState.COMPLETED) -> JobNews:
    run = CollectionNews("db", "c", state, now, before)
    return JobNews("j", "p", Mode.FULL, state, "ann", datetime(2026, 1, 1, tzinfo=UTC), (run,))


@pytest.mark.parametrize(
    ("now", "before", "changed", "differences"),
    [
        (EQUAL, EQUAL, False, False),
        (EQUAL, None, True, False),
        (WRONG, EQUAL, True, True),
        (WRONG, WRONG, False, True),
        (Verdict(Outcome.DIFFERENCES, {MISSING: 4}), WRONG, True, True),
        (Verdict(Outcome.DIFFERENCES, {DifferenceKind.EXTRA: 3}), WRONG, True, True),
        (Verdict(Outcome.DIFFERENCES, {MISSING: 3, DifferenceKind.EXTRA: 0}), WRONG, False, True),
        (EQUAL, WRONG, True, False),
        (Verdict(Outcome.UNDECIDED, {LAGGING: 1}), EQUAL, True, False),
        # What a filter leaves out grows with the collection: no news.
        (Verdict(Outcome.EQUAL, {FILTERED: 9}), Verdict(Outcome.EQUAL, {FILTERED: 7}), False, False),
    ],
)
def test_changed_and_differences(now: Verdict, before: Verdict | None, changed: bool, differences: bool) -> None:
    told = news(now, before)
    assert is_news("changed", told) is changed
    assert is_news("differences", told) is differences
    assert is_news("always", told)


@pytest.mark.parametrize("on", ["changed", "differences", "always"])
def test_everybody_hears_of_failures_and_of_runs_that_wait(on) -> None:
    assert is_news(on, news(None, EQUAL, JobState.FAILED))
    waits = replace(news(None, EQUAL, JobState.QUEUED), warning="another run is under way")
    assert is_news(on, waits)
    assert is_news(on, replace(waits, warning=None)) is (on == "always")


def test_one_changed_collection_of_many_is_news() -> None:
    told = news(EQUAL, EQUAL)
    same = told.collections[0]
    assert not is_news("changed", replace(told, collections=(same,) * 5))
    assert is_news("changed", replace(told, collections=(same, replace(same, verdict=WRONG))))
