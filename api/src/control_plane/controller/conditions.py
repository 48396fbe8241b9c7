"""What the controller finds of a pipeline: each condition is true, false or unknown, with a word and a sentence why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cdc_shared.connect.connect_client import ConnectorStatus, ConnectorView
from cdc_shared.errors import CdcError, Transient, shown
from cdc_shared.kafka.status_topic import HANGS_AFTER_S, SILENT_AFTER_S, Heard
from cdc_shared.metrics.prometheus_metrics import PipelineState
from control_plane.controller.connector import PAUSED, STOPPED, is_quiet
from control_plane.models.pipeline import Condition, ConditionKind, ConditionStatus, Reason

UNDATED: Final = datetime.min
"""Since when a condition is as it is, Postgres finds out: it compares with what was stored before."""


def is_so(kind: ConditionKind, reason: str, message: str) -> Condition:
    """The condition holds. `reason` is one word for programs, `message` a sentence for people, without secrets."""
    return Condition(kind=kind, status=ConditionStatus.TRUE, reason=reason, message=message, since=UNDATED)


def is_not(kind: ConditionKind, reason: str, message: str) -> Condition:
    """The condition does not hold."""
    return Condition(kind=kind, status=ConditionStatus.FALSE, reason=reason, message=message, since=UNDATED)


def not_known(kind: ConditionKind, message: str) -> Condition:
    """What could not be found out, because something is away."""
    status, reason = ConditionStatus.UNKNOWN, Reason.UNAVAILABLE
    return Condition(kind=kind, status=status, reason=reason, message=message, since=UNDATED)


def refused(kind: ConditionKind, error: CdcError) -> Condition:
    """What could not be made true. That a system is away says nothing about how things are; that it refuses does."""
    message = shown(error)
    return not_known(kind, message) if isinstance(error, Transient) else is_not(kind, Reason.REFUSED, message)


def connector_condition(view: ConnectorView | None) -> Condition:
    """Whether the connector and all its tasks run. It counts as paused or stopped once no task reads any more."""
    kind = ConditionKind.CONNECTOR_RUNNING
    if view is None:
        return is_not(kind, Reason.ABSENT, "Kafka Connect has no such connector")
    status = view.status
    if status.state == PAUSED:
        if is_quiet(status):
            return is_not(kind, Reason.PAUSED, "the connector is paused")
        return is_not(kind, "Pausing", f"the connector pauses: {_tasks(status)}")
    if status.state == STOPPED:
        if not status.tasks:
            return is_not(kind, Reason.STOPPED, "the connector is stopped")
        return is_not(kind, "Stopping", f"the connector stops: {_tasks(status)}")
    if status.failure is not None:
        return is_not(kind, Reason.FAILED, status.failure)
    if status.running:
        return is_so(kind, Reason.RUNNING, f"the connector runs: {_tasks(status)}")
    return is_not(kind, Reason.STARTING, f"the connector is {status.state.lower()}: {_tasks(status)}")


def writer_conditions(heard: Sequence[Heard], trouble: str | None) -> tuple[Condition, Condition]:
    """Whether a writer runs the pipeline, and whether one says that only a resync helps.

    Args:
        heard: the last report of each writer, the newest first.
        trouble: why reports cannot be read now.
    """
    resync = ConditionKind.RESYNC_NEEDED
    if trouble is not None:
        return not_known(ConditionKind.WRITER_RUNNING, trouble), not_known(resync, trouble)
    # What is lost stays lost when the writer that has found it goes, until another one has looked.
    for each in [each for each in heard if not each.is_silent] or heard[:1]:
        if each.report.state is PipelineState.RESYNC_NEEDED:
            why = is_so(resync, "ChangesLost", each.report.reason or f"the writer {each.report.writer} asks for it")
            return _writer_condition(heard), why
    return _writer_condition(heard), is_not(resync, "NothingLost", "no writer asks for a resync")


_WORST_FIRST: Final = (
    (PipelineState.FAILED, Reason.FAILED),
    (PipelineState.RESYNC_NEEDED, Reason.FAILED),
    (PipelineState.PAUSED, "Flooded"),  # by the limit on dead letters: a person must look
    (PipelineState.RETRYING, "Retrying"),
    (PipelineState.STARTING, Reason.STARTING),
)


def _writer_condition(heard: Sequence[Heard]) -> Condition:
    kind = ConditionKind.WRITER_RUNNING
    if not heard:
        return is_not(kind, Reason.ABSENT, "no writer has taken the pipeline; see that a delta-writer runs")
    present = [each.report for each in heard if not each.is_silent]
    if not present:
        writer = heard[0].report.writer
        return is_not(kind, Reason.SILENT, f"the writer {writer} has said nothing for {SILENT_AFTER_S:.0f} s or more")
    for state, reason in _WORST_FIRST:
        found = [each for each in present if each.state is state]
        if found:
            return is_not(kind, reason, found[0].reason or f"the writer {found[0].writer} says: {state}")
    hanging = [each.writer for each in present if each.hangs]
    if hanging:
        why = f"the writer {hanging[0]} has done nothing for {HANGS_AFTER_S:.0f} s or more; see its log, and restart it"
        return is_not(kind, "Hanging", why)
    running = sorted(each.writer for each in present if each.state is PipelineState.RUNNING)
    if running:
        return is_so(kind, Reason.RUNNING, f"run by {', '.join(running)}")
    return is_not(kind, Reason.STOPPED, "the writers have ended it")


def _tasks(status: ConnectorStatus) -> str:
    return ", ".join(f"task {each.id} {each.state.lower()}" for each in status.tasks) or "it has no task yet"
