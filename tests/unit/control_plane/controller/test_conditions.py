"""What is said of a connector and of the writers."""

from __future__ import annotations

import pytest

from cdc_shared.connect.connect_client import ConnectorStatus, ConnectorView, TaskStatus
from cdc_shared.errors import Fatal, Transient
from cdc_shared.kafka.status_topic import Heard, WriterReport
from cdc_shared.metrics.prometheus_metrics import PipelineState
from control_plane.controller.conditions import connector_condition, refused, writer_conditions
from control_plane.controller.store import MAX_TEXT_CHARS, storable
from control_plane.models.pipeline import ConditionKind

pytestmark = pytest.mark.unit


def heard(state: str, writer: str = "w", *, silent: bool = False, reason: str | None = None) -> Heard:
    report = WriterReport(pipeline="shop", state=PipelineState(state), at_ms=0, writer=writer, reason=reason)
    return Heard(report, 1.0, silent)


@pytest.mark.parametrize(
    ("state", "tasks", "said"),
    [
        ("RUNNING", ["RUNNING"], ("true", "Running")),
        ("RUNNING", [], ("false", "Starting")),
        ("UNASSIGNED", [], ("false", "Starting")),
        ("RUNNING", ["FAILED"], ("false", "Failed")),
        ("PAUSED", ["PAUSED"], ("false", "Paused")),
        ("PAUSED", ["FAILED"], ("false", "Paused")),
        ("PAUSED", ["RUNNING"], ("false", "Pausing")),
        ("STOPPED", [], ("false", "Stopped")),
        ("STOPPED", ["RUNNING"], ("false", "Stopping")),
    ],
)
def test_a_connector(state: str, tasks: list[str], said: tuple[str, str]) -> None:
    told = tuple(TaskStatus(n, each, "java.X: boom") for n, each in enumerate(tasks))
    condition = connector_condition(ConnectorView({}, ConnectorStatus("shop", state, "", told)))
    assert (condition.status, condition.reason) == said


def test_no_connector() -> None:
    assert connector_condition(None).reason == "Absent"


@pytest.mark.parametrize(
    ("reports", "writer", "resync"),
    [
        ([], ("false", "Absent"), "false"),
        ([heard("running")], ("true", "Running"), "false"),
        ([heard("running"), heard("running", "v", silent=True)], ("true", "Running"), "false"),
        ([heard("running", silent=True)], ("false", "Silent"), "false"),
        ([heard("running"), heard("failed", "v")], ("false", "Failed"), "false"),
        ([heard("resync_needed")], ("false", "Failed"), "true"),
        ([heard("resync_needed", silent=True)], ("false", "Silent"), "true"),
        ([heard("running"), heard("resync_needed", "v", silent=True)], ("true", "Running"), "false"),
        ([heard("paused")], ("false", "Flooded"), "false"),
        ([heard("starting"), heard("stopped", "v")], ("false", "Starting"), "false"),
        ([heard("stopped")], ("false", "Stopped"), "false"),
        ([heard("stopped"), heard("running", "v")], ("true", "Running"), "false"),
    ],
)
def test_writers(reports: list[Heard], writer: tuple[str, str], resync: str) -> None:
    running, needed = writer_conditions(reports, None)
    assert (running.status, running.reason) == writer
    assert needed.status == resync


def test_deaf_ears_know_nothing_of_writers() -> None:
    assert {each.status for each in writer_conditions([heard("running")], "Kafka is away")} == {"unknown"}


def test_absence_says_nothing_and_refusal_does() -> None:
    kind = ConditionKind.SPEC_PUBLISHED
    assert (refused(kind, Transient("away")).status, refused(kind, Fatal("no")).reason) == ("unknown", "Refused")


def test_whatever_a_system_says_can_be_stored() -> None:
    assert storable("a\x00b \ud800 c") == "ab ? c"
    assert len(storable("x" * 10_000)) == MAX_TEXT_CHARS
