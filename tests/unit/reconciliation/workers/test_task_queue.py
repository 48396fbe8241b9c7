"""No task is lost, and one that kills its workers ends the run."""

from __future__ import annotations

import pytest

from reconciliation.workers.outcome import WorkersLost
from reconciliation.workers.task_queue import MAX_DEATHS_OF_A_TASK, TaskQueue

pytestmark = pytest.mark.unit


def begin(queue: TaskQueue[str, int], handle: int) -> str:
    number, task = queue.next()
    queue.begun(number, handle)
    return task


def test_each_task_is_handed_out_and_finished_once() -> None:
    queue: TaskQueue[str, int] = TaskQueue(["a", "b", "c"])
    assert [begin(queue, handle) for handle in range(3)] == ["a", "b", "c"]
    assert not queue.waiting
    assert queue
    assert [queue.finished(handle) for handle in (2, 0, 1)] == ["c", "a", "b"]
    assert not queue


def test_tasks_whose_workers_died_come_first_again_in_their_order() -> None:
    queue: TaskQueue[str, int] = TaskQueue(["a", "b", "c", "d"])
    for handle in range(3):
        begin(queue, handle)
    assert queue.finished(1) == "b"
    queue.lost_all()
    assert not queue.under_way
    assert [begin(queue, handle) for handle in range(10, 13)] == ["a", "c", "d"]


def test_a_task_that_no_worker_took_comes_first_again() -> None:
    queue: TaskQueue[str, int] = TaskQueue(["a", "b"])
    number, _ = queue.next()
    queue.put_back(number)
    assert begin(queue, 1) == "a"


def test_a_task_that_workers_keep_dying_of_is_named() -> None:
    queue: TaskQueue[str, int] = TaskQueue(["harmless", "deadly"])
    begin(queue, 0)
    queue.finished(0)
    for _ in range(MAX_DEATHS_OF_A_TASK - 1):
        begin(queue, 1)
        queue.lost_all()
    begin(queue, 1)
    with pytest.raises(WorkersLost, match=r"died 3 times while they worked 'deadly'.*out of memory"):
        queue.lost_all()
