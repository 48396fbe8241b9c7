"""What a job shows of itself while something that it needs is away."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from cdc_shared.errors import Transient
from cdc_shared.models.reconciliation import JobOptions, JobState, Mode, Notifications, Overlap
from reconciliation.reconciler.progress import RunProgress
from reconciliation.scheduler.job import Claim, Job, Run
from reconciliation.scheduler.job_executor import JobExecutor

pytestmark = pytest.mark.unit

RUN = Run(UUID(int=2), "shop", "orders", JobState.RUNNING)
JOB = Job(
    claim=Claim(UUID(int=1), "worker", 1),
    number=1,
    pipeline="shop",
    collections=None,
    mode=Mode.FULL,
    options=JobOptions(),
    notifications=Notifications(),
    overlap=Overlap.QUEUE,
    repair_id=None,
    requested_by="somebody",
    requested_at=datetime(2026, 1, 1, tzinfo=UTC),
)


class Around:
    """What the executor tells, and a wait that takes no time."""

    def __init__(self) -> None:
        self.seen: list[RunProgress] = []
        self.stored: list[dict[str, Any]] = []
        self.observer = SimpleNamespace(progressed=lambda _job, _run, progress: self.seen.append(progress))
        self.jobs = SimpleNamespace(tell_progress=self._tell)

    async def _tell(self, _run: Run, progress: dict[str, Any]) -> None:
        self.stored.append(progress)


def test_what_a_run_waits_for_is_shown_before_it_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    around = Around()
    executor = JobExecutor(JOB, around)  # type: ignore[arg-type]
    attempts = 0

    async def pause(_: float) -> None:
        assert len(around.seen) == len(around.stored) == attempts, "it is shown while it is waited for, not after"

    async def work() -> str:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise Transient("no primary answers: db:27017")
        return "done"

    monkeypatch.setattr(executor, "_pause_between", pause)
    assert asyncio.run(executor._patiently(work, RUN)) == "done"
    for told in [*(each.throttled_by for each in around.seen), *(each["throttled_by"] for each in around.stored)]:
        assert told is not None
        assert told.endswith("and tries again: no primary answers: db:27017")
    assert len(around.seen) == 2
