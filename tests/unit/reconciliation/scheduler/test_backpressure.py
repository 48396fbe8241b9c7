"""When a run waits for the writer, and when waiting would cure nothing."""

import pytest

from cdc_shared.kafka.status_topic import CollectionReport, Heard, PartitionReport, WriterReport
from cdc_shared.metrics.prometheus_metrics import PipelineState
from cdc_shared.models.collection import Collection
from reconciliation.scheduler.backpressure import Backpressure

pytestmark = pytest.mark.unit

NOW_S = 1_800_000_000.0
ORDERS = Collection("shop", "orders")


def heard(
    lag_s: float | None,
    *,
    state: PipelineState = PipelineState.RUNNING,
    is_silent: bool = False,
    collection: str = "orders",
    partitions: int = 1,
) -> Heard:
    table = CollectionReport(
        database="shop",
        collection=collection,
        topic="t",
        partitions=tuple(PartitionReport(partition=number, offset=0, lag=0) for number in range(partitions)),
        watermark_ms=None if lag_s is None else int((NOW_S - lag_s) * 1000),
    )
    return Heard(WriterReport(pipeline="p", state=state, at_ms=0, collections=(table,)), 0.0, is_silent)


def reason(*reports: Heard, max_lag_s: float = 60.0) -> str | None:
    return Backpressure(lambda _: reports, "p", ORDERS, max_lag_s, lambda: NOW_S).reason_to_wait()


def test_a_writer_behind_the_limit_holds_the_run_back_and_is_named() -> None:
    assert reason(heard(59)) is None
    assert reason(heard(3_725)) == (
        "the writer is 1:02:05 behind, more than max_lag_s allows (0:01:00): waiting for it"
    )
    assert reason(heard(1), heard(100)) is not None, "the one that is furthest behind counts"


@pytest.mark.parametrize(
    "report",
    [
        heard(None),
        heard(100, state=PipelineState.STOPPED),
        heard(100, state=PipelineState.FAILED),
        heard(100, is_silent=True),
        heard(100, collection="customers"),
        heard(100, partitions=0),
    ],
)
def test_what_waiting_does_not_cure_holds_nobody_back(report: Heard) -> None:
    assert reason(report) is None


def test_a_run_that_waits_goes_on_only_once_the_writer_is_well_below_the_limit() -> None:
    lags = iter((61.0, 55.0, 49.0, 47.0, 55.0, 61.0))
    pressure = Backpressure(lambda _: [heard(next(lags))], "p", ORDERS, 60.0, lambda: NOW_S)
    held = [pressure.reason_to_wait() is not None for _ in range(6)]
    assert held == [True, True, True, False, False, True]
