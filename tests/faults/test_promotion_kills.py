"""SIGKILL, sleep and company of a writer whose table's column `mixed` is being promoted.

The column conflicts all the time, so that every process that reads a while asks for the promotion, until it is done.
"""

from __future__ import annotations

import random
import signal
from functools import partial
from pathlib import Path

import pytest
from crash_points import PROMOTION_STEPS, CrashPoint
from crash_rig import END_TIMEOUT_S, CrashRig
from waiting import wait_until

from cdc_shared.delta.log import DeltaLog
from cdc_shared.documents import from_delta_schema
from cdc_shared.documents import types as t
from cdc_shared.models.common import HISTORY_SUFFIX
from cdc_shared.storage.object_store import open_store
from delta_writer.maintenance.promotion import PROMOTIONS

pytestmark = pytest.mark.faults

CHANGES = 600
SIGKILLED = -signal.SIGKILL
WITH_HISTORY = ("promotion's entry stored, answer unheard",)
BESIDE_ANOTHER = ("promoted file indexed", "promotion landed")
ASLEEP = ("promotion's entry on its way",)


def begin(directory: Path, rng: random.Random, *, partitions: int = 2, history: bool = False) -> CrashRig:
    """A table with some past, and more conflicts to come than a promotion needs."""
    rig = CrashRig(directory, rng, partitions=partitions, changes=CHANGES, history=history, promotes=True)
    rig.assign_all_to("a")
    writer = rig.start("a")
    rig.await_commits(2)
    writer.stop()
    rig.check()
    return rig


def finish(rig: CrashRig) -> None:
    """Read to the end; then what was asked for is done, which an idle writer goes on with."""
    rig.finish()
    waiting = [each for each in ["", HISTORY_SUFFIX * rig.spec.sink.history] if not is_promoted(rig, each)]
    if not waiting:
        return
    writer = rig.start("a")
    for suffix in waiting:
        wait_until(partial(is_promoted, rig, suffix), END_TIMEOUT_S, "mixed is promoted", poll_s=0.05)
    writer.stop()
    rig.check()


def is_promoted(rig: CrashRig, suffix: str) -> bool:
    """The column is JSON, and nothing waits."""
    metadata = DeltaLog(open_store(rig.url + suffix, rig.stores)).load().metadata
    assert metadata is not None
    mixed = from_delta_schema(metadata.schema_string).by_name["mixed"]
    return mixed.type == t.JSON and PROMOTIONS not in metadata.configuration


@pytest.mark.parametrize("step", PROMOTION_STEPS)
def test_killed_at_every_step(tmp_path: Path, rng: random.Random, step: str) -> None:
    """Attacks I1, I2, I5, I6, I7, I8, I14: the table is what it was, or in its new columns, and the next goes on."""
    rig = begin(tmp_path / "t", rng)
    rig.start("a", CrashPoint(step, 1), waits=True).join(SIGKILLED)
    rig.check()
    finish(rig)


@pytest.mark.parametrize("step", WITH_HISTORY)
def test_killed_with_a_history(tmp_path: Path, rng: random.Random, step: str) -> None:
    """Attacks I1, I2: both tables are promoted, each by a commit of its own."""
    rig = begin(tmp_path / "t", rng, history=True)
    rig.start("a", CrashPoint(step, 1), waits=True).join(SIGKILLED)
    rig.check()
    finish(rig)


@pytest.mark.parametrize("step", BESIDE_ANOTHER)
def test_another_writer_goes_on(tmp_path: Path, rng: random.Random, step: str) -> None:
    """Attacks I5, I7, I14: the other one's batches are of the old columns until it sees the new ones."""
    rig = begin(tmp_path / "t", rng, partitions=3)
    rig.assign(a=[0, 2], b=[1])
    survivor = rig.start("b")
    rig.start("a", CrashPoint(step, 1), waits=True).join(SIGKILLED)
    rig.check()
    rig.assign_all_to("b")
    rig.check()
    survivor.stop()
    rig.check()
    finish(rig)


@pytest.mark.parametrize("step", ASLEEP)
def test_a_zombie_promotes_nothing_that_has_changed(tmp_path: Path, rng: random.Random, step: str) -> None:
    """Attacks I4, I8: it sleeps while another takes over, and perhaps promotes the column itself."""
    rig = begin(tmp_path / "t", rng)
    zombie = rig.start("a", CrashPoint(step, 1, signal.SIGSTOP))
    zombie.await_asleep()
    rig.assign_all_to("b")
    rig.start("b", stops_when_drained=True).join(0)
    zombie.signal(signal.SIGCONT)
    zombie.stop()
    rig.check()
    finish(rig)
