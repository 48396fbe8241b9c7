"""A merge keeps every entry but those known to be dead, whatever the slices."""

import threading
import tracemalloc

import numpy as np
import pytest
from pyroaring import BitMap

from delta_writer.writer import index_merge
from delta_writer.writer.index_file import DiskRun
from delta_writer.writer.index_merge import MergeStopped, merge_in_memory, merge_to_disk
from delta_writer.writer.index_run import MemoryRun

pytestmark = pytest.mark.unit


def entries_of(run) -> list[tuple[int, int, str, int]]:
    high, low, files, rows = run.read(0, len(run))
    return sorted(zip(high.tolist(), low.tolist(), (run.paths[f] for f in files), rows.tolist(), strict=True))


@pytest.mark.parametrize("high_words", [1, 3, 2**64 - 1])
def test_a_merge_equals_the_sorted_union_without_dead_rows(tmp_path, monkeypatch, rng, high_words):
    monkeypatch.setattr(index_merge, "SLICE_ENTRIES", 4096)
    random = np.random.default_rng(rng.randrange(2**32))
    dead: dict[str, BitMap | None] = {}
    expected, runs = [], []
    for number, rows in enumerate([10_000, 1, 0, 3000, 5000, 2000, 1500]):
        path = f"f{number}"
        hashes = np.stack([random.integers(0, high_words, rows, np.uint64), np.arange(rows, dtype=np.uint64)], axis=1)
        run = MemoryRun.of_file(path, hashes)
        doomed = random.random() / 2
        dead[path] = None if number in (3, 6) else BitMap(np.flatnonzero(random.random(rows) < doomed))
        if number == 4:
            dead[path] = BitMap(range(rows))  # read as blocks without a live entry, and still known to the index
        bitmap = dead[path]
        if bitmap is not None:
            expected += [(int(hashes[r, 0]), r, path, r) for r in range(rows) if r not in bitmap]
        if number % 2:
            run = merge_to_disk([run], {path: BitMap()}, tmp_path, "t", threading.Event())
        runs.append(run)
    for merged in (merge_in_memory(runs, dead), merge_to_disk(runs, dead, tmp_path, "t", threading.Event())):
        assert entries_of(merged) == sorted(expected)
        high = merged.read(0, len(merged)).high
        assert (high[1:] >= high[:-1]).all()
        assert tuple(merged.paths) == ("f0", "f1", "f2", "f4", "f5")
        assert merged.entries_of.tolist() == [sum(e[2] == path for e in expected) for path in merged.paths]
    assert sorted(merged.replaces) == sorted(run.path.name for run in runs if isinstance(run, DiskRun))


def test_dead_rows_beyond_the_bound_keep_their_entries(monkeypatch):
    monkeypatch.setattr(index_merge, "MAX_DEAD_BITS", 64)
    runs = [MemoryRun.of_file(path, np.ones((100, 2), np.uint64)) for path in ("a", "b")]
    merged = merge_in_memory(runs, {"a": BitMap([5, 50]), "b": BitMap([5, 70])})
    assert merged.entries_of.tolist() == [98, 100]


def test_memory_does_not_follow_the_number_of_entries(tmp_path, monkeypatch):
    monkeypatch.setattr(index_merge, "SLICE_ENTRIES", 8192)
    random = np.random.default_rng(1)
    peaks = []
    for rows in (50_000, 400_000):
        never = threading.Event()
        runs = [
            merge_to_disk(
                [MemoryRun.of_file(f"f{n}", random.integers(0, 2**64 - 1, (rows // 4, 2), np.uint64))],
                {f"f{n}": BitMap()},
                tmp_path,
                "t",
                never,
            )
            for n in range(4)
        ]
        tracemalloc.start()
        assert len(merge_to_disk(runs, {f"f{n}": BitMap() for n in range(4)}, tmp_path, "t", never)) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] < 8192 * 24 * 16


def test_a_stopped_merge_leaves_nothing(tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(MergeStopped):
        merge_to_disk([MemoryRun.of_file("a", np.ones((9, 2), np.uint64))], {"a": BitMap()}, tmp_path, "t", stop)
    assert not list(tmp_path.iterdir())
