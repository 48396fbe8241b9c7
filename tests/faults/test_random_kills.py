"""SIGKILL at 200 random moments, of one writer or of two that share a table, while partitions move between them.

The real pipeline runs with its maintenance in processes that are forked in milliseconds; Kafka is a recording. After
each kill the table equals the model where it stands, has no key twice, and its log holds every offset once.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from crash_rig import CrashRig, RigWriter, damage_cache
from stack_endpoints import Stack
from tcp_proxy import TcpProxy, is_log_entry
from trial_pipeline import trial_name

pytestmark = pytest.mark.faults

TABLES, KILLS_A_TABLE = 5, 20
"""Of one writer, and as many of two: 200 kills."""
KILLS_ON_S3 = 6
KILLS_OF_COPIES, COPIED_CHANGES = 8, 500
ANSWERS_LOST = 12
TIMEOUT_S = 60.0
PARTITIONS = 3
CHANGES = 1_200
LIVES_S = 0.25
ASLEEP_S = 0.2
CACHES = ("kept", "kept", "kept", "deleted", "truncated", "flipped")


class Killing:
    """Kills the writers of one table."""

    def __init__(self, rig: CrashRig, rng: random.Random, *, locally: bool) -> None:
        self.rig = rig
        self.done: Counter[str] = Counter()
        self._rng = rng
        self._locally = locally

    def one_writer(self, kills: int) -> None:
        self.rig.assign_all_to("a")
        for _ in range(kills):
            writer = self.rig.start("a")
            self._live()
            writer.kill()
            self._look_around("a")
            if self._locally and self._rng.random() < 0.3:
                self.rig.age()
                self.done["aged"] += 1
        self.rig.finish()

    def two_writers(self, kills: int) -> None:
        """The one that is not killed goes on; partitions move, also away from a writer that only sleeps."""
        self._move_partitions()
        writers: dict[str, RigWriter] = {}
        for _ in range(kills):
            for member in {"a", "b"} - writers.keys():
                writers[member] = self.rig.start(member)
            self._live()
            member = self._rng.choice("ab")
            if self._rng.random() < 0.3:
                self._put_to_sleep(writers[member])
            if self._rng.random() < 0.6:
                self._move_partitions()
                self._live()
            writers.pop(member).kill()
            self._look_around(member)
        for writer in writers.values():
            writer.stop()
        self.rig.check()
        self.rig.finish()

    def _live(self) -> None:
        time.sleep(self._rng.uniform(0.0, LIVES_S))  # the random moment is the test

    def _look_around(self, member: str) -> None:
        self.rig.check()
        cache = self._rng.choice(CACHES)
        self.done[f"cache {cache}"] += 1
        damage_cache(self.rig.cache_dir(member), cache, self._rng)

    def _move_partitions(self) -> None:
        owners = {member: [p for p in range(PARTITIONS) if self._rng.random() < 0.6] for member in "ab"}
        for unowned in set(range(PARTITIONS)) - set(owners["a"]) - set(owners["b"]):
            owners[self._rng.choice("ab")].append(unowned)
        self.rig.assign(**owners)
        self.done["moved"] += 1

    def _put_to_sleep(self, writer: RigWriter) -> None:
        writer.signal(signal.SIGSTOP)
        try:
            self._move_partitions()
            time.sleep(self._rng.uniform(0.0, ASLEEP_S))
        finally:
            writer.signal(signal.SIGCONT)
        self.done["slept"] += 1


@pytest.fixture
def seeded(request: pytest.FixtureRequest, rng: random.Random) -> random.Random:
    print(f"seed {request.config.getoption('--hypothesis-seed')}")
    return rng


@pytest.mark.parametrize("number", range(TABLES))
def test_one_writer_killed_at_random_moments(tmp_path: Path, seeded: random.Random, number: int) -> None:
    """Attacks I1–I8, I10, I13."""
    rig = CrashRig(tmp_path / "t", seeded, partitions=PARTITIONS, changes=CHANGES, history=number % 2 == 1)
    killing = Killing(rig, seeded, locally=True)
    killing.one_writer(KILLS_A_TABLE)
    print(killing.done)


@pytest.mark.parametrize("number", range(TABLES))
def test_one_of_two_writers_killed_at_random_moments(tmp_path: Path, seeded: random.Random, number: int) -> None:
    """Attacks I1–I8, I13, I14. A partition may have two readers for a while, as when a zombie wakes up."""
    rig = CrashRig(tmp_path / "t", seeded, partitions=PARTITIONS, changes=CHANGES, history=number % 2 == 1)
    killing = Killing(rig, seeded, locally=True)
    killing.two_writers(KILLS_A_TABLE)
    print(killing.done)


@pytest.mark.parametrize("writers", [1, 2])
def test_copy_on_write_killed_at_random_moments(tmp_path: Path, seeded: random.Random, writers: int) -> None:
    """Attacks I1, I2, I3, I5, I6, I14: the commits are delta-rs's, the fence is ours."""
    rig = CrashRig(
        tmp_path / "t", seeded, partitions=PARTITIONS, changes=COPIED_CHANGES, max_rows=40, mode="copy_on_write"
    )
    killing = Killing(rig, seeded, locally=False)
    (killing.one_writer if writers == 1 else killing.two_writers)(KILLS_OF_COPIES)
    print(killing.done)


@pytest.mark.parametrize("writers", [1, 2])
def test_killed_at_random_moments_on_a_real_store(
    tmp_path: Path, seeded: random.Random, writers: int, stack: Stack, tests_root: str
) -> None:
    """Attacks I1–I8, I14."""
    directory = tmp_path / trial_name("s3")
    rig = CrashRig(
        directory, seeded, root=tests_root, stores=stack.object_store, partitions=PARTITIONS, changes=CHANGES
    )
    with closing(rig):
        killing = Killing(rig, seeded, locally=False)
        (killing.one_writer if writers == 1 else killing.two_writers)(KILLS_ON_S3)
    print(killing.done)


def test_answers_get_lost_on_a_real_store(tmp_path: Path, seeded: random.Random, stack: Stack, tests_root: str) -> None:
    """Attacks I3, I8: batches and rewrites of two writers are in the store, and their writers do not hear of it."""
    directory = tmp_path / trial_name("s3")
    with TcpProxy(stack.s3_endpoint) as proxy:
        behind = stack.object_store.model_copy(update={"endpoint": proxy.url})
        rig = CrashRig(directory, seeded, root=tests_root, stores=stack.object_store, partitions=2, changes=CHANGES)
        with closing(rig):
            rig.assign(a=[0], b=[1])
            writers = [rig.start(member, stores=behind) for member in "ab"]
            for _ in range(ANSWERS_LOST):
                then_cut = seeded.random() < 0.3
                lost = proxy.lose_answer(is_log_entry, then_cut=then_cut)
                assert lost.happened.wait(TIMEOUT_S), "nothing was committed any more"
                rig.check()
                if then_cut:
                    proxy.restore()
            for writer in writers:
                writer.stop()
            print(Counter(event for writer in writers for event in writer.events_since(0)))
            rig.finish()
