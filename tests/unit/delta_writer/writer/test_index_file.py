"""A run on disk finds what the same run in memory finds, and nothing damaged is believed."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_writer.writer import index_file
from delta_writer.writer.index_file import BLOCK_ENTRIES, DiskRun, InvalidRun, RunFileWriter
from delta_writer.writer.index_run import Entries, MemoryRun

pytestmark = pytest.mark.unit


def write(path: Path, run: MemoryRun, table_id: str = "t", slice_entries: int = 700) -> Path:
    writer = RunFileWriter(path, table_id)
    for start in range(0, len(run), slice_entries):
        writer.append(run.read(start, start + slice_entries))
    writer.finish(run.paths, run.entries_of, ["old.run"])
    return path


def run_of(hashes: np.ndarray, files: int = 3) -> MemoryRun:
    numbers = np.arange(len(hashes)) % files
    of_file = MemoryRun.of_file("p", hashes).entries
    entries = Entries(of_file.high, of_file.low, numbers.astype(np.uint32)[of_file.rows], of_file.rows)
    return MemoryRun(tuple(f"f{i}" for i in range(files)), np.bincount(numbers, minlength=files), entries)


def pairs(hits) -> list[tuple[int, int]]:
    files, rows = hits
    return sorted(zip(files.tolist(), rows.tolist(), strict=True))


@pytest.mark.parametrize("entries", [0, 1, BLOCK_ENTRIES, 2500])
@pytest.mark.parametrize("high_words", [1, 4, 2**20, 2**64 - 1])
def test_it_finds_what_a_run_in_memory_finds(tmp_path, entries, high_words, rng):
    """Few high words: entries that share one fill several blocks."""
    random = np.random.default_rng(rng.randrange(2**32))
    highest = random.integers(2**64 - high_words, 2**64 - 1, entries, np.uint64, endpoint=True)
    hashes = np.stack([highest, random.integers(0, 5, entries, np.uint64)], axis=1)
    run = run_of(hashes)
    disk = DiskRun(write(tmp_path / "a.run", run), "t")
    assert (len(disk), tuple(disk.paths), disk.entries_of.tolist()) == (entries, run.paths, run.entries_of.tolist())
    unknown = random.integers(0, 2**64 - 1, (50, 2), np.uint64)
    asked = np.concatenate([hashes[:60], unknown, hashes[:5] ^ np.uint64(8)])
    asked = asked[np.argsort(asked[:, 0])]
    expected = sorted(
        (row % 3, row)
        for high, low in asked.tolist()
        for row in np.flatnonzero((hashes == np.array([high, low], np.uint64)).all(axis=1))
    )
    assert pairs(run.find(asked)) == pairs(disk.find(asked)) == expected
    assert [column.tolist() for column in disk.read(0, 10**9)] == [column.tolist() for column in run.entries]


def test_one_of_a_table_is_not_taken_for_anothers(tmp_path):
    path = write(tmp_path / "a.run", run_of(np.ones((3, 2), np.uint64)))
    with pytest.raises(InvalidRun, match="belongs to table t"):
        DiskRun(path, "u")


@settings(max_examples=40)
@given(data=st.data(), behind_blocks=st.booleans())
def test_any_flipped_bit_is_noticed(tmp_path_factory, data, behind_blocks):
    hashes = np.random.default_rng(1).integers(0, 2**64 - 1, (3000, 2), np.uint64)
    path = write(tmp_path_factory.mktemp("run") / "a.run", run_of(hashes))
    body = bytearray(path.read_bytes())
    first, last = (3 * BLOCK_ENTRIES * 24, len(body) - 1) if behind_blocks else (0, 3 * BLOCK_ENTRIES * 24 - 1)
    body[data.draw(st.integers(first, last), "byte")] ^= 1 << data.draw(st.integers(0, 7), "bit")
    path.write_bytes(body)
    with pytest.raises(InvalidRun):
        DiskRun(path, "t").find(hashes[np.argsort(hashes[:, 0])])
    with pytest.raises(InvalidRun):
        DiskRun(path, "t").read(0, 3000)


@settings(max_examples=50)
@given(data=st.data())
def test_a_truncated_file_is_no_run(tmp_path_factory, data):
    hashes = np.random.default_rng(1).integers(0, 2**64 - 1, (3000, 2), np.uint64)
    path = write(tmp_path_factory.mktemp("run") / "a.run", run_of(hashes))
    path.write_bytes(path.read_bytes()[: data.draw(st.integers(0, path.stat().st_size - 1), "length")])
    with pytest.raises(InvalidRun):
        DiskRun(path, "t")


def test_only_what_a_search_touches_is_checked_and_only_once(tmp_path):
    hashes = np.random.default_rng(1).integers(0, 2**64 - 1, (3000, 2), np.uint64)
    path = write(tmp_path / "a.run", run_of(hashes))
    hashes = hashes[np.argsort(hashes[:, 0])]
    body = path.read_bytes()
    run = DiskRun(path, "t")
    path.write_bytes(body[: 24 * BLOCK_ENTRIES] + b"\xff" + body[24 * BLOCK_ENTRIES + 1 :])  # the second block
    assert len(run.find(hashes[:1000])[0]) == 1000
    with pytest.raises(InvalidRun, match="block 1"):
        run.find(hashes[:1100])
    path.write_bytes(body)
    assert len(run.find(hashes)[0]) == 3000
    path.unlink()
    assert len(run.find(hashes)[0]) == 3000
    with pytest.raises(InvalidRun, match="No such file"):
        run.read(0, 10)


def test_a_background_check_spares_the_search_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(index_file, "_CHECKED_AT_ONCE", 2)
    hashes = np.random.default_rng(1).integers(0, 2**64 - 1, (6000, 2), np.uint64)
    path = write(tmp_path / "a.run", run_of(hashes))
    hashes = hashes[np.argsort(hashes[:, 0])]
    stopped, checked = DiskRun(path, "t"), DiskRun(path, "t")
    stop = threading.Event()
    checked.check_all(stop)
    stop.set()
    stopped.check_all(stop)
    path.unlink()  # what is not checked yet cannot be now
    assert len(checked.find(hashes)[0]) == 6000
    with pytest.raises(InvalidRun):
        stopped.find(hashes)


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path):
    writer = RunFileWriter(tmp_path / "new" / "a.run", "t")  # the directory was deleted since: it is made again
    writer.append(run_of(np.ones((3, 2), np.uint64)).entries)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.partial"]
    writer.abandon()
    assert not list((tmp_path / "new").iterdir())
