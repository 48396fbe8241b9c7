"""`make status`: healthy means that the part did its work when asked, not that a process is there."""

from dataclasses import replace

import pytest
from rich.console import Console

from local_stack.errors import NotReady
from local_stack.parts.part import Part
from local_stack.status import duration, part_statuses, settled_statuses, status_table
from local_stack.supervision import ProcessInfo

pytestmark = pytest.mark.unit

PART = Part("kafka", "127.0.0.1:9092", ready=lambda: "8 topics", command=("java",))
NO_PID = 2**22 + 1
"""Above Linux's largest process id: its memory is nobody's."""


def refuse() -> str:
    raise NotReady("connection refused")


def test_a_part_that_answers_is_healthy() -> None:
    [status] = part_statuses([PART], {"kafka": ProcessInfo("kafka", "RUNNING", NO_PID, 61)})

    assert status.healthy
    assert status.finding == "8 topics"


def test_a_running_process_that_does_not_answer_is_not_healthy() -> None:
    [status] = part_statuses([replace(PART, ready=refuse)], {"kafka": ProcessInfo("kafka", "RUNNING", NO_PID, 5)})

    assert not status.healthy
    assert status.finding == "connection refused"


def test_more_is_asked_for_than_at_the_start() -> None:
    connect = replace(PART, healthy=refuse)

    [status] = part_statuses([connect], {"kafka": ProcessInfo("kafka", "RUNNING", NO_PID, 5)})

    assert not status.healthy


@pytest.mark.parametrize("processes", [{}, {"kafka": ProcessInfo("kafka", "FATAL", 0, 0)}])
def test_a_part_without_a_process_is_not_asked(processes: dict[str, ProcessInfo]) -> None:
    """Something else may answer on its port."""
    [status] = part_statuses([PART], processes)

    assert not status.healthy
    assert status.finding.startswith("not running")


def test_the_table_shows_what_people_look_for() -> None:
    statuses = part_statuses([PART], {"kafka": ProcessInfo("kafka", "RUNNING", NO_PID, 61)})
    console = Console(width=160)

    with console.capture() as captured:
        console.print(status_table(statuses))
    shown = captured.get()

    for text in ("kafka", "healthy", "127.0.0.1:9092", str(NO_PID), "1 min", "8 topics"):
        assert text in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h 0 min"), (90_061, "1 d 1 h")],
)
def test_durations_are_for_people(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_the_table_waits_for_what_is_about_to_be_healthy() -> None:
    answers = iter([NotReady("rebalancing"), "8 topics"])

    def settle() -> str:
        answer = next(answers)
        if isinstance(answer, NotReady):
            raise answer
        return answer

    running = {"kafka": ProcessInfo("kafka", "RUNNING", NO_PID, 1)}
    [status] = settled_statuses([replace(PART, ready=settle)], lambda: running, within_s=60)
    assert status.healthy

    [status] = settled_statuses([replace(PART, ready=refuse)], lambda: running, within_s=0)
    assert not status.healthy
