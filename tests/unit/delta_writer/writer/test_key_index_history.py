"""Any history of commits, compactions, crashes, full disks and damage: the index finds what a dict finds (I5, I7)."""

from __future__ import annotations

import errno
import shutil
import tempfile
from itertools import count
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from index_table import HeldThreads, IndexTable, catch_up, found, hashes_of

from delta_writer.writer import index_file, index_merge, key_index
from delta_writer.writer.key_index import KeyIndex

pytestmark = pytest.mark.unit

KEYS = range(80)
NAMES = st.integers(0, 2**20)


class IndexHistory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(key_index, "_SMALLEST_TIER_ENTRIES", 4)
        self.patch.setattr(key_index, "MERGE_FANOUT", 3)
        self.patch.setattr(key_index, "INLINE_MERGE_ENTRIES", 24)
        self.patch.setattr(key_index, "QUICK_MERGE_ENTRIES", 60)
        uuids = count(1)
        self.patch.setattr(index_merge, "uuid4", lambda: UUID(int=next(uuids)))  # runs in the same order in a replay
        self.real_write = index_file._write_all
        self.patch.setattr(index_file, "_write_all", self.write)
        self.root = Path(tempfile.mkdtemp())
        self.stale = self.root / "stale"
        self.stale.mkdir()
        self.table = IndexTable()
        self.number = 0
        self.now = 0.0
        self.disk_is_full = False

    def write(self, descriptor, body) -> None:
        if self.disk_is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.real_write(descriptor, body)

    @initialize()
    def open(self) -> None:
        self.threads = HeldThreads()
        self.index = KeyIndex(self.root / "cache", "t", self.table.dead_rows, self.threads, lambda: self.now)
        catch_up(self.index, self.table)

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.root)

    @property
    def runs(self) -> list[Path]:
        return sorted((self.root / "cache" / "t").glob("*.run"))

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=12, unique=True))
    def commit(self, keys: list[int]) -> None:
        found(self.index, self.table, keys)
        self.number += 1
        self.table.put(f"f{self.number}", keys)
        self.index.add(f"f{self.number}", hashes_of(keys))

    @rule(choice=st.randoms(use_true_random=False))
    def compact(self, choice) -> None:
        paths = [path for path in self.table.files if choice.random() < 0.5]
        self.number += 1
        output = f"compacted-{self.number}"
        self.table.compact(paths, output)
        if output in self.table.files:
            self.index.add(output, hashes_of(self.table.files[output]))

    @rule(choice=st.randoms(use_true_random=False))
    def forget_vectors(self, choice) -> None:
        self.table.unread = {path for path in self.table.files if choice.random() < 0.3}

    @rule()
    def work(self) -> None:
        self.threads.work()

    @rule(full=st.booleans())
    def fill_or_empty_the_disk(self, full: bool) -> None:
        self.disk_is_full = full
        self.now += 40

    @rule()
    def keep_a_stale_copy(self) -> None:
        for run in self.runs:
            shutil.copy(run, self.stale)

    @rule()
    def close_and_open(self) -> None:
        self.index.close()
        self.open()

    @rule(unfinished=st.booleans())
    def crash(self, unfinished: bool) -> None:
        self.index._directory.release()
        if unfinished:
            (self.root / "cache" / "t" / "half.partial").write_bytes(b"x")
        self.open()

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), harm=st.sampled_from(["flip", "truncate", "delete", "other table", "stale", "twice"]))
    def crash_with_damage(self, data, harm: str) -> None:
        self.index._directory.release()
        run = data.draw(st.sampled_from(self.runs), "run")
        body = bytearray(run.read_bytes())
        if harm == "flip":
            body[data.draw(NAMES, "byte") % len(body)] ^= 1 << data.draw(NAMES, "bit") % 8
            run.write_bytes(body)
        elif harm == "truncate":
            run.write_bytes(body[: data.draw(NAMES, "length") % len(body)])
        elif harm == "delete":
            run.unlink()
        elif harm == "other table":
            shutil.copy(self.another_tables_run(), run)
        elif harm == "twice":
            shutil.copy(run, run.with_name(f"{index_merge.uuid4().hex}.run"))
        else:
            for stale in self.stale.iterdir():
                shutil.copy(stale, run.parent)
        self.open()

    def another_tables_run(self) -> Path:
        path = self.root / "another.run"
        if not path.exists():
            writer = index_file.RunFileWriter(path, "another")
            full, self.disk_is_full = self.disk_is_full, False
            writer.finish([f"f{n}" for n in range(200)], np.zeros(200, np.int64), [])
            self.disk_is_full = full
        return path

    @invariant()
    def it_finds_what_the_table_holds(self) -> None:
        if hasattr(self, "index"):
            assert found(self.index, self.table, KEYS) == self.table.live()
            assert not self.index.missing(self.table.files)


TestIndexHistory = IndexHistory.TestCase
TestIndexHistory.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
