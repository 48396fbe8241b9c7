"""The controller's loop: while this process is the leader, every pipeline gets its rounds, one at a time.

A round is due when something was said to have changed (a row, a report of a writer, a spec), when the one before asked
for another, and every few seconds in any case. Rounds block, so they run in threads of their own.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import anyio

from cdc_shared.errors import CdcError, shown
from cdc_shared.logging.structured_logger import get_logger
from control_plane.controller.leader import Election, Leadership, LeadershipLost
from control_plane.controller.pipeline_driver import NotLeader, PipelineDriver
from control_plane.controller.store import ControllerStore
from control_plane.controller.systems import Systems

THREADS: Final = 8
"""Rounds at a time."""
LIST_EVERY_S: Final = 10.0
"""How often it is looked for pipelines that nobody has told of."""
AFTER_A_FAULT_S: Final = 10.0

log = get_logger(__name__)


@dataclass(slots=True)
class _Rounds:
    """One pipeline's."""

    driver: PipelineDriver
    due_at: float
    is_running: bool = False
    is_woken: bool = False
    """While it was running."""


class Controller:
    """Runs until it is cancelled. `wake` may be called from any thread."""

    def __init__(
        self,
        systems: Systems,
        dsn: str,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` is monotonic, in seconds."""
        self._systems = systems
        self._clock = clock
        self._rng = rng or random.Random()  # nosec B311 # spreads attempts, guards nothing
        self._election = Election(dsn, self._wake, self._rng, clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._woken: set[str] = set()
        self.is_leader = False

    def wake(self, name: str) -> None:
        """Have the pipeline looked at soon."""
        if self._loop is not None and not self._loop.is_closed():
            with suppress(RuntimeError):  # it is being closed at this moment
                self._loop.call_soon_threadsafe(self._wake, name)

    async def run(self) -> None:
        """Stand for election, lead, and begin again whenever the leadership was lost."""
        self._loop = asyncio.get_running_loop()
        while True:
            async with self._election.lead() as leadership:
                self.is_leader = True
                try:
                    await self._lead(leadership)
                except* LeadershipLost as lost:
                    log.warning("the leadership is lost", reason=str(lost.exceptions[0]))
                except* Exception as errors:
                    log.error("the controller stumbled", reason=shown(errors.exceptions[0]), exc_info=errors)
                    await asyncio.sleep(AFTER_A_FAULT_S)
                finally:
                    self.is_leader = False

    async def _lead(self, leadership: Leadership) -> None:
        term = _Term(self, leadership)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(leadership.keep())
            tasks.create_task(term.list_pipelines())
            await term.run(tasks)

    def _wake(self, name: str) -> None:
        self._woken.add(name)
        self._news.set()


class _Term:
    """One time of being the leader. What drivers remember ends with it."""

    def __init__(self, controller: Controller, leadership: Leadership) -> None:
        self._controller = controller
        self._leadership = leadership
        self._store = ControllerStore(leadership)
        self._limiter = anyio.CapacityLimiter(THREADS)
        self._rounds: dict[str, _Rounds] = {}

    async def list_pipelines(self) -> None:
        """Wake what is due in any case: pipelines that nobody has told of."""
        while True:
            for name in await self._store.names():
                if name not in self._rounds:
                    self._controller._wake(name)
            await asyncio.sleep(LIST_EVERY_S)

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Start rounds as they become due."""
        controller = self._controller
        while True:
            for name in self._take_due():
                rounds = self._rounds.setdefault(name, _Rounds(self._new_driver(), controller._clock()))
                if rounds.is_running:
                    rounds.is_woken = True
                else:
                    rounds.is_running = True
                    tasks.create_task(self._round(name, rounds))
            next_due_at = min((each.due_at for each in self._rounds.values() if not each.is_running), default=None)
            wait_s = None if next_due_at is None else next_due_at - controller._clock()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await controller._news.wait()
            controller._news.clear()

    def _new_driver(self) -> PipelineDriver:
        controller = self._controller
        return PipelineDriver(
            controller._systems, controller._clock, controller._rng, is_leader=lambda: self._leadership.holds
        )

    def _take_due(self) -> set[str]:
        controller = self._controller
        now = controller._clock()
        woken, controller._woken = controller._woken, set()
        return woken | {name for name, each in self._rounds.items() if not each.is_running and each.due_at <= now}

    async def _round(self, name: str, rounds: _Rounds) -> None:
        again_in_s: float | None = AFTER_A_FAULT_S
        try:
            again_in_s = await self._one_round(name, rounds.driver)
        except LeadershipLost:
            raise
        except NotLeader as error:
            raise LeadershipLost(str(error)) from error
        except Exception as error:  # one pipeline's fault is not the others'
            log.error(
                "pipeline cannot be looked after",
                pipeline=name,
                reason=shown(error),
                exc_info=not isinstance(error, CdcError),
            )
        finally:
            rounds.is_running = False
        if again_in_s is None:
            del self._rounds[name]
        else:
            rounds.due_at = self._controller._clock() + (0.0 if rounds.is_woken else again_in_s)
        rounds.is_woken = False
        self._controller._news.set()

    async def _one_round(self, name: str, driver: PipelineDriver) -> float | None:
        """Return when the next one is due, in seconds; None when there is no such pipeline."""
        row = await self._store.load(name)
        if row is None:
            return None
        result = await anyio.to_thread.run_sync(driver.round, row, limiter=self._limiter, abandon_on_cancel=True)
        await self._store.save(row, result)
        return result.again_in_s
