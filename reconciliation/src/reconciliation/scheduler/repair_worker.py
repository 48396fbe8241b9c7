"""An approved repair from the moment it is taken until its verification is queued."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

from cdc_shared.errors import CdcError, Transient, shown
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.collection import Collection
from reconciliation.reconciler.progress import Stopped
from reconciliation.reconciler.repair_engine import BATCH_KEYS, RepairEngine, RepairProgress, Requests
from reconciliation.scheduler.repair_store import Repair, RepairedRun, RepairLost, RepairStore
from reconciliation.scheduler.run_control import RunControl
from reconciliation.scheduler.run_thread import in_thread

BEAT_S: Final = 1.0
AGAIN_AFTER_S: Final = 15.0
"""Between two attempts at what failed because something is away, or the writer does not come."""
MAX_ATTEMPTS: Final = 40

T = TypeVar("T")
OpenRequests = Callable[[str, Collection], Requests]
"""Pipeline and collection → what is asked of Kafka and the table. Raises `Transient`, `Fatal`."""

log = get_logger(__name__)


class RepairWorker:
    """Applies one repair; `work` once."""

    def __init__(self, repair: Repair, store: RepairStore, open_requests: OpenRequests) -> None:
        self._repair = repair
        self._store = store
        self._open_requests = open_requests
        self._control = RunControl()
        self._progress = dict(repair.progress)
        self._log = log.bind(repair=str(repair.id), pipeline=repair.pipeline)

    def leave(self) -> None:
        """The service ends: the batch in hand is let go, and the repair given back."""
        self._control.stop()

    async def work(self) -> None:
        """Ask for all keys, and queue the verification. Raises `Transient` when Postgres stays away."""
        repair, store = self._repair, self._store
        self._log.info("repair begun", max_keys=repair.max_keys, kinds=repair.kinds)
        try:
            runs = await self._patiently(lambda: store.runs(repair))
            if not runs:
                await store.fail(repair, "what the job found is no longer kept, or its keys are not known")
                return
            for run in runs:
                await self._repair_run(run)
            await self._patiently(lambda: store.verify(repair, runs))
        except Stopped:
            await store.give_back(repair)
        except RepairLost as lost:
            self._log.warning("repair lost to another process", reason=str(lost))
        except Exception as error:
            reason = shown(error)
            self._log.error("repair failed", reason=reason, exc_info=not isinstance(error, CdcError))
            await store.fail(repair, reason)
        else:
            self._log.info("repair applied; to be verified", keys=sum(one.applied for one in self._progress.values()))

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask Postgres until it answers. Raises the `Transient` of the last attempt."""
        for _ in range(MAX_ATTEMPTS - 1):
            with suppress(Transient):
                return await ask()
            await asyncio.sleep(BEAT_S)
        return await ask()

    async def _repair_run(self, run: RepairedRun) -> None:
        requests = None
        attempt = 1
        while True:
            try:
                if requests is None:
                    requests = await self._beating(lambda: self._open_requests(self._repair.pipeline, run.collection))
                if await self._next_batch(run, requests) == 0:
                    return
                attempt = 1
            except Transient as error:
                if attempt == MAX_ATTEMPTS:
                    raise
                self._log.warning("repair will be tried again", reason=str(error), attempt=attempt)
                attempt += 1
                await self._beating(lambda: self._control.sleep(AGAIN_AFTER_S))

    async def _next_batch(self, run: RepairedRun, requests: Requests) -> int:
        """Repair the keys that come next; how many there were."""
        done = self._progress.get(run.id, RepairProgress())
        keys = await self._store.keys(self._repair, run, done.number, BATCH_KEYS)
        if not keys:
            return 0
        elsewhere = sum(one.applied for other, one in self._progress.items() if other != run.id)
        loop = asyncio.get_running_loop()

        def report(progress: RepairProgress) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._progress.__setitem__, run.id, progress)

        engine = RepairEngine(requests, self._control)
        self._progress[run.id] = await self._beating(
            lambda: engine.apply(keys, self._repair.max_keys - elsewhere, report, done)
        )
        await self._store.note(self._repair, self._progress)
        return len(keys)

    async def _beating(self, work: Callable[[], T]) -> T:
        """Do blocking work in a thread; show once a second how far it is, and that this process is there."""
        working = asyncio.ensure_future(in_thread("repair", work))
        try:
            while not working.done():
                await asyncio.wait({working}, timeout=BEAT_S)
                with suppress(Transient):  # Postgres is away: another one may take over, which does no harm
                    await self._store.note(self._repair, self._progress)
            return working.result()
        finally:
            if not working.done():
                self._control.stop()
                working.add_done_callback(lambda done: done.cancelled() or done.exception())
