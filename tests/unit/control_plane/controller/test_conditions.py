"""What the controller makes of writers' reports, beyond the states that they give themselves."""

from __future__ import annotations

import pytest

from cdc_shared.kafka.status_topic import HANGS_AFTER_S, Heard, WriterReport
from cdc_shared.metrics.prometheus_metrics import PipelineState
from control_plane.controller.conditions import writer_conditions
from control_plane.models.pipeline import ConditionStatus

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("stood_still_s", "reason"), [(1, "Running"), (HANGS_AFTER_S + 1, "Hanging")])
def test_a_writer_that_says_that_it_runs_and_does_nothing_does_not_run(stood_still_s: float, reason: str) -> None:
    turn_ms = 10**12
    report = WriterReport(
        pipeline="shop",
        writer="w",
        state=PipelineState.RUNNING,
        at_ms=turn_ms + int(stood_still_s * 1000),
        turn_ms=turn_ms,
    )
    running, _ = writer_conditions([Heard(report, age_s=1.0, is_silent=False)], trouble=None)
    expected = ConditionStatus.TRUE if reason == "Running" else ConditionStatus.FALSE
    assert (running.status, running.reason) == (expected, reason)
    assert "w" in running.message
