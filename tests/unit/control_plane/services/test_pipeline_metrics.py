"""What several writers together say of a pipeline: nothing is told twice, and what is not known is not told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cdc_shared.kafka.status_topic import CollectionReport, ErrorReport, Heard, PartitionReport, WriterReport
from cdc_shared.metrics.prometheus_metrics import PipelineState
from cdc_shared.source.oplog import OplogWindow
from control_plane.models.monitoring import PipelineMetrics
from control_plane.services.metrics_collector import Ends
from control_plane.services.pipeline_metrics import pipeline_metrics, rates, summary

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
TOPIC = "shop.shop.orders"


def collection(*partitions: tuple[int, int, int], name: str = "orders", **fields: Any) -> CollectionReport:
    """Partitions: (number, offset, lag)."""
    read = tuple(PartitionReport(partition=p, offset=offset, lag=lag) for p, offset, lag in partitions)
    return CollectionReport(
        database="shop", collection=name, topic=f"shop.shop.{name}", partitions=read, table_version=1, **fields
    )


def heard(
    *collections: CollectionReport,
    writer: str = "a",
    state: PipelineState = PipelineState.RUNNING,
    age_s: float = 1.0,
    is_silent: bool = False,
    **fields: Any,
) -> Heard:
    report = WriterReport(pipeline="shop", writer=writer, state=state, at_ms=NOW_MS, collections=collections, **fields)
    return Heard(report, age_s, is_silent)


def metrics(*reports: Heard, ends: Ends | None = None, oplog: OplogWindow | None = None) -> PipelineMetrics:
    return pipeline_metrics("shop", reports, ends or {}, oplog, NOW)


def test_nothing_is_known_of_a_pipeline_that_nobody_reports_of() -> None:
    found = metrics()
    assert (found.lag_seconds, found.lag_events, found.watermark, found.error_rate) == (None,) * 4
    assert (found.observed_at, found.last_error, found.table_bytes, found.oplog_window_seconds) == (None,) * 4
    assert (found.events_per_s, found.writers, found.collections) == (0, [], [])


def test_the_lag_is_that_to_the_topics_end_where_that_is_known() -> None:
    reported = heard(collection((0, 100, 3), (1, 50, 1), (2, 10, 0)))
    assert metrics(reported).lag_events == 4, "as the writer said"
    ends = {(TOPIC, 0): 150, (TOPIC, 1): 40, ("another", 2): 10**6}
    assert metrics(reported, ends=ends).lag_events == 50, "of a look before the report nothing is to come"


def test_the_lag_grows_when_all_writers_are_gone() -> None:
    gone = heard(collection((0, 100, 0), watermark_ms=NOW_MS - 600_000), is_silent=True, age_s=600)
    found = metrics(gone, ends={(TOPIC, 0): 900})
    assert (found.lag_events, found.lag_seconds) == (800, 600)
    assert found.writers[0].is_silent


def test_of_two_writers_that_had_a_partition_the_newer_word_counts() -> None:
    taken_over = heard(collection((0, 300, 0), (1, 5, 2), watermark_ms=NOW_MS - 2000), writer="new", age_s=1)
    before = heard(collection((0, 100, 50), watermark_ms=NOW_MS - 90_000), writer="old", age_s=30, is_silent=True)
    found = metrics(taken_over, before)
    assert (found.lag_events, found.lag_seconds) == (2, 2.0)


def test_writers_that_share_a_topic_add_up() -> None:
    one = heard(collection((0, 10, 1), events=100, events_per_s=5.0, rescued=1, dead_letters=2), writer="a")
    two = heard(collection((1, 20, 2), events=50, events_per_s=2.5, rescued=3, rejected=4), writer="b")
    found = metrics(one, two)
    (orders,) = found.collections
    assert (orders.lag_events, orders.events, orders.events_per_s) == (3, 150, 7.5)
    assert (orders.rescued, orders.dead_letters, orders.rejected) == (4, 2, 4)
    assert [each.partitions for each in found.writers] == [1, 1]


def test_a_pipeline_is_as_far_behind_as_its_last_table() -> None:
    orders = collection((0, 1, 2), watermark_ms=NOW_MS - 1000, table_bytes=10)
    items = collection((0, 1, 3), name="items", watermark_ms=NOW_MS - 5000, table_bytes=20)
    found = metrics(heard(orders, items))
    assert (found.lag_seconds, found.lag_events, found.table_bytes) == (5.0, 5, 30)
    assert found.watermark == NOW - timedelta(seconds=5)
    assert [each.collection for each in found.collections] == ["items", "orders"]


def test_while_one_table_has_no_watermark_the_pipeline_has_none() -> None:
    found = metrics(heard(collection((0, 1, 2), watermark_ms=NOW_MS), collection((0, 1, 3), name="items")))
    assert (found.lag_seconds, found.watermark, found.lag_events) == (None, None, 5)
    assert [each.lag_seconds for each in found.collections] == [None, 0.0]


def test_a_writer_whose_clock_is_early_makes_no_negative_lag() -> None:
    found = metrics(heard(collection((0, 1, 0), watermark_ms=NOW_MS + 5000)))
    assert found.lag_seconds == 0


@pytest.mark.parametrize(
    ("state", "is_silent", "expected"),
    [
        (PipelineState.RUNNING, False, 5.0),
        (PipelineState.RETRYING, False, 5.0),
        (PipelineState.RUNNING, True, 0.0),
        (PipelineState.FAILED, False, 0.0),
        (PipelineState.STOPPED, False, 0.0),
    ],
)
def test_only_writers_at_work_have_a_throughput(state: PipelineState, is_silent: bool, expected: float) -> None:
    found = metrics(heard(collection((0, 1, 0), events=9, events_per_s=5.0), state=state, is_silent=is_silent))
    assert (found.events_per_s, found.collections[0].events) == (expected, 9)
    assert summary(found).writers == (1 if expected else 0)


@pytest.mark.parametrize(
    ("events_per_s", "rejected_per_s", "expected"),
    [(0.0, 0.0, None), (10.0, 0.0, 0.0), (10.0, 1.0, 0.1), (0.0, 2.0, 1.0)],
)
def test_the_error_rate_is_a_share(events_per_s: float, rejected_per_s: float, expected: float | None) -> None:
    found = metrics(heard(collection((0, 1, 0), events_per_s=events_per_s, rejected_per_s=rejected_per_s)))
    assert found.error_rate == expected
    assert rates([found, metrics()]).error_rate == expected


def test_writers_that_left_long_ago_are_not_shown_unless_nobody_came_after_them() -> None:
    left = [heard(writer=name, age_s=age_s, state=PipelineState.STOPPED) for name, age_s in (("b", 3e3), ("c", 9e3))]
    assert [each.writer for each in metrics(heard(), *left).writers] == ["a"]
    assert [each.writer for each in metrics(*left).writers] == ["b"]


def test_the_newest_error_and_rejection_are_told() -> None:
    older = heard(
        collection((0, 1, 0), last_rejection="old", last_rejection_ms=1),
        writer="a",
        last_error=ErrorReport(text="first", at_ms=NOW_MS - 9),
    )
    newer = heard(
        collection((1, 1, 0), last_rejection="new", last_rejection_ms=2),
        writer="b",
        age_s=5,
        last_error=ErrorReport(text="second", at_ms=NOW_MS - 1),
    )
    found = metrics(older, newer)
    assert found.last_error is not None
    assert (found.last_error.text, found.last_error.writer) == ("second", "b")
    assert found.collections[0].last_rejection == "new"


def test_a_table_that_is_not_there_yet_has_no_version() -> None:
    missing = CollectionReport(database="shop", collection="orders", topic=TOPIC)
    (orders,) = metrics(heard(missing), oplog=OplogWindow(10, 70, None)).collections
    assert (orders.table_version, orders.schema_version, orders.lag_events) == (None, None, None)
    assert metrics(heard(missing), oplog=OplogWindow(10, 70, None)).oplog_window_seconds == 60
