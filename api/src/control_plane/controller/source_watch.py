"""Looking at pipelines' sources in the background: do they answer, and do they still hold what comes next?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.errors import CdcError, shown
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.source.mongodb_source import MongodbSource
from cdc_shared.source.oplog import OplogWindow, oplog_window
from control_plane.controller.conditions import is_not, is_so, not_known
from control_plane.models.pipeline import Condition, ConditionKind, Reason

LOOK_EVERY_S: Final = 30.0
THREADS: Final = 4
AT_RISK_SHARE: Final = 0.25
"""Of the oplog's span: a connector that stands within this share of its oldest end may soon find its place gone."""

log = get_logger(__name__)


@dataclass(slots=True)
class _Look:
    source: SourceSpec
    at: float = float("-inf")
    found: tuple[Condition, ...] = ()
    is_running: bool = False


class SourceWatch:
    """Tells what was found last, never blocks, and looks again when that is old. Any thread may ask."""

    def __init__(self, look: Callable[[PipelineSpec], tuple[Condition, ...]], clock: Callable[[], float]) -> None:
        """`look` blocks, and returns what it finds; `clock` is monotonic, in seconds."""
        self._look = look
        self._clock = clock
        self._lock = threading.Lock()
        self._looks: dict[str, _Look] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="source-watch")

    def conditions(self, spec: PipelineSpec) -> tuple[Condition, ...]:
        """What was found last of the pipeline's source; nothing before the first look has ended."""
        with self._lock:
            look = self._looks.get(spec.name)
            if look is None or look.source != spec.source:
                look = self._looks[spec.name] = _Look(spec.source)
            if not look.is_running and self._clock() - look.at >= LOOK_EVERY_S:
                look.is_running = True
                self._threads.submit(self._take, spec, look)
            return look.found

    def close(self) -> None:
        """Look no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _take(self, spec: PipelineSpec, look: _Look) -> None:
        found: tuple[Condition, ...] = ()
        try:
            found = self._look(spec)
        except Exception as error:  # the thread's end: nothing may keep the next look away
            log.error("source cannot be looked at", pipeline=spec.name, reason=shown(error), exc_info=True)
        with self._lock:
            look.found, look.at, look.is_running = found, self._clock(), False


class LookAtSource:
    """One look. Blocks for seconds when the source does not answer."""

    def __init__(self, source: Callable[[PipelineSpec], MongodbSource], connect: Callable[[], ConnectClient]) -> None:
        self._source = source
        self._connect = connect

    def __call__(self, spec: PipelineSpec) -> tuple[Condition, ...]:
        """Whether it answers and, where it tells what its oplog spans, whether the connector's place is safe."""
        kind = ConditionKind.SOURCE_REACHABLE
        try:
            with closing(self._source(spec)) as source, source.asking("look at its oplog"):
                window = oplog_window(source.database("admin").client)
        except CdcError as error:
            why = shown(error)
            return (is_not(kind, Reason.UNAVAILABLE, why), not_known(ConditionKind.OPLOG_AT_RISK, why))
        answers = is_so(kind, "Answers", "the source answers")
        if window is None:
            return (answers,)
        try:
            with self._connect() as connect:
                offsets = connect.offsets(spec.name)
        except CdcError as error:
            return (answers, not_known(ConditionKind.OPLOG_AT_RISK, shown(error)))
        return (answers, *oplog_condition(window, offsets))


def oplog_condition(window: OplogWindow, offsets: Sequence[dict[str, Any]]) -> tuple[Condition, ...]:
    """Whether what the connector reads next may soon be gone; nothing where it has not committed a place yet.

    Args:
        window: what the oplog spans.
        offsets: what Connect holds of the connector: `sec` of each is the source's time of its place.
    """
    places = [int(each["sec"]) for each in offsets if "sec" in each]
    if not places or window.seconds <= 0:
        return ()
    kind, ahead_s = ConditionKind.OPLOG_AT_RISK, min(places) - window.first_s
    if ahead_s < 0:
        return (is_so(kind, "Lost", "the oplog no longer holds what the connector reads next: resync the pipeline"),)
    if ahead_s < AT_RISK_SHARE * window.seconds:
        message = (
            f"what the connector reads next is dropped within {ahead_s / 3600:.1f} h from the oplog, which spans "
            f"{window.seconds / 3600:.1f} h: let it run, or enlarge the oplog"
        )
        return (is_so(kind, "FallsBehind", message),)
    return (is_not(kind, "Safe", "the oplog holds what the connector reads next"),)
