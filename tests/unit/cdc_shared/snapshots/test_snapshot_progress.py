"""Percent and time left of a snapshot follow from what was sent and what the source has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cdc_shared.snapshots.notifications import SnapshotAttempt
from cdc_shared.snapshots.snapshot_progress import CollectionProgress, CollectionState, SnapshotState, progress_of

pytestmark = pytest.mark.unit

TOTALS = {"a": 100, "b": 300, "c": 0}


def attempt(begun: Sequence[str] = (), whole: Sequence[str] = ()) -> SnapshotAttempt:
    return SnapshotAttempt(5, 1000, {f"shop.{name}" for name in begun}, {f"shop.{name}" for name in whole})


def test_all_captured_collections_are_counted() -> None:
    progress = progress_of(attempt("ab", "a"), "shop", {"a": 102, "b": 100}, TOTALS, None, 50.0)
    assert progress.collections == (
        CollectionProgress("a", CollectionState.READ, 100, 100),
        CollectionProgress("b", CollectionState.READING, 100, 300),
        CollectionProgress("c", CollectionState.WAITING, 0, 0),
    )
    assert (progress.state, progress.started_ms) == (SnapshotState.RUNNING, 1000)
    assert (progress.documents, progress.total, progress.percent) == (200, 400, 50.0)
    assert progress.seconds_left == 4.0


def test_one_that_a_resync_has_not_asked_for_is_not_counted() -> None:
    progress = progress_of(attempt("b"), "shop", {"b": 150}, TOTALS, ["b"], 50.0)
    assert [each.collection for each in progress.collections] == ["b"]
    assert (progress.percent, progress.seconds_left) == (50.0, 3.0)


def test_one_that_was_begun_all_the_same_is_counted() -> None:
    """A connector that was killed in the middle reads every collection again."""
    assert [each.collection for each in progress_of(attempt("a"), "shop", {}, TOTALS, ["b"], None).collections] == [
        "a",
        "b",
    ]


def test_it_is_not_complete_before_the_connector_says_so() -> None:
    """Documents that were inserted meanwhile are read as well, and markers counted."""
    progress = progress_of(attempt("abc", "ac"), "shop", {"a": 100, "b": 312}, TOTALS, None, 50.0)
    assert (progress.documents, progress.percent, progress.seconds_left) == (400, 99.9, 0.0)
    assert progress_of(attempt(), "shop", {}, {}, None, None).percent is None


@pytest.mark.parametrize("documents_per_s", [0.0, -3.0])
def test_nothing_is_said_of_the_time_left_while_nothing_comes(documents_per_s: float) -> None:
    """A topic that was made anew holds less than before."""
    assert progress_of(attempt("a"), "shop", {"a": 10}, TOTALS, ["a"], documents_per_s).seconds_left is None


def test_what_is_not_known_is_not_guessed() -> None:
    unknown = progress_of(attempt("ab", "a"), "shop", {"a": 102, "b": 100}, None, None, 50.0)
    assert unknown.collections == (
        CollectionProgress("a", CollectionState.READ, 102, 102),
        CollectionProgress("b", CollectionState.READING, 100, None),
    )
    assert (unknown.documents, unknown.total, unknown.percent, unknown.seconds_left) == (202, None, None, None)
    stuck = progress_of(attempt("b"), "shop", {"b": 100}, TOTALS, None, 0.0)
    assert (stuck.percent, stuck.seconds_left) == (25.0, None)
