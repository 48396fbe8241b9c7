"""What is said of sources: looked at in the background, and told in time before the oplog has moved on."""

from __future__ import annotations

import threading

import pytest

from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.source.oplog import OplogWindow
from control_plane.controller.conditions import is_not, is_so
from control_plane.controller.source_watch import LOOK_EVERY_S, SourceWatch, oplog_condition
from control_plane.models.pipeline import Condition, ConditionKind, ConditionStatus

pytestmark = pytest.mark.unit

SPEC = PipelineSpec(name="shop", source=SourceSpec(connection="env:X", database="db"))
DAY_S = 24 * 3600


@pytest.mark.parametrize(
    ("place_s", "reason", "status"),
    [
        (999, "Lost", ConditionStatus.TRUE),
        (1000, "FallsBehind", ConditionStatus.TRUE),
        (1000 + DAY_S // 4 - 1, "FallsBehind", ConditionStatus.TRUE),
        (1000 + DAY_S // 4, "Safe", ConditionStatus.FALSE),
        (1000 + DAY_S, "Safe", ConditionStatus.FALSE),
    ],
)
def test_the_connectors_place_in_the_oplog(place_s: int, reason: str, status: ConditionStatus) -> None:
    window = OplogWindow(1000, 1000 + DAY_S, used=1.0)
    (found,) = oplog_condition(window, [{"sec": place_s + 5}, {"sec": place_s}])
    assert (found.kind, found.reason, found.status) == (ConditionKind.OPLOG_AT_RISK, reason, status)


def test_without_a_place_nothing_is_said_of_the_oplog() -> None:
    assert oplog_condition(OplogWindow(1000, 1000 + DAY_S, used=None), []) == ()


def test_a_look_never_blocks_and_is_repeated_when_it_is_old() -> None:
    now = [0.0]
    may_end, ended = threading.Event(), threading.Semaphore(0)
    answers = [
        is_so(ConditionKind.SOURCE_REACHABLE, "Answers", "1"),
        is_not(ConditionKind.SOURCE_REACHABLE, "Away", "2"),
    ]
    looks = 0

    def look(spec: PipelineSpec) -> tuple[Condition, ...]:
        nonlocal looks
        assert may_end.wait(10)
        looks += 1
        ended.release()
        if looks == 3:
            raise RuntimeError("a fault of ours")
        return (answers[looks - 1],)

    watch = SourceWatch(look, lambda: now[0])

    def found_after_a_look() -> tuple[Condition, ...]:
        assert ended.acquire(timeout=10)
        while watch._looks["shop"].is_running:  # the look has ended, its thread has not yet stored it
            threading.Event().wait(0.001)
        return watch.conditions(SPEC)

    assert watch.conditions(SPEC) == ()
    assert watch.conditions(SPEC) == ()
    may_end.set()
    assert found_after_a_look() == (answers[0],)
    now[0] += LOOK_EVERY_S - 1
    assert watch.conditions(SPEC) == (answers[0],)
    assert looks == 1
    now[0] += 1
    assert watch.conditions(SPEC) == (answers[0],)
    assert found_after_a_look() == (answers[1],)
    now[0] += LOOK_EVERY_S
    watch.conditions(SPEC)
    assert found_after_a_look() == ()  # what is not known is not told
    watch.close()
