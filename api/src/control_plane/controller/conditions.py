"""What the controller finds of a pipeline: each condition is true, false or unknown, with a word and a sentence why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cdc_shared.connect.connect_client import ConnectorStatus, ConnectorView
from cdc_shared.errors import CdcError, Transient, shown
from cdc_shared.kafka.status_topic import Heard
from cdc_shared.metrics.prometheus_metrics import PipelineState


class Kind(StrEnum):
    """What a condition is about."""

    CONNECTOR_RUNNING = "ConnectorRunning"
    SPEC_PUBLISHED = "SpecPublished"
    WRITER_RUNNING = "WriterRunning"
    SOURCE_REACHABLE = "SourceReachable"
    OPLOG_AT_RISK = "OplogAtRisk"
    RESYNC_NEEDED = "ResyncNeeded"


class Truth(StrEnum):
    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """What was found. `reason` is one word for programs, `message` a sentence for people; neither holds a secret."""

    kind: Kind
    status: Truth
    reason: str
    message: str


def not_known(kind: Kind, error: CdcError) -> Condition:
    """What could not be found out, because something is away."""
    return Condition(kind, Truth.UNKNOWN, "Unavailable", shown(error))


def refused(kind: Kind, error: CdcError) -> Condition:
    """What could not be made true. An absent system says nothing about how things are; a refusal does."""
    if isinstance(error, Transient):
        return not_known(kind, error)
    return Condition(kind, Truth.FALSE, "Refused", shown(error))


def connector_condition(view: ConnectorView | None) -> Condition:
    """Whether the connector and all its tasks run."""
    kind = Kind.CONNECTOR_RUNNING
    if view is None:
        return Condition(kind, Truth.FALSE, "Absent", "Kafka Connect has no such connector")
    status = view.status
    if status.failure is not None:
        return Condition(kind, Truth.FALSE, "Failed", status.failure)
    if status.running:
        return Condition(kind, Truth.TRUE, "Running", f"the connector and {_tasks(status)} run")
    if status.state in ("PAUSED", "STOPPED"):
        word = status.state.capitalize()
        return Condition(kind, Truth.FALSE, word, f"the connector is {word.lower()}")
    what = "it has no task yet" if not status.tasks else _waiting(status)
    return Condition(kind, Truth.FALSE, "Starting", f"the connector is {status.state.lower()}, {what}")


def writer_conditions(heard: Sequence[Heard], trouble: str | None) -> list[Condition]:
    """Whether a writer runs the pipeline, and whether one says that only a resync helps.

    Args:
        heard: the last report of each writer, the newest first.
        trouble: why reports cannot be read now.
    """
    if trouble is not None:
        unknown = [Kind.WRITER_RUNNING, Kind.RESYNC_NEEDED]
        return [Condition(kind, Truth.UNKNOWN, "Unavailable", trouble) for kind in unknown]
    reports = [each.report for each in heard if not each.is_silent]
    needing = [each for each in reports if each.state is PipelineState.RESYNC_NEEDED]
    resync = (
        Condition(Kind.RESYNC_NEEDED, Truth.TRUE, "ChangesLost", needing[0].reason or "a writer asks for it")
        if needing
        else Condition(Kind.RESYNC_NEEDED, Truth.FALSE, "NothingLost", "no writer asks for a resync")
    )
    return [_writer_running(heard), resync]


def _writer_running(heard: Sequence[Heard]) -> Condition:
    kind = Kind.WRITER_RUNNING
    present = [each.report for each in heard if not each.is_silent]
    ended = [each for each in present if each.state in (PipelineState.FAILED, PipelineState.RESYNC_NEEDED)]
    if ended:
        return Condition(kind, Truth.FALSE, "Failed", ended[0].reason or f"the writer {ended[0].writer} has ended it")
    for state, reason in (
        (PipelineState.PAUSED, "Paused"),  # by the limit on dead letters: a person must look
        (PipelineState.RETRYING, "Retrying"),
        (PipelineState.STARTING, "Starting"),
    ):
        found = [each for each in present if each.state is state]
        if found:
            return Condition(kind, Truth.FALSE, reason, found[0].reason or f"the writer is {state}")
    running = [each for each in present if each.state is PipelineState.RUNNING]
    if running:
        return Condition(kind, Truth.TRUE, "Running", f"run by {', '.join(sorted(each.writer for each in running))}")
    if present:
        return Condition(kind, Truth.FALSE, "Stopped", "no writer runs the pipeline")
    if heard:
        silent = heard[0]
        message = f"the writer {silent.report.writer} has said nothing for {silent.age_s:.0f} s"
        return Condition(kind, Truth.FALSE, "Silent", message)
    return Condition(kind, Truth.FALSE, "Absent", "no writer has taken the pipeline; see that a delta-writer runs")


def _tasks(status: ConnectorStatus) -> str:
    return "its task" if len(status.tasks) == 1 else f"its {len(status.tasks)} tasks"


def _waiting(status: ConnectorStatus) -> str:
    return ", ".join(f"task {each.id} {each.state.lower()}" for each in status.tasks)
