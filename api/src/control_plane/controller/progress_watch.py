"""Notices when nothing moves although connector and writers say that they run: a task may hang and still be RUNNING.

A pipeline whose source is quiet moves too: its watermark does, which documents in the source's stream push on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from cdc_shared.kafka.status_topic import CollectionReport, Heard
from control_plane.controller.conditions import is_not, is_so
from control_plane.models.pipeline import Condition, ConditionKind

STALLED_AFTER_S: Final = 300.0
"""An idle table's watermark is committed once a minute."""
STALLED_AFTER_INTERVALS: Final = 10.0
"""Of the watermark, where these are longer."""

_Marker = frozenset[tuple[object, ...]]


class ProgressWatch:
    """Of one pipeline. What it compares are marks of progress, no clocks: those of source and writers may differ."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._marker: _Marker = frozenset()
        self._since = clock()

    def begin_anew(self) -> None:
        """It does not run: what stands still then does not count."""
        self._marker = frozenset()

    def condition(self, heard: Sequence[Heard], interval_s: float) -> Condition | None:
        """Whether a pipeline moves of which all say that it runs; None before the first watermark, which snapshots keep
        away. `interval_s` is the watermark's.
        """
        reports = [report for each in heard if not each.is_silent for report in each.report.collections]
        if all(report.watermark_ms is None for report in reports):
            self.begin_anew()
            return None
        now, marker = self._clock(), frozenset(_mark(report) for report in reports)
        if marker != self._marker:
            self._marker, self._since = marker, now
        kind, stands_s = ConditionKind.PROGRESSING, now - self._since
        if stands_s < max(STALLED_AFTER_S, STALLED_AFTER_INTERVALS * interval_s):
            return is_so(kind, "Moves", "changes or the watermark come")
        return is_not(
            kind,
            "Stalled",
            "connector and writers say that they run, but neither a change nor the watermark has come for "
            f"{stands_s / 60:.0f} min: restart the pipeline; if that does not help, see that the source's "
            "cdc_heartbeat can be written, and the log of Kafka Connect",
        )


def _mark(report: CollectionReport) -> tuple[object, ...]:
    return report.topic, report.watermark_ms, report.commit_ms, report.events, report.rejected
