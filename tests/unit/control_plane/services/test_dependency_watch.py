"""How a part is found: at once where it fails, in time where it hangs, and never as well for longer than is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cdc_shared.errors import Transient
from control_plane.models.monitoring import DependencyState
from control_plane.services.dependency_watch import FORGOTTEN_AFTER_LOOKS, DependencyWatch

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

INTERVAL_S = 5.0


class Part:
    """A part of the platform that the test can break; `now_s` is the watch's clock."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.error: Exception | None = None
        self.hangs: asyncio.Event | None = None
        self.looks = 0

    async def look(self) -> int:
        self.looks += 1
        if self.hangs is not None:
            await self.hangs.wait()
        if self.error is not None:
            raise self.error
        return self.looks

    def watch(self, timeout_s: float = 5.0, *, required: bool = False) -> DependencyWatch[int]:
        return DependencyWatch("part", self.look, INTERVAL_S, timeout_s, required=required, clock=lambda: self.now_s)


def state(watch: DependencyWatch[int]) -> DependencyState:
    return watch.detail.state


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_it_is_unknown_until_it_was_looked_at() -> None:
    part = Part()
    watch = part.watch(required=True)
    assert (state(watch), watch.detail.detail, watch.detail.required) == ("unknown", "not checked yet", True)
    await watch.look_once()
    assert (state(watch), watch.value, watch.detail.detail) == ("ok", 1, None)


async def test_what_fails_is_away_with_the_reason_and_the_last_value_stays() -> None:
    part = Part()
    watch = part.watch()
    await watch.look_once()
    well_since = watch.detail.since
    await watch.look_once()
    assert watch.detail.since == well_since, "nothing has changed"
    part.error = Transient("mongodb://root:hunter2@db: refused")
    await watch.look_once()
    assert (state(watch), watch.value) == ("away", 2)
    assert "refused" in (watch.detail.detail or "")
    assert "hunter2" not in (watch.detail.detail or "")
    part.error = ValueError("a value of a document")
    await watch.look_once()
    assert "a value of a document" not in (watch.detail.detail or "")
    part.error = None
    await watch.look_once()
    assert (state(watch), watch.value) == ("ok", 5)


async def test_what_hangs_is_away_in_time_and_is_not_asked_twice_at_once() -> None:
    part = Part()
    part.hangs = asyncio.Event()
    watch = part.watch(timeout_s=0.01)
    looking = asyncio.create_task(watch.look_once())
    await until(lambda: state(watch) is DependencyState.AWAY)
    assert watch.detail.detail == "no answer within 0.01 s"
    assert (part.looks, looking.done()) == (1, False)
    part.hangs.set()
    await looking
    assert (state(watch), watch.value) == ("ok", 1)


async def test_an_old_answer_is_no_answer() -> None:
    part = Part()
    watch = part.watch()
    await watch.look_once()
    part.now_s += FORGOTTEN_AFTER_LOOKS * INTERVAL_S
    assert state(watch) == "ok"
    part.now_s += 5.1
    assert (state(watch), watch.detail.detail) == ("unknown", "not checked for a while")


async def test_it_goes_on_until_it_is_cancelled_also_in_the_middle_of_a_look() -> None:
    part = Part()
    watch: DependencyWatch[int] = DependencyWatch("part", part.look, 0.001, 5.0)
    running = asyncio.create_task(watch.run())
    await until(lambda: part.looks > 3)
    part.hangs = asyncio.Event()
    looks = part.looks
    await until(lambda: part.looks > looks)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
