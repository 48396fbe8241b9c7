"""SIGKILL of a writer at every named step between poll and index update, and harm to what it left on local disk.

After each: the table, where it stands, equals the model, no key has two rows, no dead letter is missing, and the next
writer goes on. The writers are real processes with the real pipeline; Kafka is a recording, so that they start fast.
"""

from __future__ import annotations

import random
import shutil
import signal
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from crash_points import STEPS, CrashPoint
from crash_rig import CrashRig, damage_cache
from stack_endpoints import Stack
from trial_pipeline import trial_name

pytestmark = pytest.mark.faults

LAST_HIT = 2
"""A process dies at one of the first times that it comes to the step."""
VACUUM_STEPS = ("vacuum deletes", "vacuum has deleted")
SELDOM = ("table read", "partition assigned", "dead letters acknowledged", *VACUUM_STEPS)
CACHES = ("kept", "deleted", "truncated", "flipped", "old", "another table's")
STEPS_ON_S3 = ("data file stored", "log entry on its way", "log entry stored, answer unheard", "checkpoint stored")
WITH_A_BATCH_IN_HAND = ("batch encoded", "superseded rows looked up", "data file stored", "log entry on its way")
STEPS_OF_HISTORY = (*WITH_A_BATCH_IN_HAND, "log entry stored, answer unheard", "snapshot moved on", "offsets hinted")
ZOMBIE_STEPS = (
    *WITH_A_BATCH_IN_HAND,
    "records polled",
    "log entry stored, answer unheard",
    "rewritten file stored",
    "rewrite's entry on its way",
)
STARTS = 4
RECORDS_OF_A_PAST = 60
"""Some commits of the rig's 20 rows; what is left has every step twice, however slow the machine."""
SIGKILLED = -signal.SIGKILL


def point(step: str, rng: random.Random) -> CrashPoint:
    return CrashPoint(step, 1 if step in SELDOM else rng.randint(1, LAST_HIT))


def begin(rig: CrashRig) -> None:
    """Give the table some past; vacuum may delete what two of these have left behind."""
    rig.assign_all_to("a")
    rig.start("a", reads_at_most=RECORDS_OF_A_PAST).join(0)
    rig.check()
    rig.age()


def kill_at(rig: CrashRig, step: str, rng: random.Random) -> None:
    """Kill a writer at the step, check the table after its death, and have the next one read to the end."""
    begin(rig)
    begin(rig)
    rig.start("a", point(step, rng)).join(SIGKILLED)
    rig.check()
    rig.finish()


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_every_step(tmp_path: Path, rng: random.Random, step: str) -> None:
    """Attacks I1, I2, I3, I5, I6, I7, I13."""
    kill_at(CrashRig(tmp_path / "t", rng), step, rng)


@pytest.mark.parametrize("step", STEPS_OF_HISTORY)
def test_killed_between_a_history_and_its_table(tmp_path: Path, rng: random.Random, step: str) -> None:
    """Attacks I1, I2, I13: a batch is committed to two tables, and each has offsets of its own."""
    kill_at(CrashRig(tmp_path / "t", rng, history=True), step, rng)


@pytest.mark.parametrize("step", STEPS_ON_S3)
def test_killed_on_a_real_store(tmp_path: Path, rng: random.Random, step: str, stack: Stack, tests_root: str) -> None:
    """Attacks I1, I2, I3, I5: what was on its way to the store when its sender died may come later, or never."""
    with closing(CrashRig(tmp_path / trial_name("s3"), rng, root=tests_root, stores=stack.object_store)) as rig:
        kill_at(rig, step, rng)


@pytest.mark.parametrize("step", sorted(STEPS.keys() - VACUUM_STEPS))
def test_another_writer_goes_on(tmp_path: Path, rng: random.Random, step: str) -> None:
    """Attacks I2, I4, I5, I14: two writers share the table; one dies at the step, the other takes its partitions."""
    rig = CrashRig(tmp_path / "t", rng, partitions=3, changes=500)
    begin(rig)
    rig.assign(a=[0, 2], b=[1])
    survivor = rig.start("b")
    rig.start("a", point(step, rng)).join(SIGKILLED)
    rig.check()
    rig.assign_all_to("b")
    rig.check()
    survivor.stop()
    rig.check()
    rig.finish()


@pytest.mark.parametrize("step", ZOMBIE_STEPS)
def test_a_zombie_writes_nothing(tmp_path: Path, rng: random.Random, step: str) -> None:
    """Attacks I2, I4, I8: a writer sleeps at the step while another takes over and commits, and then goes on.

    What it stored before it slept it may report after: always when it sleeps on the way back from the put, and now and
    then when it is its maintenance, another thread, that comes to the step.
    """
    rig = CrashRig(tmp_path / "t", rng)
    begin(rig)
    zombie = rig.start("a", replace(point(step, rng), signal=signal.SIGSTOP))
    zombie.await_asleep()
    fell_asleep_at = rig.version
    rig.assign_all_to("b")
    successor = rig.start("b")
    rig.await_commits(3)
    asleep_since = zombie.log_lines
    zombie.signal(signal.SIGCONT)
    zombie.stop()
    events = zombie.events_since(asleep_since)
    late = [version for version in zombie.committed_since(asleep_since) if version > fell_asleep_at]
    assert not late, f"it slept from version {fell_asleep_at} on"
    if step in WITH_A_BATCH_IN_HAND:
        assert "batch dropped" in events
    rig.check()
    successor.stop()
    rig.finish()


@pytest.mark.parametrize("cache", CACHES)
def test_a_harmed_cache_is_not_trusted(tmp_path: Path, rng: random.Random, cache: str) -> None:
    """Attacks I7: a wrong index entry would leave an old row beside the new one."""
    rig = CrashRig(tmp_path / "t", rng)
    other = CrashRig(tmp_path / "u", rng, changes=200) if cache == "another table's" else None
    kept = tmp_path / "kept"
    if other is not None:
        other.finish()
        shutil.copytree(other.cache_dir("a"), kept)
    rig.assign_all_to("a")
    harmed = 0
    for number in range(STARTS):
        writer = rig.start("a")
        rig.await_commits(3)
        if number % 2 == 0:
            writer.stop()
        else:
            writer.kill()
        rig.check()
        harmed += bool(list(rig.cache_dir("a").rglob("*.run")))
        if cache == "old" and not kept.exists():
            shutil.copytree(rig.cache_dir("a"), kept)
        damage_cache(rig.cache_dir("a"), cache, rng, kept)
    rig.finish()
    assert harmed >= STARTS / 2, "there was no index on disk to harm"
