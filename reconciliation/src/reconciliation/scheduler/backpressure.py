"""Whether a run should wait because the writer is behind: what it reads of the source, the writer needs as well."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from cdc_shared.kafka.status_topic import Heard
from cdc_shared.metrics.prometheus_metrics import PipelineState
from cdc_shared.models.collection import Collection

GO_ON_BELOW: Final = 0.8
"""Of the lag at which a run is held back: less, and it would begin and wait in turns."""

Reports = Callable[[str], Sequence[Heard]]
"""As `StatusReader.reports`."""
Clock = Callable[[], float]
"""Unix time in seconds."""


class Backpressure:
    """Of one run. A writer that is stopped, silent or without a watermark holds nobody back: waiting does not help."""

    def __init__(self, reports: Reports, pipeline: str, collection: Collection, max_lag_s: float, clock: Clock) -> None:
        self._reports = reports
        self._pipeline = pipeline
        self._collection = collection
        self._max_lag_s = max_lag_s
        self._clock = clock
        self._holds = False

    def reason_to_wait(self) -> str | None:
        """Why the run should wait now, in plain words; None when it should not."""
        lag_s = self._lag_s()
        limit_s = self._max_lag_s * (GO_ON_BELOW if self._holds else 1)
        self._holds = lag_s is not None and lag_s > limit_s
        if lag_s is None or not self._holds:
            return None
        behind, allowed = (timedelta(seconds=round(each)) for each in (lag_s, self._max_lag_s))
        return f"the writer is {behind} behind, more than max_lag_s allows ({allowed}): waiting for it"

    def _lag_s(self) -> float | None:
        """Of the writer of the collection that is furthest behind."""
        lags = [
            self._clock() - each.watermark_ms / 1000
            for heard in self._reports(self._pipeline)
            if not heard.is_silent and heard.report.state is PipelineState.RUNNING
            for each in heard.report.collections
            if (each.database, each.collection) == (self._collection.database, self._collection.name)
            and each.partitions
            and each.watermark_ms is not None
        ]
        return max(lags, default=None)
